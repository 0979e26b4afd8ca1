"""docs/benchmarks.jsonl as tables and a plot: medians over rounds, and ratios of rounds measured in turns.

Run from the repository's root: `python -m tests.benchmarks.report`
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[2] / "docs"
OURS = "unihead"
COLUMNS = (
    ("per_second", "requests/s", ".1f"),
    ("p50_ms", "p50 ms", ".1f"),
    ("p95_ms", "p95 ms", ".1f"),
    ("p99_ms", "p99 ms", ".1f"),
    ("cpu_ms", "CPU-ms a request", ".2f"),
    ("peak_mb", "peak MB", ".0f"),
    ("failed", "failed", ".0f"),
)
Rows = list[dict[str, Any]]


def group(lines: Iterable[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Rows]]:
    """By kind of traffic and concurrency: the rounds of each server."""
    groups: dict[tuple[str, int], dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        groups[line["traffic"], line["concurrency"]][line["server"]].append(line)
    return groups


def write_table(servers: dict[str, Rows]) -> list[str]:
    """One Markdown table: medians, and how many times as much unihead answers (median over rounds)."""
    heads = [title for _, title, _ in COLUMNS]
    lines = [f"| server | {' | '.join(heads)} | unihead answers |", f"|---{'|---' * len(heads)}|---|"]
    ours = {row["round"]: row["per_second"] for row in servers.get(OURS, [])}
    for name, rows in sorted(servers.items(), key=lambda item: -median(item[1], "per_second")):
        values = [format(median(rows, key), style) for key, _, style in COLUMNS]
        ratios = [ours[row["round"]] / row["per_second"] for row in rows if row["round"] in ours]
        times = "" if name == OURS or not ratios else f"{statistics.median(ratios):.2f} times as many"
        lines.append(f"| {name} | {' | '.join(values)} | {times} |")
    return lines


def median(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Median of one figure over rounds."""
    return float(statistics.median(row[key] for row in rows))


def draw(groups: dict[tuple[str, int], dict[str, Rows]], path: Path) -> None:
    """Bars of requests a second, a panel a kind of traffic."""
    kinds = sorted({traffic for traffic, _ in groups}, reverse=True)
    figure, axes = plt.subplots(1, len(kinds), figsize=(6 * len(kinds), 3.6), layout="constrained", squeeze=False)
    names = sorted({name for servers in groups.values() for name in servers}, key=lambda name: (name != OURS, name))
    for axis, kind in zip(axes[0], kinds, strict=True):
        levels = sorted(concurrency for traffic, concurrency in groups if traffic == kind)
        for i, name in enumerate(names):
            heights = [
                median(groups[kind, level][name], "per_second") if groups[kind, level].get(name) else 0.0
                for level in levels
            ]
            axis.bar([x + i * 0.8 / len(names) for x in range(len(levels))], heights, 0.8 / len(names), label=name)
        axis.set_xticks(
            [x + 0.4 - 0.4 / len(names) for x in range(len(levels))], [f"{level} at once" for level in levels]
        )
        axis.set_title(
            {"predict": "POST /predict", "all three": "/segment, /detect and /classify of each picture"}[kind]
        )
        axis.set_ylabel("requests a second")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Write the tables to the standard output, the plot to docs/pictures/benchmarks.png."""
    lines = [json.loads(line) for line in (DOCS / "benchmarks.jsonl").read_text(encoding="utf-8").splitlines()]
    groups = group(lines)
    for (traffic, concurrency), servers in sorted(
        groups.items(), key=lambda item: (item[0][0] != "predict", item[0][1])
    ):
        print(f"\n### {traffic}, {concurrency} at once\n")
        print("\n".join(write_table(servers)))
    draw(groups, DOCS / "pictures" / "benchmarks.png")


if __name__ == "__main__":
    main()
