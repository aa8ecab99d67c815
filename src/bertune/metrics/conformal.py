"""Split conformal prediction: sets and intervals that hold the truth as often as was asked for.

Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; Angelopoulos and Bates 2021, "A
Gentle Introduction to Conformal Prediction". A score says how strange a row is; the truth of a new row from
the same source is at most as strange as the k-th of n scores with a probability of k / (n + 1) or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

MOST_SCORES = 1000


@dataclass(frozen=True)
class ConformalScores:
    """Scores of rows, the lowest first, of which a part is kept.

    Attributes:
        num_rows: n, how many rows had a score.
        ranks: (k,) which of the sorted scores are kept; the last is n.
        values: (k,) these scores.
    """

    num_rows: int
    ranks: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, scores: Floats, most: int = MOST_SCORES) -> ConformalScores:
        """Keep at most so many scores: half of them the highest, the others evenly from the rest."""
        n, ordered = len(scores), np.sort(np.asarray(scores, np.float64))
        if n <= most:
            ranks = np.arange(1, n + 1)
        else:
            top = max(1, most // 2)
            ranks = np.append(
                np.ceil(np.linspace(0, n - top, most - top + 1)[1:]).astype(int),
                np.arange(n - top + 1, n + 1),
            )
        return cls(n, tuple(ranks.tolist()), tuple(ordered[ranks - 1].tolist()))

    def quantile(self, coverage: float) -> float:
        """Return the score that the truth of a new row does not exceed, with a probability of `coverage`.

        It is the ceil((n + 1) coverage)-th score; where that was not kept the next higher one, so that the
        coverage is never lower than asked. Infinite where n is too small.
        """
        rank = _rank(self.num_rows, coverage)
        if rank > self.num_rows:
            return math.inf
        return self.values[int(np.searchsorted(self.ranks, rank))]

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON values; ranks only where scores were left out."""
        whole = len(self.ranks) == self.num_rows
        return {
            "rows": self.num_rows,
            **({} if whole else {"ranks": list(self.ranks)}),
            "scores": list(self.values),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ConformalScores:
        """Return the scores that `to_json` wrote."""
        n = int(values["rows"])
        return cls(n, tuple(values.get("ranks", range(1, n + 1))), tuple(values["scores"]))


def rows_needed(coverage: float) -> int:
    """Return how many rows a coverage needs at least.

    >>> rows_needed(0.9), rows_needed(0.95), rows_needed(0.99)
    (9, 19, 99)
    """
    c = _exact(coverage)
    return max(1, math.ceil(c / (1 - c)))


def _rank(num_rows: int, coverage: float) -> int:
    return math.ceil((num_rows + 1) * _exact(coverage))


def _exact(coverage: float) -> Fraction:
    """Return a coverage as it was written: 0.9 as nine tenths."""
    return Fraction(repr(float(coverage)))
