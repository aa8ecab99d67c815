"""Calibrated probabilities: temperature, Platt scaling, thresholds, and how good probabilities are.

Temperature: Guo et al. 2017, "On Calibration of Modern Neural Networks". Platt scaling: Platt 1999,
"Probabilistic Outputs for Support Vector Machines", by the Newton method of Lin, Lin and Weng 2007. Both are
fitted to probabilities: for a softmax and a sigmoid these say as much as the logits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import threshold_between

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Gold = npt.NDArray[Any]
"""The id of the label of each row (n,), or whether each label applies (n, N)."""

LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""What stands for a probability of 0, whose logarithm would be infinite."""
MOST_PROBABILITY = 1 - 2.0**-24
"""What stands for a sigmoid of 1: the largest fp32 number below it."""
NUM_BINS = 15
_MOST_NEWTON_STEPS = 100


def log_probabilities(probabilities: Floats) -> Floats:
    """Return the logarithm of each probability in fp64, finite for 0 too."""
    logs: Floats = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))
    return logs


def logits_of(probabilities: Floats) -> Floats:
    """Return what a sigmoid turns into these probabilities, in fp64, finite for 0 and 1 too."""
    p = np.clip(np.asarray(probabilities, np.float64), LEAST_PROBABILITY, MOST_PROBABILITY)
    logits: Floats = np.log(p) - np.log1p(-p)
    return logits


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1.0, small) / (1 + small)
    return result


def softmax(x: Floats) -> Floats:
    """Return the softmax of each row."""
    powers = np.exp(x - x.max(1, keepdims=True))
    result: Floats = powers / powers.sum(1, keepdims=True)
    return result


