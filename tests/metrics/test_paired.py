"""Paired tests against statsmodels and scipy on the same numbers; metrics by weights against plain ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from bertune.metrics import paired, weighted
from bertune.metrics.classification import (
    confusion_matrix,
    multi_label_scores,
    single_label_scores,
)
from bertune.metrics.regression import regression_scores
from bertune.metrics.similarity import binary_similarity_scores
from bertune.metrics.spans import SpanCounts, span_scores

SEEDS = st.integers(0, 2**32 - 1)


def resample(seed: int, n: int = 30) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """A generator, rows drawn with replacement, and how often each was drawn."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n, n)
    return rng, rows, np.bincount(rows, minlength=n)[None].astype(float)


def one_hot(ids: np.ndarray, num_labels: int) -> np.ndarray:
    return np.eye(num_labels)[ids]


@given(SEEDS, st.sampled_from(["accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "mcc"]))
def test_metrics_of_one_label_a_row_by_weights(seed, metric):
    rng, rows, weights = resample(seed)
    labels = 2 if metric == "f1" else 4
    gold, predicted = rng.integers(0, labels, (2, 30))
    right = one_hot(gold, labels) * (gold == predicted)[:, None]
    sums = weighted.LabelSums(right, one_hot(predicted, labels), one_hot(gold, labels))
    positive = 1 if metric == "f1" else None
    matrix = confusion_matrix(gold[rows], predicted[rows], labels)
    expected = single_label_scores(matrix, positive)[metric]
    assert weighted.label_metric(metric, *sums(weights), positive=positive) == pytest.approx([expected])


@pytest.mark.parametrize("dense_numbers", [0, 10**9])
@pytest.mark.parametrize("metric", ["f1_macro", "f1_micro", "f1_weighted"])
def test_metrics_of_several_labels_a_row_by_weights(metric, dense_numbers, monkeypatch):
    monkeypatch.setattr(weighted, "_DENSE_NUMBERS", dense_numbers)
    for seed in range(20):
        rng, rows, weights = resample(seed)
        gold, predicted = rng.random((2, 30, 5)) < 0.2
        sums = weighted.LabelSums(gold & predicted, predicted, gold)
        expected = multi_label_scores(gold[rows], predicted[rows])[metric]
        found = weighted.label_metric(metric, *sums(weights), all_labels=True)
        assert found == pytest.approx([expected])


@given(SEEDS, st.sampled_from(["f1", "f1_macro", "boundary_f1", "type_f1"]))
def test_metrics_of_spans_by_weights(seed, metric):
    rng, rows, weights = resample(seed)
    predicted, gold = rng.integers(0, 3, (2, 30, 4))
    counts = SpanCounts(np.minimum(predicted, gold) // 2, predicted, gold, rng.integers(0, 3, (30, 4)))
    expected = span_scores(SpanCounts(*(part[rows] for part in counts)))[metric]
    assert weighted.span_metric(metric, counts)(weights) == pytest.approx([expected])


@given(SEEDS, st.sampled_from(["pearson", "spearman", "mse", "mae"]), st.booleans())
def test_metrics_of_numbers_by_weights(seed, metric, ties):
    rng, rows, weights = resample(seed)
    gold, predicted = rng.normal(3, 2, (2, 30))
    if ties:
        gold, predicted = gold.round(), predicted.round()
    expected = regression_scores(gold[rows], predicted[rows])[metric]
    assert weighted.number_metric(metric, gold, predicted)(weights) == pytest.approx([expected])


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_constant_column_has_no_correlation(metric):
    gold, predicted = np.array([1.1, 2.0, 3.0, 3.0]), np.array([0.1, 0.3, 0.3, 0.2])
    constant = np.array([[4.0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 1, 3]])
    assert weighted.number_metric(metric, gold, predicted)(constant).tolist() == [0, 0, 0]


@given(SEEDS, st.sampled_from(["average_precision", "accuracy", "f1"]), st.integers(1, 3))
def test_metrics_of_similarities_by_weights(seed, metric, digits):
    rng, rows, weights = resample(seed)
    gold, similarity = rng.random(30) < 0.4, rng.random(30).round(digits)
    expected = binary_similarity_scores(gold[rows], similarity[rows])[metric]
    assert weighted.threshold_metric(metric, gold, similarity)(weights) == pytest.approx([expected])


@given(arrays(bool, 40), arrays(bool, 40))
def test_mcnemar_equals_statsmodels(a, b):
    found = paired.mcnemar(a, b)
    table = [[found.both_right, found.only_a], [found.only_b, found.both_wrong]]
    expected = reference_mcnemar(table, exact=found.exact, correction=True)
    assert found.exact == (found.only_a + found.only_b < paired.EXACT_BELOW)
    assert found.p_value == pytest.approx(float(expected.pvalue))
    assert sum(map(sum, table)) == 40


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(p_values):
    assert paired.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@given(SEEDS)
def test_wilcoxon_equals_scipy(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 60)).round(1)
    found = paired.wilcoxon(a, b)
    different = (b - a)[b != a]
    assert found.p_value == pytest.approx(float(stats.wilcoxon(different).pvalue))
    assert (found.a_smaller, found.b_smaller, found.equal) == ((a < b).sum(), (a > b).sum(), (a == b).sum())


@settings(max_examples=8)
@given(SEEDS, st.sampled_from(["mean", "pearson"]))
def test_the_interval_is_that_of_scipy(seed, metric):
    """Within the error of the percentiles of two independent sets of resamples."""
    rng = np.random.default_rng(seed)
    gold, a, b = rng.normal(size=(3, 120))
    a, b = a + gold, b + 2 * gold
    make = weighted.weighted_mean if metric == "mean" else lambda x: weighted.number_metric(metric, gold, x)

    def difference(g, x, y):
        if metric == "mean":
            return float(y.mean() - x.mean())
        return regression_scores(g, y)["pearson"] - regression_scores(g, x)["pearson"]

    reference = stats.bootstrap(
        (gold, a, b),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    ones = np.ones(120, np.int64)
    resampled = paired.bootstrap_differences(make(a), make(b), ones)[:, 0]
    found = paired.paired_difference(difference(gold, a, b), resampled, 120)
    spread = float(reference.standard_error)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval), abs=0.3 * spread)
    assert resampled.std(ddof=1) == pytest.approx(spread, rel=0.1)


def test_types_of_rows_are_drawn_as_rows_are():
    """A resample of types has the distribution of one of single rows."""
    rng = np.random.default_rng(0)
    values = np.array([0.0, 1.0, -1.0])
    counts = np.array([50, 30, 20])
    zero = weighted.weighted_mean(np.zeros(3))
    by_types = paired.bootstrap_differences(zero, weighted.weighted_mean(values), counts)[:, 0]
    rows = rng.permutation(np.repeat(values, counts))
    zeros, ones = weighted.weighted_mean(np.zeros(100)), np.ones(100, np.int64)
    by_rows = paired.bootstrap_differences(zeros, weighted.weighted_mean(rows), ones)[:, 0]
    assert by_types.mean() == pytest.approx(by_rows.mean(), abs=0.004)
    assert by_types.std() == pytest.approx(by_rows.std(), rel=0.05)


@given(SEEDS)
def test_changing_places_changes_the_sign_alone(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 50))
    first, second, ones = weighted.weighted_mean(a), weighted.weighted_mean(b), np.ones(50, np.int64)
    forth = paired.bootstrap_differences(first, second, ones, num_resamples=1000)
    back = paired.bootstrap_differences(second, first, ones, num_resamples=1000)
    assert (forth == -back).all()
    x, y = (paired.paired_difference(1.0, d[:, 0], 50) for d in (forth, back))
    assert x.p_value == y.p_value
    assert x.interval == pytest.approx((-y.interval[1], -y.interval[0]))


@given(SEEDS)
def test_a_model_does_not_differ_from_itself(seed):
    a = weighted.weighted_mean(np.random.default_rng(seed).normal(size=20))
    resampled = paired.bootstrap_differences(a, a, np.ones(20, np.int64), num_resamples=500)[:, 0]
    found = paired.paired_difference(0.0, resampled, 20)
    assert (found.interval, found.p_value) == ((0.0, 0.0), 1.0)


@given(SEEDS)
def test_p_is_below_a_twentieth_where_the_interval_excludes_zero(seed):
    rng = np.random.default_rng(seed)
    resampled = rng.normal(rng.uniform(-3, 3), 1, 2000)
    found = paired.paired_difference(0.0, resampled, 10)
    low, high = found.interval
    if abs(found.p_value - 0.05) > 0.005:
        assert (found.p_value < 0.05) == (low > 0 or high < 0)


def test_one_row_has_no_interval():
    found = paired.paired_difference(0.5, np.array([0.5]), 1)
    assert (found.interval, found.p_value) == (None, None)
