"""Metrics of similarities equal those of scikit-learn and scipy, and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from bertune.metrics import ranking
from bertune.metrics.ranking import nearest_neighbors, retrieval_scores
from bertune.metrics.similarity import binary_similarity_scores, correlation_scores, l2_normalize

quickly = settings(max_examples=60, deadline=None)
grid = st.integers(-8, 8).map(lambda n: n / 8)  # ties are common
labelled = st.lists(st.tuples(st.booleans(), grid), min_size=1, max_size=20).map(
    lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
)


class TestScoredPairs:
    def test_are_the_correlations_of_scipy(self):
        random = np.random.default_rng(0)
        gold, similarity = random.integers(0, 6, 50), random.normal(size=50).astype(np.float32)
        actual = correlation_scores(gold, similarity)
        assert actual["spearman"] == pytest.approx(
            scipy.stats.spearmanr(gold, similarity).statistic, abs=1e-12
        )
        assert actual["pearson"] == pytest.approx(
            scipy.stats.pearsonr(gold, similarity.astype(float)).statistic, abs=1e-12
        )

    def test_vectors_that_have_collapsed_have_no_correlation(self):
        assert correlation_scores(np.arange(5.0), np.full(5, 0.999, np.float32)) == {
            "spearman": 0.0,
            "pearson": 0.0,
        }


def every_cut(similarity: np.ndarray) -> np.ndarray:
    """Thresholds that give each possible set of positives once, highest first."""
    return np.append(np.inf, np.unique(similarity)[::-1])


class TestLabelledPairs:
    @quickly
    @given(labelled)
    def test_against_every_threshold(self, rows):
        gold, similarity = rows
        actual = binary_similarity_scores(gold, similarity)
        accuracies = [(gold == (similarity >= t)).mean() for t in every_cut(similarity)]
        f1s = [sk.f1_score(gold, similarity >= t, zero_division=0) for t in every_cut(similarity)]
        assert actual["accuracy"] == pytest.approx(max(accuracies), abs=1e-12)
        assert actual["f1"] == pytest.approx(max(f1s), abs=1e-12)
        # each threshold reaches its metric, and is the highest that does
        chosen = similarity >= actual["accuracy_threshold"]
        assert (gold == chosen).mean() == actual["accuracy"]
        assert chosen.sum() == (similarity >= every_cut(similarity)[np.argmax(accuracies)]).sum()
        chosen = similarity >= actual["f1_threshold"]
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            gold, chosen, average="binary", pos_label=True, zero_division=0
        )
        assert (actual["precision"], actual["recall"], actual["f1"]) == pytest.approx(
            (precision, recall, f1), abs=1e-12
        )
        assert chosen.sum() == (similarity >= every_cut(similarity)[np.argmax(f1s)]).sum()

    @quickly
    @given(labelled)
    def test_average_precision(self, rows):
        gold, similarity = rows
        truth = sk.average_precision_score(gold, similarity) if gold.any() else 0.0
        assert binary_similarity_scores(gold, similarity)["average_precision"] == pytest.approx(
            truth, abs=1e-12
        )

    def test_average_precision_of_many_rows(self):
        random = np.random.default_rng(1)
        gold, similarity = random.random(5000) < 0.1, random.random(5000).astype(np.float32)
        actual = binary_similarity_scores(gold, similarity)["average_precision"]
        assert actual == pytest.approx(sk.average_precision_score(gold, similarity), abs=1e-12)

    def test_thresholds_lie_halfway(self):
        similarity = np.array([0.9, 0.7, 0.3, 0.1, -0.5])
        for positives, threshold in enumerate([0.95, 0.8, 0.5, 0.2, -0.2, -0.75]):
            actual = binary_similarity_scores(np.arange(5) < positives, similarity)
            assert actual["accuracy"] == 1.0
            assert actual["accuracy_threshold"] == threshold
            assert actual["f1_threshold"] == threshold  # also with no positive row, where every F1 is 0
        assert actual["average_precision"] == actual["precision"] == actual["recall"] == 1.0

    def test_ties_are_never_cut(self):
        actual = binary_similarity_scores(np.array([True, False, True, False]), np.full(4, 0.5))
        assert actual["accuracy"] == 0.5
        assert actual["accuracy_threshold"] == 0.75  # nothing positive is as good as everything
        assert actual["f1"] == pytest.approx(2 / 3)
        assert actual["f1_threshold"] == -0.25
        assert actual["average_precision"] == 0.5

    @pytest.mark.parametrize("gold", [True, False])
    @pytest.mark.parametrize("value", [1.0, np.float32(1 + 1e-7), -1.0, np.float32(-1 - 1e-7), 0.0])
    def test_ends_of_the_scale(self, gold, value):
        """Rounding gives cosines above 1; a threshold must still be above them."""
        similarity = np.array([value, value])
        actual = binary_similarity_scores(np.array([gold, gold]), similarity)
        assert actual["accuracy"] == 1.0
        assert ((similarity >= actual["accuracy_threshold"]) == gold).all()

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_similarities_that_lie_close_together(self, steps):
        """Neighbours in fp32, compared in fp32 and in fp64."""
        for low in np.random.default_rng(5).uniform(-1, 1, 100).astype(np.float32):
            high = low
            for _ in range(steps):
                high = np.nextafter(high, np.float32(2))
            actual = binary_similarity_scores(np.array([False, True]), np.array([low, high]))
            assert actual["accuracy"] == actual["f1"] == 1.0
            assert low < actual["accuracy_threshold"] <= high
            assert float(low) < actual["accuracy_threshold"] <= float(high)

    def test_similarities_closer_than_fp32_has_them(self):
        similarity = np.array([0.7, np.nextafter(0.7, 1)])
        actual = binary_similarity_scores(np.array([False, True]), similarity)
        assert similarity[0] < actual["f1_threshold"] <= similarity[1]


def reference_retrieval(queries, documents, relevant, ks, excluded):
    """A loop over queries and ranks, from the definitions."""
    figures = {name: [] for name in ["mrr@10", "ndcg@10", *(f"recall@{k}" for k in ks), "accuracy@1"]}
    for query, relevant_documents, excluded_document in zip(queries, relevant, excluded, strict=True):
        left = [n for n in range(len(documents)) if n != excluded_document]
        targets = set(relevant_documents) - {int(excluded_document)}
        ranked = sorted(left, key=lambda n: (-float(query @ documents[n]), n))
        ranks = [rank for rank, n in enumerate(ranked, 1) if n in targets]
        figures["mrr@10"].append(1 / ranks[0] if ranks and ranks[0] <= 10 else 0.0)
        best = sum(1 / np.log2(1 + rank) for rank in range(1, min(len(targets), 10) + 1))
        figures["ndcg@10"].append(
            sum(1 / np.log2(1 + rank) for rank in ranks if rank <= 10) / best if targets else 0.0
        )
        for k in ks:
            figures[f"recall@{k}"].append(sum(rank <= k for rank in ranks) / len(targets) if targets else 0.0)
        figures["accuracy@1"].append(float(bool(ranks) and ranks[0] == 1))
    return figures


def integer_vectors(rows: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Vectors with exact products, so that ties do not depend on rounding."""
    return random.integers(-2, 3, (rows, width)).astype(np.float32)


