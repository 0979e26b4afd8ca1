"""The page stands alone, says everything, and lets nothing out of the data into its markup."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.training.outline import Outline
from training.data.doctor.findings import Case, Examination, Finding, Picture, SetSummary, Severity, SplitSummary
from training.data.doctor.html.page import LISTED_CASES, make_page, write_page

NASTY = "<script>alert('&')</script>"


def make_finding(
    code: str, severity: Severity = Severity.ERROR, *, cases: int = 1, repaired: bool = False, where: str = "set/{}.jpg"
) -> Finding:
    found = tuple(Case(where.format(index), f"case {index} of {code}") for index in range(cases))
    return Finding(code, severity, f"What {code} means.", found, repaired)


def make_detection(root: Path, pictures: int = 12, name: str = "cat") -> SetSummary:
    drawn = []
    for index in range(pictures):
        path = root / "set" / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (index * 20, 90, 90)).save(path)
        drawn.append(Picture(path, 64, 48, ("train", "val")[index % 2], ((name, (4, 4, 40, 40), index == 0),)))
    splits = tuple(
        SplitSummary(split, pictures // 2, {name: 3, "dog": 1}, (36.0,) * 3, ((64, 48),) * 3)
        for split in ("train", "val")
    )
    return SetSummary("set", "detection", "COCO JSON", root / "set", splits, tuple(drawn))


def test_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = make_page(Examination(tmp_path, (make_detection(tmp_path),), (make_finding("tiny-box"),)))
    outline = Outline(page)
    assert not {"script", "link", "iframe", "object", "base"} & set(outline.tags)
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in outline.images)
    assert not re.search(r"https?:|//cdn|@import|url\(", re.sub(r"base64,[^\"]*", "", page))


def test_every_set_shows_nine_samples_with_a_text_for_each(tmp_path: Path) -> None:
    detection = make_detection(tmp_path)
    images = Outline(make_page(Examination(tmp_path, (detection, detection), ()))).images
    assert len(images) == 2 * 9
    assert all("cat" in (image["alt"] or "") for image in images)


def test_every_finding_is_there_with_its_count_worst_first(tmp_path: Path) -> None:
    findings = (
        make_finding("class-imbalance", Severity.INFO, cases=2),
        make_finding("near-duplicate", Severity.WARNING, cases=5),
        make_finding("crowd-box", Severity.WARNING, cases=35, repaired=True),
        make_finding("cmyk-picture", cases=1234),
    )
    page = make_page(Examination(tmp_path, (), findings))
    order = [page.index(f"<code>{finding.code}</code>") for finding in findings]
    assert order == sorted(order, reverse=True)
    assert all(f">{count}</td>" in page for count in ("2", "5", "35", "1,234"))
    assert page.count("repaired when training") == 1
    assert "1 error would stop or falsify training" in page


def test_long_lists_are_cut_and_say_so(tmp_path: Path) -> None:
    page = make_page(Examination(tmp_path, (), (make_finding("tiny-box", cases=LISTED_CASES + 50),)))
    assert "and 50 more; see --json" in page
    assert page.count("of tiny-box</li>") == 3 + LISTED_CASES
    assert "<details>" not in make_page(Examination(tmp_path, (), (make_finding("tiny-box", cases=3),)))


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((), "No faults found"),
        ((make_finding("a", Severity.INFO),), "No faults found"),
        ((make_finding("a", Severity.WARNING),), "No errors"),
        ((make_finding("a", Severity.WARNING, repaired=True),), "training repairs them"),
        ((make_finding("a"), make_finding("b", Severity.WARNING, repaired=True)), "1 more is repaired"),
    ],
)
def test_verdict_says_what_is_to_be_done(tmp_path: Path, findings: tuple[Finding, ...], verdict: str) -> None:
    assert verdict in make_page(Examination(tmp_path, (), findings))


def test_nothing_from_the_data_becomes_markup(tmp_path: Path) -> None:
    root = tmp_path / NASTY.replace("/", "")
    root.mkdir()
    summary = make_detection(root, name=NASTY)
    nasty = SplitSummary(NASTY, 1, {NASTY: 1}, (3.0,), ((9, 9),))
    summary = SetSummary(NASTY, NASTY, NASTY, root, (*summary.splits, nasty), summary.pictures)
    finding = Finding(NASTY, Severity.ERROR, NASTY, (Case(NASTY, NASTY),) * 5, repaired=False)
    page = make_page(Examination(root, (summary,), (finding,)))
    assert "script" not in Outline(page).tags
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page


def test_pictures_are_marked_with_the_faults_that_they_show(tmp_path: Path) -> None:
    findings = (
        make_finding("crowd-box", where="set/labels.json annotation {}"),
        make_finding("truncated-picture", Severity.WARNING, where="set/7.jpg"),
        make_finding("tiny-box", where="set/labels.json annotation {}"),
    )
    page = make_page(Examination(tmp_path, (make_detection(tmp_path),), findings))
    captions = {str(name): text for name, text in re.findall(r"<figcaption>.*?/ (\d+\.jpg)(.*?)</figcaption>", page)}
    assert '<span class="badge error">crowd-box</span>' in captions["0.jpg"]
    assert '<span class="badge warning">truncated-picture</span>' in captions["7.jpg"]
    assert sum("badge" in caption for caption in captions.values()) == 2


def test_broken_pictures_leave_the_page_whole(tmp_path: Path) -> None:
    summary = make_detection(tmp_path, pictures=3)
    summary.pictures[0].path.write_bytes(summary.pictures[0].path.read_bytes()[:300])
    summary.pictures[1].path.unlink()
    page = make_page(Examination(tmp_path, (summary,), ()))
    assert len(Outline(page).images) == 1
    assert page.count("the picture cannot be decoded") == 2


def test_empty_sets_and_eighty_classes_make_a_page(tmp_path: Path) -> None:
    empty = SetSummary("empty", "detection", "COCO JSON", tmp_path, (SplitSummary("train", 0, {}, (), ()),), ())
    counts = {f"class {index}": 1000 // (index + 1) for index in range(80)}
    many = SetSummary("many", "classification", "folders", tmp_path, (SplitSummary("train", 9, counts, (), ()),), ())
    page = make_page(Examination(tmp_path, (empty, many), ()))
    assert page.count('<th scope="row">class ') == 80
    assert "square-root scale" in page
    Outline(page)


def test_a_class_without_examples_has_no_bar(tmp_path: Path) -> None:
    splits = (SplitSummary("train", 4, {"cat": 4}, (), ()), SplitSummary("val", 2, {"cat": 1, "dog": 1}, (), ()))
    page = make_page(Examination(tmp_path, (SetSummary("s", "classification", "f", tmp_path, splits, ()),), ()))
    row = re.search(r'<th scope="row">dog</th>.*?</tr>', page)
    assert row is not None
    assert row[0].count('class="bar ') == 1
    assert '<td class="number none">0</td>' in row[0]


def test_page_is_the_same_each_time_and_replaces_the_old_one(tmp_path: Path) -> None:
    examination = Examination(tmp_path, (make_detection(tmp_path),), (make_finding("crowd-box", cases=4),))
    out = tmp_path / "page.html"
    out.write_text("old")
    write_page(examination, out)
    first = out.read_bytes()
    write_page(examination, out)
    assert out.read_bytes() == first
    assert first.startswith(b"<!doctype html>")
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "set"}


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    write_page(Examination(tmp_path, (), (make_finding("a", where="\udcff.jpg"),)), tmp_path / "page.html")
    assert "\\udcff.jpg" in (tmp_path / "page.html").read_text("utf-8")


def test_a_finding_about_a_mask_marks_its_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    Image.new("L", (8, 8), 77).save(tmp_path / "a.png")
    picture = Picture(tmp_path / "a.jpg", 8, 8, "train", mask=tmp_path / "a.png")
    summary = SetSummary("s", "segmentation", "pairs", tmp_path, (), (picture,))
    page = make_page(Examination(tmp_path, (summary,), (make_finding("mask-value-unknown", where="a.png"),)))
    assert '<span class="badge error">mask-value-unknown</span>' in page
    assert "value 77 100%" in page
