"""Gradient surgery: where the gradients of losses conflict, each gives up what works against the others.

PCGrad and GradVac are one rule. GradVac (Wang et al., arXiv:2010.05874, algorithm 1) turns a gradient towards another
until their cosine is what it has been on average; PCGrad (Yu et al., arXiv:2001.06782, algorithm 1) until it is 0.

Written out here rather than taken from torchjd 0.18, with which the tests compare it: its GradVac keeps the averages by
position and forgets them where the number of losses changes, which here it does from step to step; a fresh one refuses
the state of another, so that a killed run could not go on; and both draw from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_COSINE = 0.99  # to reach a cosine of 1, infinitely much of the other gradient would have to be added


class Surgery:
    """Decides how much of each loss's gradient goes into the one that is applied; deterministic.

    The gradients themselves stay where they are: all that the rule needs is their inner products.
    """

    def __init__(self, momentum: float = 0.0) -> None:
        """Begin with no memory.

        Args:
            momentum: how much of the average cosine of a pair each step replaces, 0..1; with 0 the average stays 0,
                which is PCGrad. The paper on GradVac calls it beta.
        """
        self._momentum = momentum
        self._steps = 0
        self._cosines: dict[tuple[str, str], float] = {}

    def compute_shares(self, names: Sequence[str], products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count a step, and remember how its gradients stood to each other.

        Args:
            names: of the n losses that have something to say in this step.
            products: [n, n] inner products of their gradients.

        Returns:
            [n] factors of the gradients; their sum with these is that of the gradients after surgery.
        """
        count = len(names)
        # The order in which a gradient meets the others matters from three on; a seed a step needs no state of its own.
        generator = np.random.default_rng(self._steps)
        self._steps += 1
        mended = np.eye(count)  # row i: of which gradients the mended gradient i is made
        for i in range(count):
            for j in generator.permutation([other for other in range(count) if other != i]):
                mended[i, j] += self._turn(mended[i], products, j, (names[i], names[j]))
        return mended.sum(axis=0)  # type: ignore[no-any-return]  # numpy's sum of an array is an Any

    def _turn(self, row: NDArray[np.float64], products: NDArray[np.float64], j: int, pair: tuple[str, str]) -> float:
        """How much of gradient j makes the cosine with it the wanted one (arXiv:2010.05874, eq. 3)."""
        # Rounding can take the square of a length that is nearly 0 below 0.
        norm, other_norm = math.sqrt(max(0.0, float(row @ products @ row))), math.sqrt(products[j, j])
        if not norm or not other_norm:
            return 0.0  # a gradient of length 0 has no direction
        cosine = float(np.clip(row @ products[:, j] / (norm * other_norm), -1, 1))
        wanted = self._cosines.get(pair, 0.0)
        average = (1 - self._momentum) * wanted + self._momentum * cosine
        self._cosines[pair] = max(-_LARGEST_COSINE, min(_LARGEST_COSINE, average))
        if cosine >= wanted:
            return 0.0
        sine, wanted_sine = math.sqrt(1 - cosine**2), math.sqrt(1 - wanted**2)
        return norm * (wanted * sine - cosine * wanted_sine) / (other_norm * wanted_sine)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {"steps": self._steps, "cosines": dict(self._cosines)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._steps = state["steps"]
        self._cosines = dict(state["cosines"])