def fit_temperature(probabilities: Floats, gold: Ints) -> float | None:
    """Return the temperature with the lowest negative log-likelihood of the gold labels.

    The likelihood has one best temperature, found by the root of its slope.

    Args:
        probabilities: (n, N), or logits turned into them by a softmax.
        gold: (n,) the id of each row's label.

    Returns:
        None where none is best: the gold label is the most probable one in every row (the lower the
        temperature the better), or the probabilities say no more than chance (the higher the better).
    """
    from scipy.optimize import brentq

    x = log_probabilities(probabilities)
    x -= x.max(1, keepdims=True)
    of_gold = float(x[np.arange(len(gold)), gold].mean())

    def slope(inverse: float) -> float:
        """Return the derivative of the loss by 1 / temperature; it grows with it."""
        return float((softmax(inverse * x) * x).sum(1).mean()) - of_gold

    high = 1.0
    while slope(high) <= 0 and high < 1e6:
        high *= 4
    if slope(high) <= 0 or slope(1e-6) >= 0:
        return None
    return 1 / float(brentq(slope, 1e-6, high, xtol=1e-13, rtol=1e-12))


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities (n, N) as if their logits had been divided by a temperature, in fp64."""
    return softmax(log_probabilities(probabilities) / temperature)


def fit_platt(probabilities: Floats, gold: Bools) -> tuple[float, float] | None:
    """Return slope and offset of a label's logit with the lowest loss, with Platt's smoothed targets.

    Args:
        probabilities: (n,) of one label.
        gold: (n,) whether it applies.

    Returns:
        None where rows of one kind alone are there, or a higher probability does not mean a label more often.
    """
    num_positives, num_negatives = int(gold.sum()), int((~gold).sum())
    if not num_positives or not num_negatives:
        return None
    x = logits_of(probabilities)
    target = np.where(gold, (num_positives + 1) / (num_positives + 2), 1 / (num_negatives + 2))

    def loss(ab: Floats) -> float:
        z = ab[0] * x + ab[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    best: Floats = np.array([0.0, np.log((num_positives + 1) / (num_negatives + 1))])
    for _ in range(_MOST_NEWTON_STEPS):
        p = sigmoid(best[0] * x + best[1])
        error, weight = p - target, p * (1 - p)
        gradient = np.array([(error * x).sum(), error.sum()])
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        cross = (weight * x).sum()
        hessian = np.array([[(weight * x * x).sum(), cross], [cross, weight.sum()]]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        length, now = 1.0, loss(best)
        while length > 1e-10 and loss(best - length * step) > now - 1e-4 * length * float(gradient @ step):
            length /= 2
        if length <= 1e-10:
            break
        best = best - length * step
    return (float(best[0]), float(best[1])) if best[0] > 1e-6 else None


def apply_platt(probabilities: Floats, coefficients: Floats) -> Floats:
    """Return probabilities (n, N) after Platt scaling, in fp64.

    Args:
        probabilities: (n, N).
        coefficients: (N, 2) slope and offset of each label; 1 and 0 leave a label as it is.
    """
    p = np.asarray(probabilities, np.float64)
    scaled = sigmoid(logits_of(p) * coefficients[:, 0] + coefficients[:, 1])
    result: Floats = np.where((coefficients == [1, 0]).all(1), p, scaled)
    return result


def cost_threshold(gold: Bools, probability: Floats, false_positive: float, false_negative: float) -> float:
    """Return the threshold with the least cost on the given rows, halfway between two probabilities.

    Ties go to the threshold nearest to false_positive / (false_positive + false_negative), which is best for
    true probabilities (Elkan 2001). Without positive and negative rows it is this one.

    Args:
        gold: (n,) whether the label applies.
        probability: (n,) of it.
        false_positive: what a row costs that gets the label wrongly.
        false_negative: what a row costs that lacks it wrongly.
    """
    expected = false_positive / (false_positive + false_negative)
    if not gold.any() or gold.all():
        return expected
    p, hits = _by_probability(gold, probability)
    predicted = np.arange(1, len(p) + 1)
    cost = false_positive * (predicted - hits) + false_negative * (gold.sum() - hits)
    # Before the first row: nothing is predicted.
    cost = np.append(false_negative * gold.sum(), np.where(_is_last_of_equals(p), cost, np.inf))
    low, high = np.append(p, -1.0), np.append(np.inf, p)
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    nearest = best[np.argmin([_distance(expected, low[i], high[i]) for i in best])]
    if low[nearest] < expected <= high[nearest]:
        return float(expected)
    if low[nearest] >= 1:  # no row may get the label, and one has a probability of 1
        return float(np.nextafter(1, 2))
    return threshold_between(float(max(low[nearest], 0.0)), float(min(high[nearest], 1.0)))


def _distance(x: float, low: float, high: float) -> float:
    """Return how far a number is from an interval."""
    return float(max(low - x, x - high, 0.0))


def precision_threshold(gold: Bools, probability: Floats, target: float) -> tuple[float, float]:
    """Return the lowest threshold whose precision on the given rows is the target or more, and its precision.

    Where none reaches it, the lowest threshold with the highest precision. Without positive rows 0.5 and 0.

    Args:
        gold: (n,) whether the label applies.
        probability: (n,) of it.
        target: the precision to reach.
    """
    if not gold.any():
        return 0.5, 0.0
    p, hits = _by_probability(gold, probability)
    precision = np.where(_is_last_of_equals(p), hits / np.arange(1, len(p) + 1), -1.0)
    best = int(np.flatnonzero(precision >= min(target, precision.max()) - 1e-12)[-1])
    below = float(p[best + 1]) if best + 1 < len(p) else 0.0
    return threshold_between(below, float(p[best])), float(precision[best])


def _by_probability(gold: Bools, probability: Floats) -> tuple[Floats, Ints]:
    """Return probabilities, the highest first, and how many rows down to each have the label."""
    order = np.argsort(-probability, kind="stable")
    return np.asarray(probability, np.float64)[order], np.cumsum(gold[order])


def _is_last_of_equals(p: Floats) -> Bools:
    """Tell after which of falling probabilities a threshold can be: none is between equal ones."""
    flags: Bools = np.append(p[:-1] > p[1:], True)
    return flags


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    rows: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """The share of them that is right."""


def reliability_table(confidence: Floats, right: Bools, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Return the bins of equal width that have rows.

    Args:
        confidence: (n,) from 0 to 1.
        right: (n,) whether what it speaks of is true.
        num_bins: into how many bins 0 to 1 is cut.
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        ReliabilityBin(
            i / num_bins,
            (i + 1) / num_bins,
            int((bins == i).sum()),
            float(confidence[bins == i].mean()),
            float(right[bins == i].mean()),
        )
        for i in np.unique(bins).tolist()
    ]


def calibration_error(confidence: Floats, right: Bools, num_bins: int = NUM_BINS) -> float:
    """Return the expected calibration error, with bins of equal width (Guo et al. 2017)."""
    bins = reliability_table(confidence, right, num_bins)
    return sum(b.rows * abs(b.accuracy - b.confidence) for b in bins) / len(confidence)


def adaptive_calibration_error(confidence: Floats, right: Bools, num_bins: int = NUM_BINS) -> float:
    """Return the expected calibration error, with bins of equally many rows (Nguyen and O'Connor 2015)."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(num_bins, len(order)))
    gaps = [len(part) * abs(right[part].mean() - confidence[part].mean()) for part in parts]
    return float(sum(gaps) / len(order))


@dataclass(frozen=True)
class CalibrationFigures:
    """How good probabilities are; 0 is best for each."""

    nll: float
    """The mean negative logarithm of the probability of what is true."""
    brier: float
    """The mean squared error, summed over labels where a row has one label (Brier 1950: 0 to 2)."""
    ece: float
    """The expected calibration error, with 15 bins of equal width."""
    ece_adaptive: float
    """The same with 15 bins of equally many rows."""

    def to_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def confidences(probabilities: Floats, gold: Gold) -> tuple[Floats, Bools]:
    """Return what a reliability table compares: confidence, and whether it speaks the truth.

    Args:
        probabilities: (n, N).
        gold: (n,) the id of the label of each row: the confidence is that of the most probable label. Or
            (n, N) whether each label applies: every probability is one confidence.
    """
    if gold.ndim == 2:
        return probabilities.ravel(), gold.astype(bool).ravel()
    return probabilities.max(1), probabilities.argmax(1) == gold


def calibration_figures(probabilities: Floats, gold: Gold) -> CalibrationFigures:
    """Return how good probabilities (n, N) are; see `confidences` for the arguments."""
    p = np.asarray(probabilities, np.float64)
    if gold.ndim == 2:
        of_truth = np.where(gold, p, 1 - p)
        brier = ((p - gold) ** 2).mean()
    else:
        of_truth = p[np.arange(len(gold)), gold]
        brier = ((p - np.eye(p.shape[1])[gold]) ** 2).sum(1).mean()
    confidence, right = confidences(p, gold)
    return CalibrationFigures(
        float(-log_probabilities(of_truth).mean()),
        float(brier),
        calibration_error(confidence, right),
        adaptive_calibration_error(confidence, right),
    )
