"""Search in an index: the rows nearest to a query, and near-duplicates."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.errors import ArtifactError, ConfigError, MissingExtra
from bertune.files import unique_part_of
from bertune.inference.vectors import FloatArray, l2_normalize, pair_similarities
from bertune.metrics.similarity import Similarity, similarity_matrix
from bertune.retrieval.writers import report_write_errors
from bertune.types import JSON

FORMAT_VERSION = 2
"""Format 1 did not say which prompt, width and similarity vectors have, nor on which line a row stands."""
IntArray = npt.NDArray[np.int64]
Engine = Literal["exact", "usearch"]
ENGINES: tuple[Engine, ...] = ("exact", "usearch")
QUERY_BATCH_SIZE = 256
"""Queries that are searched together."""
BLOCK_ROWS = 8192
"""Rows of the corpus that are compared with them in one matrix product."""
TILE_ROWS = 2048
"""Rows that are compared with as many others in one matrix product, to find pairs."""
INDEX_KEYS = {
    "num_rows": "rows",
    "dim": "width",
    "dtype": "form",
    "model_fingerprint": "model",
    "source": "source",
    "settings": "vectors",
    "similarity": "similarity",
}
"""Fields of `IndexInfo`, and their keys in index.json."""
_PAIR_BATCH_SIZE = 4096
"""Pairs of vectors whose similarities are computed together, in float64."""
_USEARCH_METRICS = {"cosine": "cos", "dot": "ip", "euclidean": "l2sq"}
_MAX_BATCH_HITS = 1 << 22
"""Most hits that are kept for the queries of a batch."""


class Hit(NamedTuple):
    """A row of the corpus that is near a query."""

    row: int  # its number in the corpus, from 0
    score: float  # how similar, as the model compares: a cosine is -1 to 1, a distance is negative
    raw: JSON  # its columns
    line: int  # the line of the corpus on which it begins


class NearDuplicate(NamedTuple):
    """Two rows that are near each other."""

    score: float  # cosine
    first: int
    second: int  # always after `first`


class NearDuplicates(NamedTuple):
    """The nearest pairs of a corpus.

    Attributes:
        pairs: the highest score first; equal scores by first row, then by second.
        total: how many pairs reach the threshold, those beyond `max_pairs` included.
    """

    pairs: list[NearDuplicate]
    total: int


@dataclass(frozen=True)
class IndexInfo:
    """What an index is made of."""

    num_rows: int
    dim: int
    dtype: Literal["float32", "float16"]
    model_fingerprint: str
    """`SentencePipeline.fingerprint()`: vectors of two models cannot be compared."""
    source: JSON
    """Which corpus, by its content, and the settings it was read with."""
    settings: JSON = field(default_factory=dict)
    """What decides the vectors besides the model, such as the prompt of the rows."""
    similarity: Similarity = "cosine"
    """How the model compares vectors. For cosines they are stored with length 1, else as they are."""

    def to_json(self) -> JSON:
        """Return what index.json holds."""
        values = {INDEX_KEYS[name]: value for name, value in asdict(self).items()}
        return dict(json.loads(json.dumps({"format": FORMAT_VERSION, **values}, default=str)))


@dataclass(frozen=True)
class Index:
    """An opened index. Only what a call needs is read into memory."""

    folder: Path
    info: IndexInfo
    vectors: npt.NDArray[Any]
    """(num_rows, dim), mapped from the disk."""
    offsets: IntArray
    """(num_rows,), mapped from the disk: where in `texts` each row begins."""
    lines: IntArray
    """(num_rows,), mapped from the disk: the line of the corpus on which each row begins."""
    texts: npt.NDArray[np.uint8]
    """texts.jsonl, mapped from the disk, so that an index which is built again meanwhile changes nothing."""

    def search(self, queries: FloatArray, k: int = 10, engine: Engine = "exact") -> list[list[Hit]]:
        """Find the rows nearest to each query.

        Args:
            queries: (q, dim), of any length but zero.
            k: how many rows for each query; all rows, if there are fewer.
            engine: "exact" compares with every row. "usearch" walks a graph and may miss some; the first call
                builds the graph.

        Returns:
            For each query its hits, the best first; of equal scores the earlier row first.

        Raises:
            ConfigError: the queries do not fit, `k` is less than 1, or there is no such engine.
            MissingExtra: the engine is not installed.
            ArtifactError: a row cannot be read.
        """
        results = self.nearest(queries, k, engine)
        raws = self.read_rows(int(row) for _, rows in results for row in rows)
        return [
            [
                Hit(int(row), float(score), raws[int(row)], int(self.lines[row]))
                for score, row in zip(scores, rows, strict=True)
            ]
            for scores, rows in results
        ]

    def nearest(
        self, queries: FloatArray, k: int = 10, engine: Engine = "exact"
    ) -> list[tuple[FloatArray, IntArray]]:
        """Return the scores (k,) and row numbers (k,) of the rows nearest to each query; see `search`."""
        if queries.ndim != 2 or queries.shape[1] != self.info.dim:
            raise ConfigError(f"queries: expected (number, {self.info.dim}), got {queries.shape}")
        if not np.isfinite(queries).all():
            bad_query = int((~np.isfinite(queries).all(axis=1)).argmax())
            raise ConfigError(f"queries: query {bad_query + 1} holds numbers that are not finite")
        if k < 1:
            raise ConfigError(f"k: got {k}, must be at least 1")
        if engine not in ENGINES:
            raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
        k = min(k, self.info.num_rows)
        batch_size = max(1, min(QUERY_BATCH_SIZE, _MAX_BATCH_HITS // k))
        search_batch = self._search_exact if engine == "exact" else self._search_graph
        return [
            result
            for first in range(0, len(queries), batch_size)
            for result in search_batch(queries[first : first + batch_size], k)
        ]

    def read_rows(self, rows: Iterable[int]) -> dict[int, JSON]:
        """Read the columns of some rows, by row number.

        Raises:
            ArtifactError: a row cannot be read.
        """
        raws = {}
        for row in sorted(set(rows)):
            end = self.offsets[row + 1] if row + 1 < self.info.num_rows else len(self.texts)
            try:
                raws[row] = json.loads(self.texts[self.offsets[row] : end].tobytes())
            except ValueError as error:
                raise ArtifactError(
                    f"{self.folder / 'texts.jsonl'}: row {row + 1} cannot be read: "
                    f"{' '.join(str(error).split())}; build the index again: --rebuild"
                ) from None
        return raws

    def near_duplicates(
        self, threshold: float, max_pairs: int, on_progress: Callable[[int], None] = lambda _: None
    ) -> NearDuplicates:
        """Compare every row with every other; return the pairs whose cosine is at least the threshold.

        It is the cosine whatever the similarity of the model is.

        Args:
            threshold: -1 to 1.
            max_pairs: how many pairs are kept; memory grows only with this.
            on_progress: called with the number of rows that were compared with all rows after them.

        Raises:
            ConfigError: the threshold is not a cosine, or `max_pairs` is less than 1.
        """
        if not -1 <= threshold <= 1:
            raise ConfigError(f"threshold: got {threshold}, must be a cosine, -1 to 1")
        if max_pairs < 1:
            raise ConfigError(f"max_pairs: got {max_pairs}, must be at least 1")
        best = _BestPairs(
            threshold,
            max_pairs,
            self._margin,
            lambda left, right: self._similarities(self.vectors, left, right, "cosine"),
        )
        for first in range(0, self.info.num_rows, TILE_ROWS):
            left = self._block(first, TILE_ROWS)
            for second in range(first, self.info.num_rows, TILE_ROWS):
                products = left @ self._block(second, TILE_ROWS).T
                if first == second:
                    products[np.tril_indices(len(products))] = -np.inf
                best.add(products, first, second)
            on_progress(min(first + TILE_ROWS, self.info.num_rows))
        return best.result()

    @property
    def _margin(self) -> float:
        """Return a bound of the error of a float32 product of two vectors of length 1."""
        return (self.info.dim + 16) * 2.0**-23

    def _block(self, first: int, count: int) -> FloatArray:
        """Return rows as float32 (n, dim) with length 1, exact enough to choose candidates."""
        block = np.asarray(self.vectors[first : first + count], dtype=np.float32)
        if self.info.dtype == "float16" or self.info.similarity != "cosine":
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))[:, None]
            block = np.divide(block, np.where(lengths, lengths, 1), dtype=np.float32)
        return block

    def _similarities(
        self, left: npt.NDArray[Any], left_rows: IntArray, rows: IntArray, similarity: Similarity
    ) -> FloatArray:
        """Return the scores of rows `left_rows` of `left` (n, dim) with as many rows of the corpus."""
        scores = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), _PAIR_BATCH_SIZE):
            batch = slice(first, first + _PAIR_BATCH_SIZE)
            scores[batch] = pair_similarities(left[left_rows[batch]], self.vectors[rows[batch]], similarity)
        return scores

    def _estimate(self, queries: FloatArray, first: int) -> tuple[npt.NDArray[Any], float]:
        """Return the scores (q, n) of a block of rows, nearly, and a bound of their error."""
        if self.info.similarity == "cosine":
            return l2_normalize(queries) @ self._block(first, BLOCK_ROWS).T, self._margin
        a: npt.NDArray[np.float64] = queries.astype(np.float64)
        b: npt.NDArray[np.float64] = np.asarray(self.vectors[first : first + BLOCK_ROWS], dtype=np.float64)
        order = 1 if self.info.similarity == "manhattan" else 2
        size = sum(float(np.linalg.norm(x, order, axis=1).max(initial=0)) for x in (a, b))
        # Scores are float32 in the end. The square root of a small difference has lost half of its digits.
        margin = {"dot": size * size * 2.0**-22, "euclidean": size * 2.0**-18, "manhattan": size * 2.0**-22}
        return similarity_matrix(a, b, self.info.similarity), margin[self.info.similarity]

    def _search_exact(self, queries: FloatArray, k: int) -> list[tuple[FloatArray, IntArray]]:
        """Compare with every row, and keep the best k of the blocks so far."""
        scores = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        for first in range(0, self.info.num_rows, BLOCK_ROWS):
            products, margin = self._estimate(queries, first)
            num_seen = first + products.shape[1]
            if scores.shape[1] == k:
                floor = scores[:, -1] - margin
            elif products.shape[1] > k:  # twice the margin: two products may both be wrong
                floor = np.partition(products, -k, axis=1)[:, -k] - 2 * margin
            else:
                floor = np.full(len(queries), -np.inf)
            query, column = np.nonzero(products >= floor[:, None])
            if len(query):
                new_scores = self._similarities(queries, query, first + column, self.info.similarity)
                scores, rows = _merge_best(scores, rows, query, new_scores, first + column, min(k, num_seen))
        return list(zip(scores, rows, strict=True))

    def _search_graph(self, queries: FloatArray, k: int) -> list[tuple[FloatArray, IntArray]]:
        """Ask the approximate engine for rows, and score them as the exact engine does."""
        graph = self._graph()
        graph.expansion_search = max(graph.expansion_search, k)
        matches = graph.search(l2_normalize(queries) if self.info.similarity == "cosine" else queries, k)
        keys = np.asarray(matches.keys).reshape(len(queries), -1).astype(np.int64)
        counts = np.broadcast_to(getattr(matches, "counts", keys.shape[1]), len(queries))
        results = []
        for query, (row_keys, count) in enumerate(zip(keys, counts, strict=True)):
            rows = np.unique(row_keys[:count])
            scores = self._similarities(queries, np.full(len(rows), query), rows, self.info.similarity)
            order = np.lexsort((rows, -scores))
            results.append((scores[order], rows[order]))
        return results

    def _graph(self) -> Any:
        """Open the graph of the approximate engine; build it if the index has none."""
        try:
            usearch = importlib.import_module("usearch.index")
        except ImportError:
            raise MissingExtra("usearch", "search", "the search engine 'usearch'") from None
        similarity = self.info.similarity
        if similarity not in _USEARCH_METRICS:
            raise ConfigError(f"engine: usearch does not compare by {similarity}; use --engine exact")
        path = self.folder / "usearch.index"
        try:
            graph = usearch.Index.restore(str(path), view=True) if path.exists() else None
        except (RuntimeError, ValueError):
            graph = None
        if graph is not None and (len(graph), graph.ndim) == (self.info.num_rows, self.info.dim):
            return graph
        is_cosine = similarity == "cosine"
        dtype = "f16" if is_cosine else "f32"
        graph = usearch.Index(ndim=self.info.dim, metric=_USEARCH_METRICS[similarity], dtype=dtype)
        for first in range(0, self.info.num_rows, BLOCK_ROWS):
            block = self._block(first, BLOCK_ROWS) if is_cosine else self.vectors[first : first + BLOCK_ROWS]
            graph.add(np.arange(first, first + len(block)), np.asarray(block, dtype=np.float32))
        part = unique_part_of(path)
        try:
            with report_write_errors(path, "--index"):
                graph.save(str(part))
                if self._is_current():
                    part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return graph

    def _is_current(self) -> bool:
        """Tell whether the folder still holds this index: a graph of another one must not stand beside it."""
        try:
            values = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(values == self.info.to_json())


def _merge_best(
    scores: FloatArray, rows: IntArray, query: IntArray, new_scores: FloatArray, new_rows: IntArray, k: int
) -> tuple[FloatArray, IntArray]:
    """Return the best k results of each query, from its old ones (q, m) and from new ones.

    `query` (n,) says which query each new result belongs to.
    """
    queries = np.concatenate([np.repeat(np.arange(len(scores)), scores.shape[1]), query])
    all_scores = np.concatenate([scores.ravel(), new_scores])
    all_rows = np.concatenate([rows.ravel(), new_rows])
    order = np.lexsort((all_rows, -all_scores, queries))
    starts = np.searchsorted(queries[order], np.arange(len(scores)))
    best = order[np.arange(len(order)) - starts[queries[order]] < k]
    return all_scores[best].reshape(-1, k), all_rows[best].reshape(-1, k)


class _BestPairs:
    """The best pairs so far, at most `max_pairs`, and the count of all.

    Args:
        threshold: least cosine.
        max_pairs: how many are kept.
        margin: how wrong a product may be.
        exact_cosines: the scores of rows with rows.
    """

    def __init__(
        self,
        threshold: float,
        max_pairs: int,
        margin: float,
        exact_cosines: Callable[[IntArray, IntArray], FloatArray],
    ) -> None:
        self._threshold = threshold
        self._max_pairs = max_pairs
        self._margin = margin
        self._exact_cosines = exact_cosines
        # a product between these two does not tell on which side of the threshold the cosine is
        self._low, self._high = np.float32(threshold - margin), np.float32(threshold + margin)
        self._total = 0
        self._scores = np.empty(0, dtype=np.float32)
        self._rows = np.empty((2, 0), dtype=np.int64)

    def add(self, products: FloatArray, first: int, second: int) -> None:
        """Add a tile (n, m) of products, of the rows from `first` on with those from `second` on."""
        left, right = np.nonzero((products >= self._low) & (products < self._high))
        self._total += int(np.count_nonzero(products >= self._high))
        exact = self._exact_cosines(left + first, right + second)
        self._total += int(np.count_nonzero(exact.astype(np.float64) >= self._threshold))
        is_full = len(self._scores) == self._max_pairs
        floor = max(self._low, self._scores[-1] - np.float32(self._margin)) if is_full else self._low
        is_candidate = products >= floor
        if int(np.count_nonzero(is_candidate)) > self._max_pairs:
            least = np.partition(products[is_candidate], -self._max_pairs)[-self._max_pairs]
            is_candidate &= products >= least - np.float32(2 * self._margin)
        left, right = np.nonzero(is_candidate)
        if not len(left):
            return
        rows = np.stack([left + first, right + second])
        scores = self._exact_cosines(rows[0], rows[1])
        is_near = scores.astype(np.float64) >= self._threshold
        scores = np.concatenate([self._scores, scores[is_near]])
        rows = np.concatenate([self._rows, rows[:, is_near]], axis=1)
        best = np.lexsort((rows[1], rows[0], -scores))[: self._max_pairs]
        self._scores, self._rows = scores[best], rows[:, best]

    def result(self) -> NearDuplicates:
        pairs = [
            NearDuplicate(float(score), int(first), int(second))
            for score, first, second in zip(self._scores, *self._rows, strict=True)
        ]
        return NearDuplicates(pairs, self._total)
