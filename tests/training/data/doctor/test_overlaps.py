from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.doctor import overlaps
from training.data.doctor.codes import Ledger
from training.data.doctor.overlaps import Seen, difference_hash, report_overlaps

ROOT = Path("data")


def thumbnail(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(40, 200, size=(8, 9), dtype=np.uint8)


def seen(name: str, grey: NDArray[np.uint8], *, digest: str = "", set_name: str = "voc", split: str = "train") -> Seen:
    return Seen(ROOT / set_name / split / name, ROOT / set_name, split, digest or name, grey)


def codes(*pictures: Seen) -> list[str]:
    ledger = Ledger(ROOT)
    report_overlaps(pictures, ledger)
    return [finding.code for finding in ledger.findings()]


def with_bits_flipped(grey: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Change `count` bits of the hash: swap the last two values of the first rows."""
    changed = grey.copy()
    changed[:count, 7:] = changed[:count, 8:6:-1]
    return changed


def test_difference_hash_has_a_bit_for_each_rise() -> None:
    rising = np.tile(np.arange(9, dtype=np.uint8), (8, 1))
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising[:, ::-1]) == 0
    one_rise = np.zeros((8, 9), dtype=np.uint8)
    one_rise[7, 8] = 1
    assert difference_hash(one_rise) == 1


@pytest.mark.parametrize(("bits", "is_told"), [(0, True), (4, True), (5, False)])
def test_look_alikes_differ_by_four_bits_at_most(bits: int, is_told: bool) -> None:
    grey = np.tile(np.linspace(40, 200, 9), (8, 1)).astype(np.uint8)
    grey[:, 8] = grey[:, 7] + 1  # a swap changes the bit, and hardly the values
    other = with_bits_flipped(grey, bits)
    assert (difference_hash(grey) ^ difference_hash(other)).bit_count() == bits
    assert codes(seen("a", grey), seen("b", other, split="val")) == (["near-duplicate"] if is_told else [])


def test_one_shape_in_other_greys_is_no_look_alike() -> None:
    grey = thumbnail(0)
    assert codes(seen("a", grey), seen("b", grey // 2, split="val")) == []


def test_flat_pictures_have_no_look() -> None:
    flat = np.full((8, 9), 128, dtype=np.uint8)
    assert codes(seen("a", flat), seen("b", flat, split="val")) == []


def test_the_same_bytes_are_told_once_and_by_their_gravest_name() -> None:
    grey = thumbnail(0)
    train = seen("a", grey, digest="1")
    assert codes(train, seen("a", grey, digest="1", split="val")) == ["same-picture-in-two-splits"]
    assert codes(train, seen("b", grey, digest="1", set_name="coco")) == ["same-picture-in-two-tasks"]


def test_one_name_in_two_sets_is_no_matter() -> None:
    assert codes(seen("a", thumbnail(0), digest="1"), seen("a", thumbnail(1), digest="2", set_name="coco")) == []
    assert codes(seen("a", thumbnail(0), digest="1"), seen("a", thumbnail(1), digest="2", split="val")) == [
        "same-name-in-two-splits"
    ]


def test_twins_within_one_split_are_no_leak() -> None:
    assert codes(seen("a", thumbnail(0), digest="1"), seen("b", thumbnail(0), digest="1")) == []


def test_many_pictures_are_compared_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlaps, "_PAIRS_AT_ONCE", 4)
    train = [seen(f"a{number}", thumbnail(number)) for number in range(5)]
    val = [seen("b", thumbnail(100), split="val"), seen("c", thumbnail(4), digest="copy", split="val")]
    ledger = Ledger(ROOT)
    report_overlaps([*train, *val], ledger)
    (finding,) = ledger.findings()
    assert [case.where for case in finding.cases] == ["voc/train/a4"]
