// The page: a picture comes in, is asked about once, and everything on screen is drawn from that answer.

import { Camera } from "./camera.js";
import { acceptPictures } from "./give.js";
import { loadPicture, makeBlank, readClassIds } from "./picture.js";
import { findTints, listBoxes, listClasses, listSegments, showParts, showTiming, summarise } from "./results.js";
import { Refusal, keepKey, predict } from "./service.js";
import { Stage } from "./stage.js";
import { copy, download, fromBase64, writeCurl } from "./take.js";

const SUMMARY_EVERY_MS = 4000; // while the camera runs: screen readers read every change aloud

const $ = (id) => document.getElementById(id);
const opacity = $("opacity");
const threshold = $("threshold");
const hidden = new Set(); // class ids that a person has switched off; kept from picture to picture

let asked = null; // the newest picture: {blob, source, live, abort}
let shown = null; // what is on screen: {blob, source, picture}, and once there is an answer {ids, reply} too
let summarisedAt = 0;

const findBoxes = () => shown.reply.answer.detections?.filter(({ score }) => score * 100 >= threshold.value);

const stage = new Stage($("canvas"), () => {
  if (!shown?.reply) return shown;
  const tints = findTints(shown.reply.answer.segments ?? [], hidden);
  return { ...shown, shown: tints, opacity: opacity.value / 100, detections: findBoxes() };
});

const camera = new Camera({
  ask: (frame) => ask(frame, { name: "frame.jpg" }, { live: true }),
  pace: (perSecond) => ($("camera-label").textContent = `${perSecond.toFixed(1)} pictures per second`),
  ended: (words) => {
    if (asked?.live) asked.abort.abort();
    showCamera(false);
    if (words) tellProblem(words);
    if (shown?.reply) summariseNow();
  },
});

/**
 * Ask about a picture and show it with its answer, unless a newer picture has come meanwhile.
 * @param {Blob} blob
 * @param {{name: string, url?: string}} source where curl finds the same bytes
 * @returns {Promise<number>} seconds to wait before the next picture; -1 when another would fare no better
 */
async function ask(blob, source, { live = false } = {}) {
  if (!live) camera.stop();
  asked?.abort.abort();
  const mine = (asked = { blob, source, live, abort: new AbortController() });
  const { signal } = mine.abort;
  if (!live) say("Asking…");
  const replying = predict(blob, signal);
  replying.catch(() => {}); // it is awaited behind the picture
  const picture = await loadPicture(blob).catch(() => null);
  if (signal.aborted) return 0;
  try {
    if (!live) show({ blob, source, picture });
    const reply = await replying;
    const known = picture ?? makeBlank(reply.answer.image);
    const { mask } = reply.answer;
    const ids = mask ? await readClassIds(mask.data, known.canvas) : null;
    if (signal.aborted) return 0;
    show({ blob, source, picture: known, ids, reply }, { live });
    if (!picture) tellProblem("This browser cannot draw the picture; the service could read it.");
    else if (picture.width !== reply.answer.image.width) tellProblem("This browser does not turn the picture as the service does: mask and boxes do not fit.");
    return 0;
  } catch (error) {
    if (signal.aborted) return 0;
    const known = error instanceof Refusal;
    if (!known) console.error(error);
    for (const part of document.querySelectorAll(".answer")) part.hidden = true;
    say("No answer.");
    tellProblem(known ? error.message : "This page cannot read the answer.", { status: error.status, again: () => ask(blob, source) });
    return live && error.retryAfterS ? error.retryAfterS : -1;
  }
}

function show(what, { live = false } = {}) {
  shown = what.picture ? what : null;
  tellProblem("");
  $("canvas").hidden = !shown;
  $("stage").classList.toggle("empty", !shown);
  for (const part of document.querySelectorAll(".answer")) {
    part.inert = !what.reply; // the last answer stays in its place, dimmed, until there is one about this picture
    if (what.reply) part.hidden = false;
  }
  if (what.reply) {
    const { segments = [], classes = [], timing_ms: timing } = what.reply.answer;
    showParts(what.reply.answer, $("canvas"));
    listSegments($("segments"), segments, hidden, toggle);
    listClasses($("classes"), classes);
    showTiming({ bar: $("timing-bar"), legend: $("timing-legend"), sentence: $("timing") }, what.reply);
    showBoxes();
    if (!live || performance.now() - summarisedAt > SUMMARY_EVERY_MS) summariseNow();
    measure(timing.forward ?? 0);
  }
  stage.draw();
}

