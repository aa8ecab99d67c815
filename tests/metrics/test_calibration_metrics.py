"""Calibration against scikit-learn on the same numbers; thresholds by trying all; coverage by drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import _sigmoid_calibration, _TemperatureScaling, calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, precision_recall_curve

from bertune.metrics.calibration import (
    adaptive_calibration_error,
    apply_platt,
    apply_temperature,
    calibration_error,
    calibration_figures,
    cost_threshold,
    fit_platt,
    fit_temperature,
    logits_of,
    precision_threshold,
    reliability_table,
    sigmoid,
    softmax,
)
from bertune.metrics.conformal import ConformalScores, rows_needed


def overconfident(seed, n=400, num_labels=4, factor=3.0):
    """Probabilities that are too sure by `factor`, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, num_labels)) * 1.5
    gold = np.array([rng.choice(num_labels, p=p) for p in softmax(logits)])
    return softmax(logits * factor).astype(np.float32), gold


def flags_and_probabilities():
    row = st.tuples(st.booleans(), st.integers(0, 20).map(lambda i: i / 20))
    return st.lists(row, min_size=1, max_size=40).map(
        lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_labels", [2, 3, 20])
def test_temperature_is_that_of_a_search_and_of_scikit_learn(seed, num_labels):
    p, gold = overconfident(seed, num_labels=num_labels)
    temperature = fit_temperature(p, gold)
    logits = np.log(p.astype(np.float64))
    searched = minimize_scalar(
        lambda t: log_loss(gold, softmax(logits / np.exp(t)), labels=range(num_labels)),
        bounds=(-3, 4),
        options={"xatol": 1e-10},
    )
    assert temperature == pytest.approx(math.exp(searched.x), rel=1e-4)
    assert 2.0 < temperature < 4.5
    fitted = _TemperatureScaling().fit(logits, gold)
    assert temperature == pytest.approx(1 / fitted.beta_, rel=1e-3)
    expected = fitted.predict(logits)
    assert apply_temperature(p, temperature) == pytest.approx(expected, abs=1e-3)


def test_no_temperature_where_none_is_best():
    right = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(right, np.array([0, 1])) is None
    assert fit_temperature(right, np.array([1, 0])) is None
    assert fit_temperature(np.full((3, 2), 0.5), np.array([0, 1, 1])) is None
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert np.isfinite(fit_temperature(certain, np.array([0, 1, 1])))


@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=10),
    st.floats(0.05, 100),
)
def test_a_temperature_keeps_the_most_probable_label_and_adds_up_to_1(rows, temperature):
    p = np.array(rows, np.float32)
    p = p / np.maximum(p.sum(1, keepdims=True), np.float32(1e-6))
    scaled = apply_temperature(p, temperature)
    assert np.isfinite(scaled).all()
    assert scaled.sum(1) == pytest.approx(np.ones(len(p)))
    best = np.maximum(p, np.finfo(np.float32).tiny).max(1)
    chosen = np.maximum(p, np.finfo(np.float32).tiny)[np.arange(len(p)), scaled.argmax(1)]
    assert (chosen == best).all()


@pytest.mark.parametrize("seed", range(5))
def test_platt_scaling_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=300) * 4 - 1
    gold = rng.random(300) < sigmoid(logits / 3 + 0.5)
    p = sigmoid(logits)
    slope, offset = fit_platt(p, gold)
    a, b = _sigmoid_calibration(logits_of(p), gold.astype(float))
    assert (slope, offset) == (pytest.approx(-a, rel=1e-3), pytest.approx(-b, abs=1e-3))
    scaled = apply_platt(p[:, None], np.array([[slope, offset]]))[:, 0]
    assert (np.argsort(scaled, kind="stable") == np.argsort(p, kind="stable")).all()
    assert log_loss(gold, scaled) < log_loss(gold, p)


def test_platt_leaves_labels_that_cannot_be_learnt():
    p = np.array([0.1, 0.4, 0.8])
    assert fit_platt(p, np.ones(3, bool)) is None
    assert fit_platt(p, np.zeros(3, bool)) is None
    assert fit_platt(p, np.array([True, True, False])) is None  # the wrong way round
    assert fit_platt(np.full(4, 0.3), np.array([True, False, True, False])) is None
    assert fit_platt(np.array([0.0, 1.0, 1.0, 0.0]), np.array([False, True, False, False]))[0] > 0
    unchanged = apply_platt(p[:, None].astype(np.float32), np.array([[1.0, 0.0]]))
    assert (unchanged[:, 0] == p.astype(np.float32)).all()


@pytest.mark.parametrize("num_labels", [2, 5])
def test_figures_are_those_of_scikit_learn(num_labels):
    p, gold = overconfident(7, num_labels=num_labels)
    p = p.astype(np.float64) / p.astype(np.float64).sum(1, keepdims=True)
    figures = calibration_figures(p, gold)
    labels = list(range(num_labels))
    assert figures.nll == pytest.approx(log_loss(gold, p, labels=labels), rel=1e-6)
    brier = (
        brier_score_loss(gold, p, labels=labels, scale_by_half=False)
        if num_labels > 2
        else 2 * (brier_score_loss(gold, p[:, 1]))
    )
    assert figures.brier == pytest.approx(brier)


