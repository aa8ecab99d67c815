"""What the predictions of several models are on the same rows; see `bertune.inference.pairing`.

Letters: `n` rows, `t` types of rows (see `bertune.metrics.paired`), `N` labels, `m` models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from bertune.metrics.classification import Bools, Floats, Ints
from bertune.metrics.paired import MIN_RESAMPLES, NUM_RESAMPLES
from bertune.metrics.weighted import WeightedMetric

NUMBERS_OF_ALL_RESAMPLES = 100_000_000
"""Numbers that all resamples of a pair of models may cost together."""


class PairMetrics(NamedTuple):
    """The metrics of two models, as functions of how often a resample has rows of each type."""

    a: WeightedMetric
    """The main metric of the first model, and then the F1 of each label, where there are labels."""
    b: WeightedMetric
    counts: Ints
    """(t,) how many rows there are of each type."""
    cost: int
    """How many numbers a resample costs."""

    @property
    def num_resamples(self) -> int:
        """Return how many resamples to draw: fewer where one costs much."""
        return min(NUM_RESAMPLES, max(MIN_RESAMPLES, NUMBERS_OF_ALL_RESAMPLES // self.cost))


class PairedRows(ABC):
    """The predictions of models (m) on the same examples."""

    unit = "rows"
    """What is drawn with replacement, and right or wrong as a whole."""
    labels: tuple[str, ...] = ()
    """Labels whose F1 is compared."""
    support: Ints = np.zeros(0, np.int64)
    """(N,) how often each label is gold."""
    error_name = ""
    """What `errors` are; empty where rows have none."""
    num_units: int
    """n, or the number of queries of a search."""

    @abstractmethod
    def pair(self, a: int, b: int) -> PairMetrics | None:
        """Return the metrics of two models; None where no resample of rows has a score."""

    def right(self, model: int) -> Bools | None:
        """Return whether a model is right (n,), where a row is right or wrong."""
        return None

    def errors(self, model: int) -> Floats | None:
        """Return how wrong a model is (n,), where a row has a number."""
        return None

    @abstractmethod
    def differ(self, a: int, b: int) -> Bools:
        """Return for each example whether the predictions of two models differ."""

    def row_numbers(self, model: int) -> dict[str, Floats]:
        """Return further numbers of each example to show beside a prediction, by name."""
        return {}
