"""Scores of vectors without labels: a search among all texts of the rows, and how far texts lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.ranking import RetrievalScores, retrieval_scores
from bertune.metrics.similarity import Similarity, l2_normalize
from bertune.types import Example, Prediction, Scores


def text_vectors(prediction: Prediction) -> tuple[Any, ...]:
    """Return the vector of each text of a row, or nothing where it was not kept."""
    return prediction.vectors or ()


def search_scores(
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    main: str,
    similarity: Similarity,
    *,
    intervals: bool,
) -> Scores:
    """Score a search; `main` is the main metric. See `rank_texts`."""
    result = rank_texts(predictions, examples, similarity)
    interval = None
    if intervals:
        interval = bootstrap_interval(lambda each: float(each.mean()), result.per_query[main])
    return Scores(main, True, result.values, {main: interval} if interval else {})


def queries_of(examples: Sequence[Example]) -> list[str]:
    """Return the queries of a search, each once: the different first texts of rows."""
    return list(dict.fromkeys(example.texts[0] for example in examples))


def rank_texts(
    predictions: Sequence[Prediction], examples: Sequence[Example], similarity: Similarity
) -> RetrievalScores:
    """Rank all texts to find for each query, see `queries_of`, and return the metrics of each query.

    The texts to find are all texts of rows but the first ones. Those that belong to a query are in one of its
    rows.
    """
    queries: dict[str, Any] = {}
    documents: dict[str, Any] = {}
    relevant: dict[str, set[str]] = {}
    for prediction, example in zip(predictions, examples, strict=True):
        vectors = text_vectors(prediction)
        queries.setdefault(example.texts[0], vectors[0])
        for text, vector in zip(example.texts[1:], vectors[1:], strict=True):
            documents.setdefault(text, vector)
        relevant.setdefault(example.texts[0], set()).update(example.texts[1 : 1 + example.num_positives])
    index_of = {text: n for n, text in enumerate(documents)}
    relevant_ids = [{index_of[text] for text in relevant[query]} for query in queries]
    # A query that is a document too must not find itself, unless that is relevant.
    own_ids = np.array([index_of.get(query, -1) if query not in relevant[query] else -1 for query in queries])
    query_vectors, document_vectors = (np.stack(list(texts.values())) for texts in (queries, documents))
    if similarity == "cosine":
        query_vectors, document_vectors = l2_normalize(query_vectors), l2_normalize(document_vectors)
        similarity = "dot"
    return retrieval_scores(
        query_vectors, document_vectors, relevant_ids, excluded=own_ids, similarity=similarity
    )


def uniformity(vectors: Any) -> float:
    """Return the uniformity of vectors (n, E) of length 1: log of the mean of exp(-2 * squared distance).

    At most 2,000 of them are used. Source: Wang and Isola 2020, arXiv 2005.10242, equation 2.
    """
    sample = vectors[:: -(-len(vectors) // 2000)]
    squared_distances = 2 - 2 * (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return float(np.log(np.exp(-2 * squared_distances).mean())) if len(sample) > 1 else 0.0
