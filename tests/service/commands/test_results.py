from __future__ import annotations

from pathlib import Path

import pytest

from service.commands.results import Record, ResultFile, ResultFileError, format_record, keep_answers, read_records

ANSWER: Record = {"file": "a.jpg", "classes": [{"label": "Käfer", "label_id": 0, "probability": 0.5}]}
FAILURE: Record = {"file": "b.jpg", "error": {"code": "damaged_image", "detail": "cut"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append(ANSWER)
        results.append(FAILURE)
    return tmp_path / "results.jsonl"


def test_records_come_back_as_they_were(path: Path) -> None:
    assert list(read_records(path)) == [ANSWER, FAILURE]


def test_a_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append(ANSWER)
        assert list(read_records(results.path)) == [ANSWER]


def test_a_name_that_is_no_utf8_comes_back(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with ResultFile(tmp_path / "results.jsonl") as results:
        results.append({"file": name})
    assert [record["file"] for record in read_records(results.path)] == [name]


@pytest.mark.parametrize("end", ['{"file":"c.j', '{"file":"c.jpg"}', "\0\0\0", '{"fi\n', "3\n"])
def test_a_last_line_that_is_cut_is_left_out(path: Path, end: str) -> None:
    with path.open("a") as file:
        file.write(end)
    assert list(read_records(path)) == [ANSWER, FAILURE]


def test_a_line_in_the_middle_that_is_none_is_named(path: Path) -> None:
    path.write_text(f"{format_record(ANSWER)}\nhello\n{format_record(FAILURE)}\n")
    with pytest.raises(ResultFileError, match="line 2 is no result"):
        list(read_records(path))


def test_going_on_keeps_answers_alone(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"file":"c.j')
    kept: list[Record] = []
    keep_answers(path, kept.append)
    assert kept == [ANSWER]
    assert path.read_text() == f"{format_record(ANSWER)}\n"
    with ResultFile(path) as results:
        results.append(FAILURE)
    assert list(read_records(path)) == [ANSWER, FAILURE]
    assert [one.name for one in path.parent.iterdir()] == ["results.jsonl"]


def test_a_file_that_cannot_be_kept_stays_as_it_was(path: Path) -> None:
    before = path.read_bytes()

    def refuse(_: Record) -> None:
        raise ResultFileError("another model")

    with pytest.raises(ResultFileError):
        keep_answers(path, refuse)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["results.jsonl"]
