"""Metrics of a search by vectors, and the exact search.

Letters: `q` queries, `n` documents, `d` width of a vector, `k` results of a query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import Bools, Floats, Ints
from bertune.metrics.similarity import Similarity, l2_normalize, similarity_matrix

Vectors = npt.NDArray[np.float32]

_CUTOFF = 10
"""The ranks that MRR and nDCG look at."""
_BLOCK = 2**23
"""Similarities in memory at once: 32 MiB of fp32."""


class RetrievalScores(NamedTuple):
    """The metrics of a search."""

    values: dict[str, float]
    """The mean of each metric over queries."""
    per_query: dict[str, Floats]
    """(q,) each metric of each query, for a bootstrap."""


def retrieval_scores(
    queries: Vectors,
    documents: Vectors,
    relevant: Sequence[Collection[int]],
    ks: Sequence[int] = (1, 5, 10),
    excluded: Ints | None = None,
    similarity: Similarity = "dot",
) -> RetrievalScores:
    """Rank all documents for each query by similarity, and return the metrics of the ranking.

    - `mrr@10`: 1 / rank of the first relevant document; 0 beyond rank 10. - `ndcg@10`: sum of 1 / log2(1 +
    rank) over the relevant documents of the first 10, divided by its maximum. - `recall@k`: fraction of the
    relevant documents among the first k. - `accuracy@1`: whether the first document is relevant.

    A query without a relevant document scores 0 in all of them.

    Args:
        queries: (q, d).
        documents: (n, d).
        relevant: the relevant documents of each query, each document once.
        ks: the values of k for `recall@k`.
        excluded: (q,) a document to leave out of each query's search, such as the query itself; -1 for none.
        similarity: how vectors are compared; the product of vectors of length 1 is their cosine.

    Source: Thakur et al. 2021 (BEIR), arXiv 2104.08663; Järvelin and Kekäläinen 2002 for nDCG. trec_eval has
        the same metrics.
    """
    excluded = np.full(len(queries), -1) if excluded is None else excluded
    neighbors = nearest_neighbors(queries, documents, max(_CUTOFF, *ks), excluded, similarity)
    pairs = _relevant_pairs(relevant, excluded, len(documents))
    hits = np.isin(np.arange(len(queries))[:, None] * len(documents) + neighbors, pairs)  # (q, k)
    count = np.bincount(pairs // len(documents), minlength=len(queries))
    return scores_of_rankings(hits.astype(float), [np.ones(n) for n in count], ks)


def scores_of_rankings(
    found: Floats, relevant: Sequence[Floats], ks: Sequence[int] = (1, 5, 10)
) -> RetrievalScores:
    """Return the metrics of rankings whose documents may be relevant in degrees; see `retrieval_scores`.

    The degree is the gain in nDCG, as in trec_eval. For the other metrics every degree above 0 is relevant.

    Args:
        found: (q, k) the degree of each document of a ranking, best first; 0 for others.
        relevant: for each query the degrees of all its relevant documents, those that no search can find too.
        ks: the values of k for `recall@k`.
    """
    hits = found > 0
    count = np.array([len(degrees) for degrees in relevant])
    per_query = {
        f"mrr@{_CUTOFF}": _reciprocal_rank(hits[:, :_CUTOFF]),
        f"ndcg@{_CUTOFF}": _discounted_gain(found[:, :_CUTOFF], relevant),
        **{f"recall@{k}": hits[:, :k].sum(1) / np.maximum(count, 1) for k in ks},
        "accuracy@1": hits[:, :1].any(1).astype(float),
    }
    return RetrievalScores({name: float(values.mean()) for name, values in per_query.items()}, per_query)


def _relevant_pairs(relevant: Sequence[Collection[int]], excluded: Ints, num_documents: int) -> Ints:
    """Return query * num_documents + document for each query and relevant document, without excluded ones."""
    count = [len(documents) for documents in relevant]
    query = np.repeat(np.arange(len(relevant)), count)
    document = np.fromiter((n for documents in relevant for n in documents), np.int64, sum(count))
    pairs: Ints = (query * num_documents + document)[document != excluded[query]]
    return pairs


def _reciprocal_rank(hits: Bools) -> Floats:
    reciprocal: Floats = hits.any(1) / (1.0 + hits.argmax(1))
    return reciprocal


def _discounted_gain(found: Floats, relevant: Sequence[Floats]) -> Floats:
    """Return the nDCG (q,) of rankings (q, k); `relevant` has the degrees of all relevant documents."""
    discount = 1 / np.log2(2.0 + np.arange(_CUTOFF))
    best = [np.sort(degrees)[::-1][:_CUTOFF] for degrees in relevant]
    ideal = np.array([degrees @ discount[: len(degrees)] for degrees in best])
    gain: Floats = found @ discount[: found.shape[1]] / np.where(ideal, ideal, 1.0)
    return gain


def nearest_neighbors(
    queries: Vectors, documents: Vectors, k: int, excluded: Ints, similarity: Similarity = "dot"
) -> Ints:
    """Return the documents with the highest similarity to each query, best first: (q, k).

    With fewer than k documents it is (q, n). Documents that are equally similar keep their order. An excluded
    document comes last.

    Args:
        queries: (q, d).
        documents: (n, d).
        k: the number of documents to return.
        excluded: (q,) one document a query; -1 for none.
        similarity: how vectors are compared.
    """
    k = min(k, len(documents))
    neighbors = np.empty((len(queries), k), np.int64)
    for block in _blocks(len(queries), max(1, _BLOCK // max(1, len(documents)))):
        similarities = similarity_matrix(queries[block], documents, similarity)
        rows = np.flatnonzero(excluded[block] >= 0)
        similarities[rows, excluded[block][rows]] = -np.inf
        neighbors[block] = _top_k(similarities, k)
    return neighbors


class TopDocuments:
    """The documents nearest to each query, of documents that come in parts.

    Args:
        queries: (q, d).
        k: how many documents to keep for each query.
        similarity: how vectors are compared.
    """

    def __init__(self, queries: Vectors, k: int, similarity: Similarity) -> None:
        self._queries = l2_normalize(queries) if similarity == "cosine" else queries
        self._k = k
        self._similarity = similarity
        self._num_documents = 0
        self._scores = np.empty((len(queries), 0))
        self.documents: Ints = np.empty((len(queries), 0), np.int64)
        """(q, k) best first, and in the order in which they came where they are equally near."""

    def add(self, documents: Vectors) -> None:
        """Compare further documents (n, d); they are numbered in the order in which they come."""
        similarity = "dot" if self._similarity == "cosine" else self._similarity
        vectors = l2_normalize(documents) if self._similarity == "cosine" else documents
        new_scores = np.concatenate(
            [
                similarity_matrix(self._queries[block], vectors, similarity)
                for block in _blocks(len(self._queries), max(1, _BLOCK // max(1, len(documents))))
            ]
        )
        new = np.broadcast_to(self._num_documents + np.arange(len(documents)), new_scores.shape)
        scores = np.concatenate([self._scores, new_scores], axis=1)
        order = _top_k(scores, min(self._k, scores.shape[1]))
        self._scores = np.take_along_axis(scores, order, axis=1)
        self.documents = np.take_along_axis(np.concatenate([self.documents, new], axis=1), order, axis=1)
        self._num_documents += len(documents)


def _blocks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def _top_k(values: npt.NDArray[Any], k: int) -> Ints:
    """Return the columns (b, k) of the highest values of each row (b, n), highest first, ties in order."""
    num_lower = values.shape[1] - k
    lowest = np.partition(values, num_lower, axis=1)[:, num_lower, None]
    row, column = np.nonzero(values >= lowest)  # k or more in a row: ties with the lowest are among them
    order = np.lexsort((-values[row, column], row))
    starts = np.searchsorted(row, np.arange(len(values)))
    columns: Ints = column[order][starts[:, None] + np.arange(k)]
    return columns
