from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import stat
import threading
from collections import Counter
from pathlib import Path

import pytest

from service.api.key_ring import KeyRing
from service.api.keys import KeyFileError, Keys, append_key, hash_key, make_key, parse_keys, read_keys
from service.commands.key import main as key_command
from tests.service.fakes import write_keys

ONE, TWO = hash_key("one"), hash_key("two")


def test_keys_have_256_bits_and_are_never_the_same() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"uh_[A-Za-z0-9_-]{43}", key) for key in keys)


def test_the_file_has_lines_comments_and_blanks() -> None:
    text = f"# who may ask\n\n  phone\t{ONE}  # since May\r\nlap.top_2 {TWO.upper()}"
    keys = parse_keys(b"\xef\xbb\xbf" + text.encode())
    assert keys.hashes == {"phone": hashlib.sha256(b"one").digest(), "lap.top_2": hashlib.sha256(b"two").digest()}
    assert str(keys) == "phone, lap.top_2"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (f"phone {ONE}\nphone {TWO}", "line 2 has the same id as a line before it"),
        (f"phone {ONE}\n\nlaptop {ONE.upper()}", "line 3 has the same key as a line before it"),
        ("phone", "line 1 is not an id and a SHA-256 of 64 hexadecimal digits, separated by a space"),
        (f"phone {ONE} {TWO}", "line 1 is not an id and"),
        (f"# x\nphone {ONE[:-1]}", "line 2 is not an id and"),
        (f"phone {ONE[:-1]}g", "line 1 is not an id and"),
        (f"phöne {ONE}", "line 1 has an id that is not 1 to 64 letters, digits, dots, dashes or underscores"),
        (f"{'x' * 65} {ONE}", "line 1 has an id that is not 1 to 64 letters"),
        (f"uh_secret {ONE}", "line 1 has an id that begins with uh_, as keys do, and ids are logged"),
        ("phone uh_secret", "line 1 has a key; the file takes the SHA-256 of it"),
    ],
)
def test_what_is_wrong_is_named_by_its_line_and_never_quoted(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "keys").write_text(lines)
    with pytest.raises(KeyFileError) as failure:
        read_keys(tmp_path / "keys")
    assert str(failure.value).startswith(f"{tmp_path}/keys: {message}")
    assert "secret" not in str(failure.value)
    assert ONE[:20] not in str(failure.value)


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    for content, message in [
        (b"", "holds no key; `unihead-serve key new --file"),
        (b"# nobody\n", "holds no key"),
        (b"phone \xff", "the key file is no UTF-8 text"),
        (b"#" * 1_000_001, "has more than 1000000 bytes"),
    ]:
        (tmp_path / "keys").write_bytes(content)
        with pytest.raises(KeyFileError, match=message):
            read_keys(tmp_path / "keys")
    with pytest.raises(KeyFileError, match=r"none: the key file cannot be read: No such file or directory"):
        read_keys(tmp_path / "none")
    with pytest.raises(KeyFileError, match="cannot be read: it is a directory, and has to be a regular file"):
        read_keys(tmp_path)
    with pytest.raises(KeyFileError, match=r"/dev/null: the key file cannot be read: it is a character device"):
        read_keys(Path("/dev/null"))


@pytest.mark.timeout(10)
def test_a_fifo_in_the_place_of_the_file_is_waited_for_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    os.mkfifo(path)
    with pytest.raises(KeyFileError, match="cannot be read: it is a FIFO"):
        read_keys(path)
    with pytest.raises(KeyFileError, match="cannot be written: it is a FIFO"):
        append_key(path, "phone", ONE)


def test_a_key_in_the_place_of_the_file_is_not_shown() -> None:
    with pytest.raises(KeyFileError, match="takes a file, not a key") as failure:
        read_keys(Path("uh_secret"))
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o440, False), (0o644, True), (0o660, True)])
def test_a_file_that_others_may_read_or_write_is_a_warning(tmp_path: Path, mode: int, warned: bool) -> None:
    path = write_keys(tmp_path / "keys", phone="one")
    path.chmod(mode)
    keys, warning = read_keys(path)
    assert list(keys.hashes) == ["phone"]
    assert warning == (f"{path}: others may read or write the key file; chmod 600 {path}" if warned else "")


def test_a_key_is_found_by_its_hash_and_nothing_else_is() -> None:
    keys = parse_keys(f"phone {ONE}\nlaptop {TWO}".encode())
    assert (keys.find(b"one"), keys.find(b"two")) == ("phone", "laptop")
    for wrong in (b"", b"One", b"one ", ONE.encode(), bytes.fromhex(ONE), b"phone", b"\xff" * 32_768):
        assert keys.find(wrong) is None
    assert Keys().find(b"one") is None


def test_all_hashes_are_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, compared = parse_keys(f"a {ONE}\nb {TWO}\nc {hash_key('three')}".encode()), Counter[bytes]()
    real = __import__("hmac").compare_digest

    def compare(known: bytes, presented: bytes) -> bool:
        compared[known] += 1
        return bool(real(known, presented))

    monkeypatch.setattr("service.api.keys.hmac.compare_digest", compare)
    assert keys.find(b"one") == "a"
    assert compared == dict.fromkeys(keys.hashes.values(), 1)


