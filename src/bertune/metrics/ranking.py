"""How good a search by vectors is, and the exact search itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.metrics.classification import Bools, Floats, Ints

Vectors = npt.NDArray[np.float32]

_CUTOFF = 10
"""Places that MRR and nDCG look at."""
_BLOCK = 2**23
"""Similarities that are held at once: 32 MiB of fp32."""


class RetrievalScores(NamedTuple):
    """How good a search is."""

    values: dict[str, float]
    """The mean of each figure over queries."""
    per_query: dict[str, Floats]
    """(q,) the same figures of each query, for a bootstrap."""


def retrieval_scores(
    queries: Vectors,
    documents: Vectors,
    relevant: Sequence[Collection[int]],
    ks: Sequence[int] = (1, 5, 10),
    excluded: Ints | None = None,
) -> RetrievalScores:
    """Rank all documents for each query by cosine, and say how well the relevant ones do.

    `mrr@10`: 1 / place of the first relevant document, 0 beyond place 10. `ndcg@10`: sum of 1 / log2(1 + place) over relevant documents
    among the first 10, as a share of the most there could be. `recall@k`: share of the relevant documents that are among the first k.
    `accuracy@1`: whether the first document is relevant. A query without a relevant document scores 0 in all of them.

    Args:
        queries: (q, d) of length 1.
        documents: (n, d) of length 1.
        relevant: the documents that each query should find, q times; each document once.
        ks: values of k for `recall@k`.
        excluded: (q,) one document that takes no part in a query's search, such as the query itself, or -1 for none.

    Source: Thakur et al. 2021 (BEIR), arXiv 2104.08663; Järvelin and Kekäläinen 2002 for nDCG. TREC's tool has the same figures.
    """
    excluded = np.full(len(queries), -1) if excluded is None else excluded
    first = nearest_neighbors(queries, documents, max(_CUTOFF, *ks), excluded)
    wanted = _query_and_document(relevant, excluded, len(documents))
    hits = np.isin(np.arange(len(queries))[:, None] * len(documents) + first, wanted)  # (q, k)
    count = np.bincount(wanted // len(documents), minlength=len(queries))
    per_query = {
        f"mrr@{_CUTOFF}": _reciprocal_rank(hits[:, :_CUTOFF]),
        f"ndcg@{_CUTOFF}": _discounted_gain(hits[:, :_CUTOFF], count),
        **{f"recall@{k}": hits[:, :k].sum(1) / np.maximum(count, 1) for k in ks},
        "accuracy@1": hits[:, :1].any(1).astype(float),
    }
    return RetrievalScores({name: float(figure.mean()) for name, figure in per_query.items()}, per_query)


def _query_and_document(relevant: Sequence[Collection[int]], excluded: Ints, num_documents: int) -> Ints:
    """Return one number for each query with each of its relevant documents, without the excluded ones."""
    count = [len(found) for found in relevant]
    query = np.repeat(np.arange(len(relevant)), count)
    document = np.fromiter((n for found in relevant for n in found), np.int64, sum(count))
    pairs: Ints = (query * num_documents + document)[document != excluded[query]]
    return pairs


def _reciprocal_rank(hits: Bools) -> Floats:
    rank: Floats = hits.any(1) / (1.0 + hits.argmax(1))
    return rank


def _discounted_gain(hits: Bools, count: Ints) -> Floats:
    """Return the nDCG of hits (q, k), where each query has `count` (q,) relevant documents in all."""
    discount = 1 / np.log2(2.0 + np.arange(_CUTOFF))
    most = np.append(0.0, np.cumsum(discount))[np.minimum(count, _CUTOFF)]
    gain: Floats = hits @ discount[: hits.shape[1]] / np.where(count, most, 1.0)
    return gain


def nearest_neighbors(queries: Vectors, documents: Vectors, k: int, excluded: Ints) -> Ints:
    """Return the documents of highest product with each query, best first, as (q, k), or (q, n) where there are fewer documents.

    Of documents with equal products the one that stands first comes first. An excluded document comes after all others.

    Args:
        queries: (q, d).
        documents: (n, d).
        k: how many to return.
        excluded: (q,) one document a query, or -1 for none.
    """
    k = min(k, len(documents))
    found = np.empty((len(queries), k), np.int64)
    for block in _blocks(len(queries), max(1, _BLOCK // max(1, len(documents)))):
        similarity = queries[block] @ documents.T
        without = np.flatnonzero(excluded[block] >= 0)
        similarity[without, excluded[block][without]] = -np.inf
        found[block] = _highest(similarity, k)
    return found


def _blocks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def _highest(values: Vectors, k: int) -> Ints:
    """Return the columns of the highest values of each row (b, n), as (b, k), highest first and equal ones in their order."""
    columns_before = values.shape[1] - k
    lowest = np.partition(values, columns_before, axis=1)[:, columns_before, None]
    row, column = np.nonzero(values >= lowest)  # at least `k` a row: more where the last place is tied
    order = np.lexsort((-values[row, column], row))
    starts = np.searchsorted(row, np.arange(len(values)))
    chosen: Ints = column[order][starts[:, None] + np.arange(k)]
    return chosen
