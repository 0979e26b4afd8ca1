import hashlib

import pytest

from training.data.prepare.sampling import Quota, draw, sampling_key


def by_name(_: str, picture_id: str) -> str:
    return picture_id


def anything(_: str) -> bool:
    return True


def test_sampling_key_is_the_sha256_of_seed_task_class_and_id() -> None:
    expected = hashlib.sha256(b"7|detection|cat|000000000139").hexdigest()

    assert sampling_key(7, "detection", "cat", "000000000139") == expected


def test_draw_fills_the_rarest_class_first_and_counts_every_class_of_a_picture() -> None:
    # By hand: sheep is rarest, so e comes first and gives person 1; then cat takes b; person needs one more: a.
    candidates = {"a": ["person"], "b": ["cat"], "c": ["cat"], "d": ["person"], "e": ["person", "sheep"], "f": ["cat"]}
    candidates["g"] = ["person"]

    drawing = draw(candidates, ["person", "cat", "sheep"], Quota(2, None), by_name, anything)

    assert drawing.ids == ("e", "b", "c", "a")
    assert drawing.counts == {"person": 2, "cat": 2, "sheep": 1}


def test_draw_tops_up_the_class_with_the_fewest_pictures() -> None:
    candidates = {f"cat{n}": ["cat"] for n in range(4)} | {f"dog{n}": ["dog"] for n in range(9)}

    drawing = draw(candidates, ["cat", "dog"], Quota(1, 5), by_name, anything)

    assert drawing.ids == ("cat0", "dog0", "cat1", "dog1", "cat2")


def test_draw_stops_at_the_total_before_the_quota_is_full() -> None:
    candidates = {f"cat{n}": ["cat"] for n in range(4)}

    assert draw(candidates, ["cat"], Quota(4, 3), by_name, anything).ids == ("cat0", "cat1", "cat2")


def test_draw_puts_another_picture_in_the_place_of_a_refused_one() -> None:
    asked = []

    def refuse_a(picture_id: str) -> bool:
        asked.append(picture_id)
        return picture_id != "a"

    candidates = {"a": ["cat", "dog"], "b": ["cat"], "c": ["dog"]}

    drawing = draw(candidates, ["cat", "dog"], Quota(1, None), by_name, refuse_a)

    assert drawing.ids == ("b", "c")
    assert asked == ["a", "b", "c"]  # a only once, though two classes have it


def test_draw_does_not_depend_on_the_order_of_candidates() -> None:
    ids = [f"{n:03d}" for n in range(50)]
    candidates = {name: ["cat"] if int(name) % 3 else ["cat", "dog"] for name in ids}
    backwards = dict(reversed(candidates.items()))

    def key(class_name: str, picture_id: str) -> str:
        return sampling_key(0, "detection", class_name, picture_id)

    one, other = (draw(pool, ["cat", "dog"], Quota(None, 20), key, anything) for pool in (candidates, backwards))

    assert one == other


@pytest.mark.parametrize(("quota", "share"), [(Quota(None, 240), 12), (Quota(5, 240), 5), (Quota(None, 7), 1)])
def test_share_is_what_was_asked_for_or_the_total_shared_out(quota: Quota, share: int) -> None:
    assert quota.share(20) == share
