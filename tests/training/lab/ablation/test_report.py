from pathlib import Path

from PIL import Image

from tests.training.lab.ablation.tables import make_record, make_results, row_of
from training.lab.ablation.report import format_report, write_report
from training.lab.ablation.table import (
    Experiment,
)


def test_the_report_of_rows_errors_and_gaps_by_hand(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, _ = table
    text = format_report(
        table,
        [
            make_record(base, make_results(0.4, 0.1, 0.8, own=(0.5, 0.1, 0.8))),
            make_record(pan, make_results(0.42, 0.09, 0.8, own=(0.4, 0.12, 0.8))),
            make_record(ewc, None, error="RuntimeError: a | b"),
        ],
    )
    assert row_of(text, "base")[2:] == [
        "0.5000 → 0.4000 (20.0 %)",
        "0.1000 → 0.1000 (0.0 %)",
        "0.8000",
        "",
        "0",
        "240",
    ]
    assert row_of(text, "pan")[1:] == [
        "A bottom-up path",
        "0.4000 → 0.4200 (-5.0 %)",
        "0.1200 → 0.0900 (25.0 %)",
        "0.8000",
        "+0.0200, -0.0100, +0.0000",
        "0",
        "240",
    ]
    assert row_of(text, "ewc")[1:3] == [r"EWC \| constant", r"failed with seed 0: RuntimeError: a \| b"]
    assert row_of(text, "mosaic")[2] == "not run yet"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## The base", "## Scales", "## Forgetting", "## Data"]
    for fact in ("unihead-train ablate", "0123456789ab", "a toaster", "34 %", "0.042 of top-1"):
        assert fact in text


def test_seeds_are_averaged_and_compared_with_the_base_of_the_same_seeds(table: tuple[Experiment, ...]) -> None:
    base, pan, ewc, _ = table
    text = format_report(
        table,
        [
            make_record(base, make_results(0.4, 0.1, 0.8)),
            make_record(base, make_results(0.2, 0.1, 0.8), seed=1),
            make_record(pan, make_results(0.5, 0.1, 0.8)),
            make_record(pan, make_results(0.4, 0.3, 0.8), seed=1),
            make_record(ewc, make_results(0.4, 0.1, 0.8), seed=1),
            make_record(ewc, None, error="RuntimeError: no"),
        ],
    )
    assert row_of(text, "pan")[2:7] == [
        "0.4500 → 0.4500 (0.0 %)",
        "0.2000 → 0.2000 (0.0 %)",
        "0.8000",
        "+0.1500, +0.1000, +0.0000",
        "0, 1",
    ]
    assert row_of(text, "ewc")[5:7] == ["+0.2000, +0.0000, +0.0000", "1; 0 failed: RuntimeError: no"]


def test_what_reached_nothing_has_nothing_to_lose(table: tuple[Experiment, ...]) -> None:
    text = format_report(table, [make_record(table[0], make_results(0.4, 0.01, 0.8, own=(0.4, 0, 0.8)))])
    assert row_of(text, "base")[3] == "0.0000 → 0.0100"


def test_a_result_of_another_config_is_not_shown(table: tuple[Experiment, ...]) -> None:
    stale = make_record(table[1], make_results(0.9, 0.9, 0.9)).model_copy(update={"digest": "0"})
    assert row_of(format_report(table, [stale]), "pan")[2] == "not run yet"


def test_the_plot_is_drawn_once_there_is_something_to_compare(table: tuple[Experiment, ...], tmp_path: Path) -> None:
    base, pan, *_ = table
    records = [make_record(base, make_results(0.4, 0.1, 0.8))]
    assert "No row has been run yet" in write_report(table, [], tmp_path / "new").read_text(encoding="utf-8")
    assert "![" not in write_report(table, records, tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "pictures").exists()
    records.append(make_record(pan, make_results(0.5, 0.05, 0.8)))
    path = write_report(table, records, tmp_path)
    assert path == tmp_path / "ablation.md"
    assert "](pictures/ablation.png)" in path.read_text(encoding="utf-8")
    with Image.open(tmp_path / "pictures" / "ablation.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or ()}
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours
