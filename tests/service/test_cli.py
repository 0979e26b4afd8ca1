from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.cli import main
from service.engine.engine import Engine
from service.engine.golden import answer_golden
from tests.service.fakes import FakeSession, encode, make_contract, make_picture, write_keys

ROOT = Path(__file__).parents[2]


def make_environment(**changes: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UNIHEAD_")}
    return {**clean, **changes}


@contextmanager
def serve(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """Start the command; yields the process, its port, and the log up to the line that says it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from service.cli import main; main()", "--port", "0", *flags],
        cwd=ROOT,
        env=make_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"ready on http://[\d.]+:(\d+) ", line):
                yield process, int(found[1]), log
                break
        else:
            pytest.fail(f"it never became ready: {''.join(log)}")
    finally:
        process.kill()
        process.communicate()


@contextmanager
def answer_with(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str, str]:
    """Run the command in this process; returns the exit code, stdout and stderr."""
    code: int | str | None = 0
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_it_serves_a_picture_and_stops_with_0_when_it_is_told_to(tiny_model: Path) -> None:
    started = time.perf_counter()
    with serve(UNIHEAD_MODEL=str(tiny_model), UNIHEAD_PROT="1", UNIHEAD_THREADS="1") as (process, port, log):
        assert time.perf_counter() - started < 10  # three seconds on two free cores; these may be busy
        assert any("UNIHEAD_PROT, which is no setting; did you mean UNIHEAD_PORT?" in line for line in log)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/predict", encode(make_picture()), {"X-Request-ID": "here"})
        response = connection.getresponse()
        response.read()
        assert (response.status, response.headers["X-Request-ID"], response.headers["Server"]) == (200, "here", None)
        connection.close()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        request = json.loads(rest.splitlines()[0])
        assert (request["message"], request["request_id"], request["cache"]) == ("request", "here", "miss")
        assert (request["method"], request["route"], request["status"]) == ("POST", "/predict", 200)
        assert 0 < request["ms"] < 20_000
        assert {json.loads(line)["level"] for line in (*log, *rest.splitlines())} <= {"info", "warning"}


def test_a_model_that_is_missing_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "--port", "0", "--model", "/no/such.onnx"],
        cwd=ROOT,
        env=make_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "unihead-serve: /no/such.onnx: the model file cannot be read: No such file or directory"
    ]


def test_a_port_that_is_taken_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run(capsys, "--port", str(port))
    assert code == 1
    assert err == (
        f"unihead-serve: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose others with --host and --port\n"
    )


@pytest.mark.slow
def test_too_few_files_are_one_sentence() -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (100, 100))
    command = [sys.executable, "-c", "from service.cli import main; main()", "--port", "0"]
    done = subprocess.run(
        command, cwd=ROOT, env=make_environment(), capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("unihead-serve: this process may open 100 files and sockets, and needs 256 at least")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prot", "1"], "unrecognized arguments: --prot 1"),
        (["stray"], "unrecognized arguments: stray"),
        (["--port", "x"], "--port (UNIHEAD_PORT) is 'x': input should be a valid integer"),
        (["--port", "70000"], "--port (UNIHEAD_PORT) is '70000': input should be less than or equal to 65535"),
        (["--max-body-bytes", "0"], "--max-body-bytes (UNIHEAD_MAX_BODY_BYTES) is '0'"),
        (["--auth", "on"], "--auth (UNIHEAD_AUTH) is 'on': input should be 'keys' or 'off'"),
        (["--auth", "keys"], "auth is `keys`, and there is no key file: name one with --keys (UNIHEAD_KEYS)"),
        (["--auth", "off", "--keys", "k"], "auth is `off`, and k is set as key file: leave one of them out"),
        (["--memory-bytes", "9999999"], "memory_bytes is 9999999, and one body may have 10000000"),
        (["--host", "0.0.0.0", "--port", "0"], "0.0.0.0 is an address that others may reach"),  # noqa: S104 - refused
        (["--cors-origins", "*"], "'*' is no origin; it must look like https://example.org"),
    ],
)
def test_wrong_flags_are_named(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert message in err


def test_a_wrong_variable_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIHEAD_PORT", "http://10.0.0.1:8000")
    code, _, err = run(capsys)
    assert code == 2
    assert err.startswith("unihead-serve: --port (UNIHEAD_PORT) is 'http://10.0.0.1:8000': ")


def test_health_asks_the_default_port_where_kubernetes_has_set_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIHEAD_PORT", "tcp://10.0.0.1:80")
    asked: list[str] = []
    monkeypatch.setattr("service.cli.get", lambda url, *_: asked.append(url))
    assert run(capsys, "health")[0] == 0
    assert asked == ["http://127.0.0.1:8000"]


def test_reload_tells_how_its_own_ended_and_not_one_that_somebody_has_begun_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text("1")
    monkeypatch.setattr(os, "kill", lambda *_: None)

    def reloads(model: tuple[float, str], keys: tuple[float, str]) -> bytes:
        of_model, of_keys = (
            {"started_at": time.time() + ago_s, "outcome": outcome, "sha256": "c0ffee", "reason": "broken"}
            for ago_s, outcome in (model, keys)
        )
        return json.dumps({"last_reload": of_model, "keys": {"in_force": 1, "last_reload": of_keys}}).encode()

    began = [
        reloads((-60, "swapped"), (-60, "swapped")),
        reloads((-1, "refused"), (-1, "refused")),  # begun before the wish, over after it
        reloads((-1, "refused"), (1, "swapped")),
        reloads((1, "unchanged"), (1, "swapped")),
    ]
    monkeypatch.setattr("service.cli.get", lambda *_: began.pop(0))
    monkeypatch.setattr("service.cli._POLL_S", 0)
    code, out, err = run(capsys, "reload", "--pid-file", str(tmp_path / "pid"))
    assert (code, err, began) == (0, "", [])
    assert out.splitlines() == ["keys swapped, 1 in force", "unchanged: the model with SHA-256 c0ffee answers"]


def test_help_names_every_setting_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for words in ("--max-body-bytes", "UNIHEAD_MODEL", "in pixels", "unihead-serve health"):
        assert words in re.sub(r"\s+", " ", out)


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"unihead-serve \S+\n", run(capsys, "--version")[1])


def test_health_is_0_when_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with answer_with(200) as url:
        assert run(capsys, "health", "--url", url) == (0, "", "")


def test_health_is_1_when_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with answer_with(503) as url:
        code, _, err = run(capsys, "health", "--url", url)
    assert (code, err) == (1, f"{url} is not ready: status 503\n")


def test_health_is_1_when_nobody_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("UNIHEAD_PORT", str(port))
    code, _, err = run(capsys, "health")
    assert code == 1
    assert err.startswith(f"http://127.0.0.1:{port} does not answer: ")


def test_health_wants_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "health", "--url", "localhost:8000")
    assert code == 2
    assert "must look like http://127.0.0.1:8000" in err


@pytest.mark.slow
def test_reload_swaps_the_model_of_a_running_service(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, write_tiny_model: Callable[..., Path]
) -> None:
    model, pid_file = tmp_path / "model.onnx", tmp_path / "unihead.pid"
    golden = answer_golden(Engine(FakeSession(), make_contract()))
    write_tiny_model(model, make_contract(golden=golden))
    with serve("--model", str(model), "--pid-file", str(pid_file)) as (process, port, _):
        words = ("reload", "--pid-file", str(pid_file), "--url", f"http://127.0.0.1:{port}")
        assert int(pid_file.read_text()) == process.pid
        write_tiny_model(model, make_contract(version="new", golden=golden))
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        assert out.startswith("swapped: the model with SHA-256 ")
        model.write_bytes(b"hello")
        code, out, err = run(capsys, *words)
        assert (code, out) == (1, "")
        assert err.startswith("refused, the old model stays: ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert not pid_file.exists()


@pytest.mark.slow
def test_everybody_is_let_in_from_everywhere_if_that_is_said_aloud(
    capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    everywhere = {"UNIHEAD_HOST": "0.0.0.0", "UNIHEAD_MODEL": str(tiny_model)}  # noqa: S104 - what is warned about
    with serve(UNIHEAD_AUTH="off", **everywhere) as (_, port, log):
        warned = [json.loads(line)["message"] for line in log if '"level":"warning"' in line]
        assert warned.count(f"auth is off: whoever reaches 0.0.0.0 port {port} is answered") == 1
        assert run(capsys, "health", "--url", f"http://127.0.0.1:{port}") == (0, "", "")


def test_a_key_file_that_is_wrong_is_one_sentence(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("phone")
    for path, message in [(tmp_path / "keys", "line 1 is not an id and"), (tmp_path / "none", "No such file")]:
        done = subprocess.run(
            [sys.executable, "-c", "from service.cli import main; main()", "--port", "0", "--keys", path],
            cwd=ROOT,
            env=make_environment(UNIHEAD_MODEL=str(tiny_model)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"unihead-serve: {path}: ")
        assert message in done.stderr


@pytest.mark.slow
def test_commands_bring_a_key_from_the_environment_or_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    keys, pid_file, own = tmp_path / "keys", tmp_path / "unihead.pid", tmp_path / "own.key"
    write_keys(keys, phone="uh_one")
    own.write_text("uh_one\n")
    flags = ["--model", str(tiny_model), "--keys", str(keys), "--pid-file", str(pid_file)]
    with serve(*flags) as (_, port, log):
        assert "keys in force: phone" in [json.loads(line)["message"] for line in log]
        url = f"http://127.0.0.1:{port}"
        reload = ("reload", "--pid-file", str(pid_file), "--url", url)
        bench = ("bench", "--url", url, "--seconds", "0.1", "--concurrency", "1")
        assert run(capsys, "health", "--url", url) == (0, "", "")  # /readyz is open: the HEALTHCHECK of the container
        for words in (reload, bench):
            code, _, err = run(capsys, *words)
            assert (code, err.count("\n")) == (1, 1)
            assert f"{url} asks for a key" in err
        write_keys(keys, phone="uh_one", laptop="uh_two")
        code, out, err = run(capsys, *reload, "--key-file", str(own))
        assert err.startswith("refused, the old model stays: ")  # it has no golden answers
        assert (code, out) == (1, "keys swapped, 2 in force\n")
        monkeypatch.setenv("UNIHEAD_KEY", "uh_two")
        keys.write_text("nonsense")
        code, out, err = run(capsys, *reload)
        assert (code, out) == (1, "")
        assert err.startswith(f"refused, the old keys stay: {keys}: line 1 ")
        code, out, err = run(capsys, *bench)
        assert (code, err) == (0, "")
        monkeypatch.setenv("UNIHEAD_KEY", "uh_two\nx")
        code, out, err = run(capsys, *reload)
        assert (code, err) == (1, "UNIHEAD_KEY does not hold one key and nothing else\n")
        for content in ("", "a b", "schl\u00fcssel"):
            own.write_text(content)
            code, out, err = run(capsys, *reload, "--key-file", str(own))
            assert (code, "does not hold one key and nothing else" in err) == (2, True)
        code, out, err = run(capsys, *reload, "--key-file", str(tmp_path / "none"))
        assert (code, "cannot be read: No such file" in err) == (2, True)


def test_a_key_is_made_by_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "key", "new", "--file", str(tmp_path / "keys"))
    assert (code, out.startswith("uh_")) == (0, True)


def test_reload_says_who_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "reload")
    assert (code, "--pid-file" in err) == (2, True)
    code, _, err = run(capsys, "reload", "--pid-file", str(tmp_path / "none"), "--url", "http://127.0.0.1:9")
    assert (code, "http://127.0.0.1:9 does not answer" in err) == (1, True)


def test_health_imports_nothing_that_is_slow() -> None:
    script = (
        "import sys; from service.cli import main\n"
        "try: main(['health', '--url', 'http://127.0.0.1:9'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'fastapi', 'pydantic', 'numpy', 'onnxruntime', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