/** Note how long the answer took from hand to screen; tests/benchmarks/page.py reads it. */
function measure(forwardMs) {
  const painted = () => {
    if (!performance.getEntriesByName("unihead:given").length) return;
    performance.measure("unihead:on-screen", { start: "unihead:given", detail: { forwardMs } });
    performance.clearMarks("unihead:given");
  };
  requestAnimationFrame(() => requestAnimationFrame(painted)); // the next frame begins when this one is on screen
}

function showBoxes() {
  const boxes = findBoxes();
  if (boxes) {
    listBoxes($("boxes"), boxes);
    $("boxes-count").textContent = `${boxes.length} of ${shown.reply.answer.detections.length}`;
  }
  $("curl").textContent = writeCurl(shown.source, shown.blob.type, threshold.value / 100);
}

function showSliders() {
  $("opacity-value").textContent = `${opacity.value} %`;
  $("threshold-value").textContent = `${threshold.value} %`;
}

function toggle(id) {
  if (!hidden.delete(id)) hidden.add(id);
  stage.redraw();
}

function say(words) {
  $("summary").textContent = words;
}

function summariseNow() {
  summarisedAt = performance.now();
  say(summarise(shown.reply.answer, findBoxes(), threshold.value / 100));
}

/** Say what went wrong; no words take it back. Trying again is offered where it may help without another picture. */
function tellProblem(words, { again = null, status = 0 } = {}) {
  const [text, button] = $("problem").children;
  $("problem").hidden = !words;
  text.textContent = words;
  button.hidden = !again || (status >= 400 && status < 500);
  button.onclick = again;
  $("key-form").hidden = status !== 401;
  if (status === 401) $("key").focus();
}

function showCamera(on) {
  $("camera").classList.toggle("on", on);
  $("camera").textContent = on ? "Stop camera" : "Start camera";
  $("camera-label").textContent = on ? "Starting…" : "Or a live camera";
}

async function takeAway(kind) {
  const { source, blob, reply } = shown;
  const stem = source.name.replace(/\.[^.]*$/, "");
  if (kind === "json") download(new Blob([JSON.stringify(reply.answer, null, 2)], { type: "application/json" }), `${stem}.json`);
  if (kind === "mask") download(fromBase64(reply.answer.mask.data, "image/png"), `${stem}-mask.png`);
  if (kind === "overlay") download(await stage.toPng(), `${stem}-overlay.png`);
  if (kind === "picture") download(blob, source.name);
}

const take = (blob, source) => {
  performance.mark("unihead:given");
  ask(blob, source);
};
acceptPictures([$("file"), $("photo")], document.querySelectorAll("[data-sample]"), take, tellProblem);
$("camera").addEventListener("click", () => {
  if (camera.running) return camera.stop();
  showCamera(true);
  camera.start();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) camera.stop("The camera was switched off while the page was out of sight.");
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey($("key").value);
  $("key").value = "";
  ask(asked.blob, asked.source);
});
opacity.addEventListener("input", () => {
  showSliders();
  stage.redraw();
});
threshold.addEventListener("input", () => {
  showSliders();
  showBoxes();
  stage.redraw();
});
threshold.addEventListener("change", summariseNow);
$("copy").addEventListener("click", async () => ($("taken").textContent = await copy($("curl"))));
for (const button of document.querySelectorAll("[data-take]")) button.addEventListener("click", () => takeAway(button.dataset.take));
for (const code of document.querySelectorAll("[data-examples]")) {
  code.textContent = code.textContent.replaceAll("http://localhost:8000/", new URL(".", document.baseURI).href);
}
showSliders();
