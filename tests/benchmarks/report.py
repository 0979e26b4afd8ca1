"""docs/data/benchmarks.jsonl and docs/data/growth.jsonl as tables and plots in docs/benchmarks.md.

Figures are medians over rounds; ratios are of rounds measured in turns. Tables are written between the page's markers,
its sentences stay.

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
TITLES = {"predict": "POST /predict", "all three": "/segment, /detect and /classify of each picture"}
STAGES = ("decode", "preprocess", "forward", "postprocess", "encode", "other")
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
        axis.set_title(TITLES[kind])
        axis.set_ylabel("requests a second")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_growth(rows: Rows, path: Path) -> None:
    """Stages over the size of the picture, pictures a second over the number of clients."""
    sizes = [row for row in rows if "megapixels" in row]
    clients = [row for row in rows if "concurrency" in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    bottom = [0.0] * len(sizes)
    for stage in STAGES:
        heights = [row[f"{stage}_ms"] for row in sizes]
        left.bar(range(len(sizes)), heights, 0.7, bottom=bottom, label=stage)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    left.set_xticks(range(len(sizes)), [f"{row['megapixels']:g}" for row in sizes])
    left.set_xlabel("megapixels")
    left.set_ylabel("ms a picture, alone")
    left.legend(frameon=False)
    right.plot([row["concurrency"] for row in clients], [row["per_second"] for row in clients], marker="o")
    right.set_xscale("log", base=2)
    right.set_xticks([row["concurrency"] for row in clients], [str(row["concurrency"]) for row in clients])
    right.set_ylim(0)
    right.set_xlabel("requests at once")
    right.set_ylabel("pictures a second")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_growth(rows: Rows) -> list[str]:
    """Two Markdown tables: by size, by clients."""
    lines = [f"| megapixels | kB | {' | '.join(STAGES)} | client waits, ms |", f"|---|---{'|---' * len(STAGES)}|---|"]
    for row in rows:
        if "megapixels" in row:
            values = [format(row[f"{stage}_ms"], ".1f") for stage in (*STAGES, "client")]
            lines.append(f"| {row['megapixels']:g} | {row['kilobytes']} | {' | '.join(values)} |")
    heads = [title for _, title, _ in COLUMNS]
    lines += ["", f"| at once | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for row in rows:
        if "concurrency" in row:
            values = [format(row[key], style) for key, _, style in COLUMNS]
            lines.append(f"| {row['concurrency']} | {' | '.join(values)} |")
    return lines


def fill(page: str, name: str, lines: Sequence[str]) -> str:
    """Put lines between `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{chr(10).join(lines)}\n{end}{after}"


def read(path: Path) -> Rows:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write tables and plots."""
    groups = group(read(DOCS / "data" / "benchmarks.jsonl"))
    tables: list[str] = []
    for (traffic, concurrency), servers in sorted(
        groups.items(), key=lambda item: (item[0][0] != "predict", item[0][1])
    ):
        tables += ["", f"{TITLES[traffic]}, {concurrency} at once:", "", *write_table(servers)]
    growth = read(DOCS / "data" / "growth.jsonl")
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    page = fill(fill(page, "servers", tables), "growth", ["", *write_growth(growth), ""])
    (DOCS / "benchmarks.md").write_text(page, encoding="utf-8")
    draw(groups, DOCS / "pictures" / "benchmarks.png")
    draw_growth(growth, DOCS / "pictures" / "growth.png")


if __name__ == "__main__":
    main()
