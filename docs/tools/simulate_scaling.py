"""How many replicas so many pictures a day need: arrivals, sharing and queueing, simulated.

One replica is two CPUs that take pictures first come, first served, each on one CPU; requests arrive at random. One
about a picture that the replica has seen in the last minute costs `HIT_MS`, another `PASS_MS`. Traffic follows the day:
its busiest hour has `PEAK` times the mean. The CPU milliseconds are measured (docs/benchmarks.md), the price is an
example.

Run from the repository's root: `python docs/tools/simulate_scaling.py` (prints the table of docs/scaling.md, draws its
plot)
"""

from __future__ import annotations

import heapq
import math
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

CPUS = 2
PASS_MS = 12.1
HIT_MS = 0.8
PEAK = 2.5
P99_MS = 100.0
EURO_A_CPU_HOUR = 0.04
SECONDS_A_DAY = 86_400
SHARED = (0.0, 0.5, 2 / 3)
LOADS = np.arange(0.3, 1.0, 0.05)
REQUESTS = 60_000


def simulate(load: float, shared: float, rng: np.random.Generator) -> float:
    """Milliseconds that 99 of 100 requests take at most, with the CPUs busy for this share of the time."""
    cost = np.where(rng.random(REQUESTS) < shared, HIT_MS, PASS_MS)
    # Decoding depends on the picture: a fifth up or down.
    cost = cost * rng.uniform(0.8, 1.2, REQUESTS)
    arrivals = np.cumsum(rng.exponential(float(cost.mean()) / (load * CPUS), REQUESTS))
    free = [0.0] * CPUS
    took = np.empty(REQUESTS)
    for i in range(REQUESTS):
        start = max(arrivals[i], heapq.heappop(free))
        heapq.heappush(free, start + cost[i])
        took[i] = start + cost[i] - arrivals[i]
    return float(np.percentile(took[REQUESTS // 10 :], 99))


def find_load(shared: float) -> float:
    """The largest of `LOADS` at which the p99 stays below `P99_MS`."""
    rng = np.random.default_rng(0)
    return float(max(load for load in LOADS if simulate(load, shared, rng) <= P99_MS))


def count_replicas(a_day: float, shared: float, load: float) -> int:
    """Replicas for the busiest hour of a day with so many requests."""
    cost_ms = shared * HIT_MS + (1 - shared) * PASS_MS
    return math.ceil(a_day / SECONDS_A_DAY * PEAK * cost_ms / 1000 / (CPUS * load))


def draw(path: Path) -> None:
    """p99 over load, a line for each share of shared requests."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for shared in SHARED:
        rng = np.random.default_rng(0)
        axis.plot(
            100 * LOADS, [simulate(load, shared, rng) for load in LOADS], marker="o", label=f"{shared:.0%} shared"
        )
    axis.axhline(P99_MS, color="grey", linewidth=1, linestyle="--")
    axis.set_xlabel("CPUs busy, %")
    axis.set_ylabel("p99 of a request, ms")
    axis.set_ylim(0, 3 * P99_MS)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print the table of docs/scaling.md, draw the plot."""
    rows = [["requests a day", "shared", "CPUs may be busy", "at the peak, a second", "replicas", "euro a day"]]
    rows.append(["---"] * len(rows[0]))
    for a_day, words in ((1e6, "a million"), (1e9, "a billion")):
        for shared in SHARED:
            load = find_load(shared)
            replicas = count_replicas(a_day, shared, load)
            # The autoscaler follows the day: on the mean 1 / PEAK of the peak's replicas are there, at least one.
            euro = max(1.0, replicas / PEAK) * CPUS * 24 * EURO_A_CPU_HOUR
            peak = a_day / SECONDS_A_DAY * PEAK
            rows.append([words, f"{shared:.0%}", f"{load:.0%}", f"{peak:,.0f}", f"{replicas:,}", f"{euro:,.0f}"])
    sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in rows)
    draw(Path(__file__).parents[1] / "pictures" / "scaling.png")


if __name__ == "__main__":
    main()