def test_a_new_file_is_for_its_owner_alone_and_grows_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    append_key(path, "phone", ONE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(path.read_text() + "# no line end")
    append_key(path, "laptop", TWO)
    assert path.read_text() == f"phone {ONE}\n# no line end\nlaptop {TWO}\n"
    with pytest.raises(KeyFileError, match="has a key with the id phone; choose another with --id"):
        append_key(path, "phone", hash_key("three"))
    path.write_text("nonsense")
    with pytest.raises(KeyFileError, match="line 1"):
        append_key(path, "tablet", ONE)
    assert path.read_text() == "nonsense"


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    names = [f"key-{number}" for number in range(20)]
    threads = [threading.Thread(target=append_key, args=(path, name, hash_key(name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_keys(path)[0].hashes) == set(names)


def test_the_command_shows_the_key_once_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert key_command(["new", "--id", "phone"]) == 0
    out, err = capsys.readouterr()
    key, line = out.splitlines()
    assert parse_keys(line.encode()).find(key.encode()) == "phone"
    assert key not in err


def test_the_command_puts_the_line_into_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    shown = []
    for _ in range(2):
        assert key_command(["new", "--file", str(path)]) == 0
        out, err = capsys.readouterr()
        shown.append(out.removesuffix("\n"))
        assert str(path) in err
        assert shown[-1] not in err
        assert shown[-1] not in path.read_text()
    keys, warning = read_keys(path)
    names = [keys.find(key.encode()) for key in shown]
    assert names == list(keys.hashes)
    assert all(re.fullmatch(r"key-[0-9a-f]{8}", str(name)) for name in names)
    assert warning == ""


def test_the_command_shows_no_key_that_is_in_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert key_command(["new", "--file", str(tmp_path / "none" / "keys")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("the key file cannot be written: No such file or directory\n")


@pytest.mark.parametrize("words", [["new", "--id", "a b"], ["new", "--id", "uh_x"], ["new", "--id", ""], [], ["old"]])
def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        key_command(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: unihead-serve key")


def test_the_help_tells_how_to_begin_and_how_to_rotate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        key_command(["--help"])
    text = capsys.readouterr().out
    for words in ("shown once", "--keys unihead.keys", "Authorization: Bearer", "unihead-serve reload"):
        assert words in text


class Ring(KeyRing):
    def __init__(self, path: Path) -> None:
        self.counts = Counter[str]()
        super().__init__(path, timeout_s=10, count=lambda outcome: self.counts.update([outcome]))


def test_nobody_comes_in_before_the_keys_are_loaded(tmp_path: Path) -> None:
    ring = Ring(write_keys(tmp_path / "keys", phone="one"))
    assert ring.keys.find(b"one") is None
    ring.load()
    assert ring.keys.find(b"one") == "phone"
    with pytest.raises(KeyFileError):
        Ring(tmp_path / "none").load()


@pytest.mark.anyio
async def test_a_reload_swaps_the_keys_or_keeps_the_old_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unihead")
    path = write_keys(tmp_path / "keys", phone="one")
    ring = Ring(path)
    ring.load()
    write_keys(path, phone="one", laptop="two")
    assert (await ring.reloader.reload()).outcome == "swapped"
    assert (ring.keys.find(b"one"), ring.keys.find(b"two")) == ("phone", "laptop")
    assert (await ring.reloader.reload()).outcome == "unchanged"
    write_keys(path, telephone="one", laptop="two")
    assert (await ring.reloader.reload()).outcome == "swapped"
    for broken in ("phone", ""):
        path.write_text(broken)
        last = await ring.reloader.reload()
        assert (last.outcome, ring.keys.find(b"one")) == ("refused", "telephone")
        assert str(path) in last.reason
        assert last.reason in caplog.text
    path.unlink()
    assert (await ring.reloader.reload()).number == 6
    assert ring.counts == {"swapped": 2, "unchanged": 1, "refused": 3}
    assert "keys reloaded: swapped, in force: phone, laptop" in caplog.messages


@pytest.mark.anyio
async def test_a_fifo_does_not_end_the_reloading(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", phone="one")
    ring = Ring(path)
    ring.load()
    path.unlink()
    os.mkfifo(path)
    refused = await ring.reloader.reload()
    assert (refused.outcome, ring.keys.find(b"one")) == ("refused", "phone")
    assert "it is a FIFO" in refused.reason
    path.unlink()
    write_keys(path, phone="two")
    assert (await ring.reloader.reload()).outcome == "swapped"


@pytest.mark.anyio
async def test_of_many_reloads_at_once_the_last_file_wins(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", phone="one")
    ring = Ring(path)
    ring.load()
    reloads = [asyncio.ensure_future(ring.reloader.reload()) for _ in range(5)]
    write_keys(path, phone="two")
    reloads += [asyncio.ensure_future(ring.reloader.reload()) for _ in range(5)]
    done = [await reload for reload in reloads]
    assert {(one.number, one.outcome) for one in done} <= {(1, "swapped"), (2, "unchanged")}
    assert (ring.keys.find(b"one"), ring.keys.find(b"two")) == (None, "phone")


@pytest.mark.anyio
async def test_a_file_that_others_may_read_is_warned_about_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_keys(tmp_path / "keys", phone="one")
    path.chmod(0o644)
    ring = Ring(path)
    ring.load()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ring.keys.find(b"one") == "phone"