def unit(rows: int, width: int, random: np.random.Generator) -> np.ndarray:
    vectors = random.normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class TestRetrieval:
    @quickly
    @given(
        st.integers(0, 10**6),
        st.integers(1, 9),
        st.integers(1, 25),
        st.sampled_from([0.0, 0.1, 0.6]),
        st.booleans(),
        st.integers(1, 60),
    )
    def test_is_the_definition_with_ties(self, seed, num_queries, num_documents, density, leave_out, block):
        random = np.random.default_rng(seed)
        queries, documents = (
            integer_vectors(num_queries, 3, random),
            integer_vectors(num_documents, 3, random),
        )
        relevant = [
            set(np.flatnonzero(row).tolist()) for row in random.random((num_queries, num_documents)) < density
        ]
        excluded = random.integers(-1, num_documents, num_queries) if leave_out else None
        ks = (1, 3, 10, 15)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "_BLOCK", block)
            actual = retrieval_scores(queries, documents, relevant, ks, excluded)
        truth = reference_retrieval(
            queries, documents, relevant, ks, [-1] * num_queries if excluded is None else excluded
        )
        assert list(actual.values) == list(actual.per_query) == list(truth)
        for name, figures in truth.items():
            assert actual.per_query[name].shape == (num_queries,)
            assert actual.per_query[name].dtype == np.float64
            np.testing.assert_allclose(actual.per_query[name], figures, atol=1e-12, err_msg=name)
            assert actual.values[name] == pytest.approx(np.mean(figures), abs=1e-12)

    def test_ndcg_is_that_of_scikit_learn(self):
        random = np.random.default_rng(2)
        queries, documents = unit(20, 8, random), unit(60, 8, random)
        gold = random.random((20, 60)) < 0.2
        actual = retrieval_scores(queries, documents, [np.flatnonzero(row).tolist() for row in gold])
        truth = [
            sk.ndcg_score(g[None], s[None], k=10)
            for g, s in zip(gold.astype(int), queries @ documents.T, strict=True)
        ]
        np.testing.assert_allclose(actual.per_query["ndcg@10"], truth, atol=1e-12)

    def test_by_hand(self):
        """The relevant documents of three queries have ranks 1 and 3, rank 2, and no rank up to ten."""
        documents = np.eye(12, dtype=np.float32)
        queries = np.stack([np.linspace(1, 0, 12)] * 3).astype(np.float32)
        actual = retrieval_scores(queries, documents, [{0, 2}, {1}, {11}])
        best = 1 + 1 / np.log2(3)
        assert actual.per_query["mrr@10"].tolist() == [1.0, 0.5, 0.0]
        assert actual.per_query["ndcg@10"] == pytest.approx([1.5 / best, 1 / np.log2(3), 0.0])
        assert actual.per_query["recall@1"].tolist() == [0.5, 0.0, 0.0]
        assert actual.per_query["recall@5"].tolist() == [1.0, 1.0, 0.0]
        assert actual.per_query["accuracy@1"].tolist() == [1.0, 0.0, 0.0]
        assert actual.values["mrr@10"] == 0.5

    def test_the_query_itself_can_be_left_out(self):
        vectors = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
        relevant = [{1}, {0}, {1}]
        assert retrieval_scores(vectors, vectors, relevant).values["accuracy@1"] == 0.0
        assert retrieval_scores(vectors, vectors, relevant, excluded=np.arange(3)).values["accuracy@1"] == 1.0

    def test_an_excluded_document_is_not_relevant_either(self):
        vectors = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
        actual = retrieval_scores(vectors, vectors, [{0, 1}, {0, 1}, {2}], excluded=np.arange(3))
        assert actual.per_query["recall@1"].tolist() == [1.0, 1.0, 0.0]
        assert actual.per_query["recall@10"].tolist() == [1.0, 1.0, 0.0]

    def test_documents_of_equal_similarity_keep_their_order(self):
        neighbors = nearest_neighbors(
            np.ones((2, 3), np.float32), np.ones((50, 3), np.float32), 7, np.array([-1, 2])
        )
        assert neighbors.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 4, 5, 6, 7]]

    def test_the_size_of_blocks_changes_nothing(self, monkeypatch):
        random = np.random.default_rng(3)
        queries, documents, relevant = (
            integer_vectors(37, 6, random),
            integer_vectors(80, 6, random),
            [{n} for n in range(37)],
        )
        unblocked = retrieval_scores(queries, documents, relevant)
        for block in (1, 81, 800):
            monkeypatch.setattr(ranking, "_BLOCK", block)
            assert retrieval_scores(queries, documents, relevant).values == unblocked.values

    def test_queries_are_taken_in_blocks(self, monkeypatch):
        sizes = []
        monkeypatch.setattr(
            ranking,
            "_top_k",
            lambda values, k: sizes.append(values.size) or np.zeros((len(values), k), int),
        )
        random = np.random.default_rng(4)
        monkeypatch.setattr(ranking, "_BLOCK", 1000)
        nearest_neighbors(unit(95, 4, random), unit(100, 4, random), 10, np.full(95, -1))
        assert sizes == [1000] * 9 + [500]


class TestNormalization:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_vectors_have_length_1_and_zero_stays_zero(self, dtype):
        vectors = np.array([[3, 4], [0, 0], [-1e-6, 0], [1e18, 1e18]], np.float32)
        units = l2_normalize(vectors, dtype)
        assert units.dtype == dtype
        np.testing.assert_allclose(units, [[0.6, 0.8], [0, 0], [-1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)

    def test_the_rule_is_that_of_torch(self):
        torch = pytest.importorskip("torch")
        vectors = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
        vectors[:3] = [[0.0], [1e-13], [1e-20]]
        expected = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1).numpy()
        np.testing.assert_allclose(l2_normalize(vectors), expected, rtol=1e-6, atol=1e-30)
