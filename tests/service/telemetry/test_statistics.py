from __future__ import annotations

from service.telemetry.statistics import Statistics


def test_a_batch_of_three_is_one_execution_and_three_inferences() -> None:
    statistics = Statistics(clock=lambda: 12.5)
    for _ in range(3):
        statistics.note_pass({"decode": 1.0, "preprocess": 0.5, "queue": 2.0, "forward": 9.0}, batch_size=3)
        statistics.note_answer({"queue": 2.0, "postprocess": 0.25, "encode": 0.25, "total": 20.0}, is_hit=False)
    said = statistics.describe()
    assert (said["inference_count"], said["execution_count"], said["last_inference"]) == (3, 1, 12_500)
    assert said["inference_stats"]["compute_infer"] == {"count": 3, "ns": 27_000_000}
    assert said["inference_stats"]["compute_output"] == {"count": 3, "ns": 1_500_000}
    assert said["batch_stats"] == [
        {
            "batch_size": 3,
            "compute_input": {"count": 1, "ns": 4_500_000},
            "compute_infer": {"count": 1, "ns": 9_000_000},
            "compute_output": {"count": 0, "ns": 0},
        }
    ]


def test_a_hit_counts_its_wait_and_its_total_and_no_computing() -> None:
    statistics = Statistics()
    statistics.note_answer({"queue": 1.0, "postprocess": 0.25, "total": 2.0}, is_hit=True)
    statistics.note_failure(3.0)
    stats = statistics.describe()["inference_stats"]
    assert stats["cache_hit"] == stats["success"] == {"count": 1, "ns": 2_000_000}
    assert stats["queue"] == {"count": 1, "ns": 1_000_000}
    assert stats["fail"] == {"count": 1, "ns": 3_000_000}
    assert stats["compute_output"]["count"] == stats["compute_infer"]["count"] == 0