def test_figures_of_several_labels_count_every_label_of_every_row():
    rng = np.random.default_rng(3)
    p = rng.random((50, 4))
    gold = rng.random((50, 4)) < p
    figures = calibration_figures(p, gold)
    assert figures.nll == pytest.approx(log_loss(gold.ravel(), p.ravel()))
    assert figures.brier == pytest.approx(brier_score_loss(gold.ravel(), p.ravel()))


def test_reliability_is_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    p = rng.random(1000)
    right = rng.random(1000) < p**2
    right_share, mean_confidence = calibration_curve(right, p, n_bins=15)
    table = reliability_table(p, right)
    assert [b.accuracy for b in table] == pytest.approx(right_share)
    assert [b.confidence for b in table] == pytest.approx(mean_confidence)
    assert sum(b.rows for b in table) == 1000
    gaps = [b.rows / 1000 * abs(b.accuracy - b.confidence) for b in table]
    assert calibration_error(p, right) == pytest.approx(sum(gaps))
    assert 0.1 < adaptive_calibration_error(p, right) < 0.25


def test_confidences_of_0_and_1_have_a_bin():
    table = reliability_table(np.array([0.0, 1.0, 1 / 15]), np.array([False, True, True]))
    assert [(b.low, b.rows) for b in table] == [(0.0, 2), (14 / 15, 1)]


def cost_of(gold, p, threshold, false_positive, false_negative):
    predicted = p >= threshold
    return false_positive * (predicted & ~gold).sum() + false_negative * (~predicted & gold).sum()


@given(flags_and_probabilities(), st.floats(0.1, 20), st.floats(0.1, 20))
def test_no_threshold_costs_less(rows, false_positive, false_negative):
    gold, p = rows
    costs = false_positive, false_negative
    threshold = cost_threshold(gold, p, *costs)
    every = [cost_of(gold, p, t, *costs) for t in [0.0, *(np.unique(p) + 1e-9)]]
    if gold.any() and not gold.all():
        assert cost_of(gold, p, threshold, *costs) == pytest.approx(min(every))
    else:
        assert threshold == false_positive / (false_positive + false_negative)


def test_among_equal_costs_the_expected_threshold_is_used():
    gold, p = np.array([True, False]), np.array([0.9, 0.1])
    assert cost_threshold(gold, p, 1, 4) == 0.2
    assert cost_threshold(gold, p, 1, 99) == pytest.approx(0.5)  # 0.01 would take both rows
    assert cost_threshold(np.array([False, True]), np.array([1.0, 0.1]), 9, 1) > 1


@given(flags_and_probabilities(), st.floats(0.05, 0.95))
def test_the_lowest_threshold_with_a_precision_is_that_of_scikit_learn(rows, target):
    gold, p = rows
    threshold, reached = precision_threshold(gold, p, target)
    if not gold.any():
        assert (threshold, reached) == (0.5, 0.0)
        return
    precision, _, thresholds = precision_recall_curve(gold, p)
    precision = precision[:-1]
    good = np.flatnonzero(precision >= target - 1e-12)
    if len(good):
        expected = thresholds[good[0]]
    else:
        expected = thresholds[np.flatnonzero(precision >= precision.max() - 1e-12)[0]]
    assert ((p >= threshold) == (p >= expected)).all()
    assert reached == pytest.approx(gold[p >= threshold].mean())


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.9, 0.95, 0.99, 2 / 3])
def test_rows_needed_are_the_fewest(coverage):
    n = rows_needed(coverage)
    assert np.isfinite(ConformalScores.of(np.arange(n)).quantile(coverage))
    assert n == 1 or np.isinf(ConformalScores.of(np.arange(n - 1)).quantile(coverage))


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_quantile_is_the_order_statistic_of_the_papers(n, coverage):
    scores = np.random.default_rng(n).normal(size=n)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    expected = np.sort(scores)[rank - 1] if rank <= n else math.inf
    assert ConformalScores.of(scores).quantile(coverage) == expected


@given(st.integers(21, 3000), st.floats(0.02, 0.98), st.integers(20, 100))
def test_scores_that_were_left_out_never_lower_the_coverage(n, coverage, most):
    scores = np.random.default_rng(n).normal(size=n)
    kept = ConformalScores.of(scores, most)
    assert len(kept.values) <= most and kept.num_rows == n
    assert kept.quantile(coverage) >= ConformalScores.of(scores, n).quantile(coverage)
    assert ConformalScores.from_json(kept.to_json()) == kept
    if (n + 1) * (1 - coverage) < most // 2 and n > most:  # among the highest, none was left out
        assert kept.quantile(coverage) == ConformalScores.of(scores, n).quantile(coverage)


@pytest.mark.parametrize(("n", "coverage"), [(19, 0.9), (50, 0.8), (9, 0.9), (2000, 0.95)])
def test_coverage_is_exact_on_average(n, coverage):
    rng = np.random.default_rng(n)
    draws, news = 400, 50
    covered = 0
    for _ in range(draws):
        quantile = ConformalScores.of(rng.normal(size=n)).quantile(coverage)
        covered += int((rng.normal(size=news) <= quantile).sum())
    expected = math.ceil((n + 1) * coverage - 1e-9) / (n + 1)
    spread = math.sqrt(expected * (1 - expected) * (1 / (draws * news) + 1 / (draws * (n + 2))))
    assert abs(covered / (draws * news) - expected) < 4 * spread
