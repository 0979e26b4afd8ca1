-- wrk script: POST pictures, each time with other bytes behind its end, so that no two requests are about the same picture.
-- arguments: "raw" or "form"; paths separated by commas; files. With several paths each picture is sent to all of them.
local mode, paths, bodies = nil, {}, {}
local count = 0
local thread_number = 0

function setup(thread)
  thread:set("id", thread_number)
  thread_number = thread_number + 1
end

function init(args)
  mode = args[1]
  for path in string.gmatch(args[2], "[^,]+") do
    paths[#paths + 1] = path
  end
  for i = 3, #args do
    local file = io.open(args[i], "rb")
    bodies[#bodies + 1] = file:read("*a")
    file:close()
  end
end

function request()
  local picture = math.floor(count / #paths)
  local path = paths[count % #paths + 1]
  count = count + 1
  local body = bodies[picture % #bodies + 1] .. string.format("%d-%d-%s", id, picture, os.getenv("UNIHEAD_BENCH_RUN") or "")
  if mode == "raw" then
    return wrk.format("POST", path, {["Content-Type"] = "image/jpeg"}, body)
  end
  local form = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n" ..
    "Content-Type: image/jpeg\r\n\r\n" .. body .. "\r\n--xyz--\r\n"
  return wrk.format("POST", path, {["Content-Type"] = "multipart/form-data; boundary=xyz"}, form)
end

function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
  io.write(string.format('\n{"requests": %d, "seconds": %.3f, "failed": %d, "p50_ms": %.2f, "p95_ms": %.2f, "p99_ms": %.2f}\n',
    summary.requests, summary.duration / 1e6, failed,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000))
end
