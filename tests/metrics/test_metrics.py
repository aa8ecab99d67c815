"""Metrics equal those of scikit-learn and scipy; intervals and thresholds equal their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import (
    LabelCounts,
    LabelPairs,
    MultiLabelMetrics,
    best_threshold,
    confusion_matrix,
    matthews_corrcoef,
    most_confused,
    multi_label_scores,
    per_label_scores,
    single_label_scores,
)
from bertune.metrics.regression import pearson, regression_scores, spearman

pytestmark = pytest.mark.filterwarnings(
    "ignore:A single label was found"
)  # scikit-learn, where gold and predicted are one label
quickly = settings(max_examples=30, deadline=None)


@st.composite
def labelled(draw, lowest=1, highest=5):
    """Gold and predicted label ids, and the number of labels; some may not occur."""
    num_labels = draw(st.integers(lowest, highest))
    pairs = draw(
        st.lists(
            st.tuples(st.integers(0, num_labels - 1), st.integers(0, num_labels - 1)), min_size=1, max_size=40
        )
    )
    gold, predicted = np.array(pairs).T
    return gold, predicted, num_labels


@st.composite
def flags(draw):
    """Gold and predicted labels of a multi-label problem."""
    shape = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    return random.random(shape) < density, random.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))


numbers = st.integers(-40, 40).map(lambda n: n / 8)  # a grid, so that ties are common
paired = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30).map(
    lambda rows: tuple(np.array(rows).T)
)


class TestSingleLabel:
    @quickly
    @given(labelled())
    def test_confusion_matrix(self, rows):
        gold, predicted, num_labels = rows
        actual = confusion_matrix(gold, predicted, num_labels)
        np.testing.assert_array_equal(actual, sk.confusion_matrix(gold, predicted, labels=range(num_labels)))

    @quickly
    @given(labelled())
    def test_averages(self, rows):
        gold, predicted, num_labels = rows
        actual = single_label_scores(confusion_matrix(gold, predicted, num_labels), None)
        reference = {
            "accuracy": sk.accuracy_score(gold, predicted),
            "precision_macro": sk.precision_score(gold, predicted, average="macro", zero_division=0),
            "recall_macro": sk.recall_score(gold, predicted, average="macro", zero_division=0),
            "f1_macro": sk.f1_score(gold, predicted, average="macro", zero_division=0),
            "f1_micro": sk.f1_score(gold, predicted, average="micro", zero_division=0),
            "f1_weighted": sk.f1_score(gold, predicted, average="weighted", zero_division=0),
            "mcc": sk.matthews_corrcoef(gold, predicted),
        }
        assert actual == pytest.approx(reference, abs=1e-12)

    @quickly
    @given(labelled(2, 2), st.integers(0, 1))
    def test_binary(self, rows, positive):
        gold, predicted, _ = rows
        actual = single_label_scores(confusion_matrix(gold, predicted, 2), positive)
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            gold, predicted, labels=[positive], average=None, zero_division=0
        )
        assert (actual["precision"], actual["recall"], actual["f1"]) == pytest.approx(
            (precision[0], recall[0], f1[0]), abs=1e-12
        )
        assert "precision_macro" not in actual
        assert actual["mcc"] == pytest.approx(sk.matthews_corrcoef(gold, predicted), abs=1e-12)

    @quickly
    @given(labelled())
    def test_per_label(self, rows):
        gold, predicted, num_labels = rows
        matrix = confusion_matrix(gold, predicted, num_labels)
        names = [f"label {n}" for n in range(num_labels)]
        actual = per_label_scores(names, np.diag(matrix), matrix.sum(0), matrix.sum(1))
        reference = sk.precision_recall_fscore_support(
            gold, predicted, labels=range(num_labels), average=None, zero_division=0
        )
        assert list(actual) == names
        for name, precision, recall, f1, support in zip(names, *reference, strict=True):
            assert actual[name] == pytest.approx(
                {"precision": precision, "recall": recall, "f1": f1, "support": support}, abs=1e-12
            )
            assert type(actual[name]["support"]) is int

    @quickly
    @given(labelled())
    def test_counts_are_enough(self, rows):
        gold, predicted, num_labels = rows
        counts = LabelCounts.of_ids(gold, predicted, num_labels)
        matrix = confusion_matrix(gold, predicted, num_labels)
        assert single_label_scores(counts, None) == single_label_scores(matrix, None)
        assert counts.hits.tolist() == np.diag(matrix).tolist()

    @quickly
    @given(labelled(), st.integers(1, 6))
    def test_most_confused(self, rows, most):
        gold, predicted, num_labels = rows
        matrix = confusion_matrix(gold, predicted, num_labels)
        np.fill_diagonal(matrix, 0)
        pairs = most_confused(gold, predicted, most)
        assert all(matrix[g, p] == count for g, p, count in pairs)
        counts = [count for _, _, count in pairs]
        assert counts == sorted(matrix[matrix > 0].tolist(), reverse=True)[:most]

    def test_a_hundred_thousand_labels_need_no_table(self):
        """A confusion matrix of them would have ten thousand million entries."""
        gold = np.arange(100_000)
        scores = single_label_scores(LabelCounts.of_ids(gold, gold // 2 * 2, len(gold)), None)
        assert (scores["accuracy"], len(most_confused(gold, gold // 2 * 2, 10))) == (0.5, 10)

    def test_one_right_one_wrong_of_each(self):
        """By hand, in case both libraries are wrong."""
        actual = single_label_scores(np.array([[3, 1], [2, 4]]), 1)
        assert actual == pytest.approx(
            {
                "accuracy": 0.7,
                "precision": 0.8,
                "recall": 2 / 3,
                "f1": 8 / 11,
                "f1_macro": (6 / 9 + 8 / 11) / 2,
                "f1_micro": 0.7,
                "f1_weighted": 0.4 * 6 / 9 + 0.6 * 8 / 11,
                "mcc": 10 / np.sqrt(4 * 6 * 5 * 5),
            }
        )

    def test_one_label_everywhere_has_no_correlation(self):
        assert matthews_corrcoef(np.array([[5, 0], [3, 0]])) == 0.0
        assert matthews_corrcoef(np.array([[5, 0], [0, 0]])) == 0.0


class TestMultiLabel:
    @quickly
    @given(flags())
    def test_all_figures(self, rows):
        gold, predicted = rows
        actual = multi_label_scores(gold, predicted)
        g, p = gold.astype(int), predicted.astype(int)
        if (
            gold.shape[1] == 1
        ):  # scikit-learn takes one column for a binary problem: a label that is never on keeps its form
            g, p = np.hstack([g, np.zeros_like(g)]), np.hstack([p, np.zeros_like(p)])
        chosen = {"labels": range(gold.shape[1]), "zero_division": 0}
        reference = {
            "f1_macro": sk.f1_score(g, p, average="macro", **chosen),
            "f1_micro": sk.f1_score(g, p, average="micro", **chosen),
            "f1_weighted": sk.f1_score(g, p, average="weighted", **chosen),
            "precision_micro": sk.precision_score(g, p, average="micro", **chosen),
            "recall_micro": sk.recall_score(g, p, average="micro", **chosen),
            "accuracy": sk.accuracy_score(g, p),
            "hamming": 1 - sk.hamming_loss(g[:, : gold.shape[1]], p[:, : gold.shape[1]]),
        }
        assert actual == pytest.approx(reference, abs=1e-12)

    def test_labels_that_never_occur_count_as_0_in_the_macro_average(self):
        gold = np.array([[True, False], [True, False]])
        assert multi_label_scores(gold, gold)["f1_macro"] == 0.5

    @quickly
    @given(flags(), st.integers(0, 100))
    def test_resampled_rows(self, table, seed):
        gold, predicted = table
        metrics = MultiLabelMetrics(LabelPairs.of_flags(gold), LabelPairs.of_flags(predicted))
        rows = np.random.default_rng(seed).integers(0, len(gold), len(gold))
        for name, value in multi_label_scores(gold[rows], predicted[rows]).items():
            assert metrics.resampled(rows, name) == pytest.approx(value, abs=1e-12)

    def test_pairs_of_lists(self):
        pairs = LabelPairs.of_lists([[2, 0], [], [1]], 3)
        assert (pairs.rows.tolist(), pairs.labels.tolist()) == ([0, 0, 2], [2, 0, 1])
        assert LabelPairs.of_lists([[], []], 3).count_labels().tolist() == [0, 0, 0]


class TestRegression:
    @quickly
    @given(paired)
    def test_correlations_and_errors(self, columns):
        gold, predicted = columns
        assume(np.ptp(gold) > 0)
        assume(np.ptp(predicted) > 0)
        reference = {
            "pearson": scipy.stats.pearsonr(gold, predicted).statistic,
            "spearman": scipy.stats.spearmanr(gold, predicted).statistic,
            "mse": sk.mean_squared_error(gold, predicted),
            "mae": sk.mean_absolute_error(gold, predicted),
        }
        assert regression_scores(gold, predicted) == pytest.approx(reference, abs=1e-12)

    def test_spearman_with_ties(self):
        gold, predicted = np.array([1.0, 2, 2, 3, 3, 3]), np.array([0.1, 0.1, 0.4, 0.2, 0.9, 0.9])
        assert spearman(gold, predicted) == pytest.approx(
            scipy.stats.spearmanr(gold, predicted).statistic, abs=1e-14
        )
        assert spearman(gold, np.exp(9 * predicted)) == spearman(gold, predicted)  # only order counts

    @quickly
    @given(st.floats(-1e6, 1e6), st.integers(1, 30), st.integers(0, 100))
    @example(0.1, 3, 0)  # the mean of three 0.1 is not 0.1
    def test_a_constant_column_gives_0(self, value, n, seed):
        other, constant = np.random.default_rng(seed).normal(size=n), np.full(n, value)
        for metric in (pearson, spearman):
            assert metric(constant, other) == 0.0
            assert metric(other, constant) == 0.0
            assert metric(constant, constant) == 0.0

    @pytest.mark.parametrize("scale", [1e-14, 1e-6, 1.0, 1e6, 1e14])
    def test_pearson_does_not_depend_on_the_unit(self, scale):
        gold, predicted = np.random.default_rng(0).normal(size=(2, 20))
        whole = scipy.stats.pearsonr(gold, predicted).statistic
        assert pearson(gold * scale, predicted) == pytest.approx(whole, abs=1e-12)
        assert pearson(gold, predicted * scale) == pytest.approx(whole, abs=1e-12)

    @pytest.mark.parametrize("factor", [3.0, -0.7])
    def test_a_correlation_is_never_beyond_1(self, factor):
        for seed in range(100):
            column = np.random.default_rng(seed).normal(size=2 + seed % 10)
            correlation = pearson(column, factor * column)
            assert correlation == pytest.approx(np.sign(factor), abs=1e-12)
            assert abs(correlation) <= 1, seed


class TestInterval:
    def test_is_that_of_scipy(self):
        column = np.random.default_rng(1).gamma(2.0, size=120)
        low, high = bootstrap_interval(np.mean, column, num_resamples=4000)
        reference = scipy.stats.bootstrap(
            (column,),
            np.mean,
            n_resamples=4000,
            method="percentile",
            confidence_level=0.95,
            rng=np.random.default_rng(2),
        ).confidence_interval
        spread = column.std() / np.sqrt(
            len(column)
        )  # of the mean; each end of each interval is off by about 0.04 of it
        assert abs(low - reference.low) < 0.2 * spread
        assert abs(high - reference.high) < 0.2 * spread

    def test_covers_the_truth_about_95_times_in_100(self):
        random = np.random.default_rng(3)
        covered = 0
        for _ in range(150):
            low, high = bootstrap_interval(np.mean, random.normal(7, 2, size=60), num_resamples=200)
            covered += low <= 7 <= high
        assert 0.88 <= covered / 150 <= 0.99

    def test_is_the_same_every_time_and_leaves_the_random_numbers_of_others_alone(self):
        column = np.random.default_rng(4).normal(size=50)
        np.random.seed(5)
        before = np.random.get_state()[1].copy()
        first = bootstrap_interval(np.mean, column)
        assert bootstrap_interval(np.mean, column) == first
        assert first[0] < column.mean() < first[1]
        np.testing.assert_array_equal(np.random.get_state()[1], before)

    def test_draws_the_same_rows_from_every_column(self):
        column = np.arange(40)
        assert bootstrap_interval(lambda a, b: float((a == b).mean()), column, column) == (1.0, 1.0)

    def test_says_nothing_of_fewer_than_two_rows(self):
        assert bootstrap_interval(np.mean, np.array([])) is None
        assert bootstrap_interval(np.mean, np.array([1.0])) is None
        assert bootstrap_interval(np.mean, np.array([1.0, 1.0])) == (1.0, 1.0)

    def test_narrows_with_more_rows(self):
        random = np.random.default_rng(6)
        widths = [
            np.diff(bootstrap_interval(np.mean, random.normal(size=n), num_resamples=300))[0]
            for n in (20, 200, 2000)
        ]
        assert widths[0] > 2 * widths[1] > 4 * widths[2]


def f1_at(threshold: float, gold: np.ndarray, probability: np.ndarray) -> float:
    return float(sk.f1_score(gold, probability >= threshold, zero_division=0))


def check_threshold(gold: np.ndarray, probability: np.ndarray) -> None:
    """Compare the threshold with all other thresholds."""
    chosen = best_threshold(gold, probability)
    if not gold.any():
        assert chosen == 0.5
        return
    candidates = np.unique(probability)  # rising: at candidates[i] all rows from it upwards are positive
    f1 = np.array([f1_at(candidate, gold, probability) for candidate in candidates])
    assert f1_at(chosen, gold, probability) == f1.max()
    halfway = (candidates + np.concatenate([[0.0], candidates[:-1]])) / 2
    tied = halfway[f1 == f1.max()]
    assert abs(chosen - 0.5) == pytest.approx(np.abs(tied - 0.5).min(), abs=1e-6)
    assert np.abs(tied - chosen).min() <= 1e-6


class TestBestThreshold:
    @quickly
    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 20).map(lambda n: n / 20)), min_size=1, max_size=15)
    )
    def test_against_every_cut_with_ties(self, rows):
        gold, probability = zip(*rows, strict=True)
        check_threshold(np.array(gold), np.array(probability))

    @quickly
    @given(st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=15))
    def test_against_every_cut_of_any_probabilities(self, rows):
        """Probabilities are fp32, as a model gives them."""
        gold, probability = zip(*rows, strict=True)
        check_threshold(np.array(gold), np.array(probability))

    @pytest.mark.parametrize("around", [2e-7, 0.5, 1 - 1e-6])
    def test_probabilities_that_lie_close_together(self, around):
        """As those of a rare label: sigmoid(-15) is 3e-7."""
        probability = np.array([around - 2e-7, around, around + 2e-7, around + 4e-7])
        check_threshold(np.array([False, False, True, True]), probability)

    def test_without_a_positive_row(self):
        assert best_threshold(np.array([False, False]), np.array([0.9, 0.1])) == 0.5

    def test_only_positive_rows(self):
        assert best_threshold(np.array([True, True]), np.array([0.9, 0.8])) == 0.4

    def test_ties_go_to_the_threshold_nearest_to_one_half(self):
        gold, probability = np.array([True, False, False, True, True]), np.array([0.95, 0.9, 0.85, 0.7, 0.02])
        check_threshold(gold, probability)
        # one positive or all but one: F1 is 2/4 and 2*2/6 and 2*3/8: the last cut alone is best
        assert best_threshold(gold, probability) == 0.01
        gold, probability = np.array([True, False, False, False, True]), np.array([0.8, 0.6, 0.4, 0.3, 0.1])
        # F1 2/3 at 0.7; 4/7 at 0.05
        assert best_threshold(gold, probability) == 0.7
        gold, probability = (
            np.array([True, False, True, False, False, True]),
            np.array([0.9, 0.8, 0.6, 0.4, 0.3, 0.2]),
        )
        # F1 2/3 both at 0.5, after three rows, and at 0.1, after all
        assert best_threshold(gold, probability) == 0.5
