"""Search in an index: nearest rows of a query, and near-duplicates."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.errors import ArtifactError, ConfigError, MissingExtra
from bertune.inference.vectors import FloatArray, cosines, l2_normalize
from bertune.retrieval.writers import report_write_errors
from bertune.types import JSON

FORMAT_VERSION = 1
IntArray = npt.NDArray[np.int64]
Engine = Literal["exact", "usearch"]
ENGINES: tuple[Engine, ...] = ("exact", "usearch")
QUERY_BATCH_SIZE = 256
"""Queries that are looked for together."""
BLOCK_ROWS = 8192
"""Rows of the corpus that are compared with them at once."""
TILE_ROWS = 2048
"""Rows that are compared with as many others when pairs are looked for."""
INDEX_KEYS = {
    "num_rows": "rows",
    "dim": "width",
    "dtype": "form",
    "model_fingerprint": "model",
    "source": "source",
}
"""Fields of `IndexInfo`, and their keys in index.json."""
_EXACT_AT_ONCE = 4096
"""Pairs of vectors whose cosine is computed in float64 at once."""
_RESULTS = 1 << 22
"""Results that are kept for all queries that are looked for together."""


class Hit(NamedTuple):
    """A row that was found."""

    row: int  # its place in the corpus, from 0
    score: float  # cosine, -1 to 1
    raw: JSON  # its columns


class NearDuplicate(NamedTuple):
    """Two rows that are near each other."""

    score: float  # cosine
    first: int
    second: int  # always after `first`


class NearDuplicates(NamedTuple):
    """The nearest pairs of a corpus."""

    pairs: list[NearDuplicate]  # the highest score first, then the first row, then the second
    total: int  # pairs at or above the threshold, those that were not kept included


@dataclass(frozen=True)
class IndexInfo:
    """What an index is made of."""

    num_rows: int
    dim: int
    dtype: Literal["float32", "float16"]
    model_fingerprint: str
    """Fingerprint of the model: vectors of two models cannot be compared."""
    source: JSON
    """Which corpus, and which settings."""

    def to_json(self) -> JSON:
        """Return what index.json holds."""
        return dict(
            json.loads(
                json.dumps(
                    {"format": FORMAT_VERSION, **{INDEX_KEYS[k]: v for k, v in asdict(self).items()}},
                    default=str,
                )
            )
        )


@dataclass(frozen=True)
class Index:
    """An opened index. Nothing of it is held in memory but what a question needs."""

    folder: Path
    info: IndexInfo
    vectors: npt.NDArray[Any]
    """(rows, width), mapped from disk."""
    offsets: IntArray
    """(rows,), mapped from disk."""

    def search(self, queries: FloatArray, k: int = 10, engine: Engine = "exact") -> list[list[Hit]]:
        """Find the rows nearest to each query.

        Args:
            queries: (q, width), of any length but zero.
            k: how many for each query; all rows, where there are not that many.
            engine: "exact" compares with every row; "usearch" walks a graph, which is made at the first call and may miss some.

        Returns:
            For each query the best row first; of equal scores the earlier row first.

        Raises:
            ConfigError: the queries do not fit, `k` is less than 1, or there is no such engine.
            MissingExtra: the engine is not installed.
            ArtifactError: a row cannot be read.
        """
        found = self.nearest(queries, k, engine)
        raws = self.read_rows(int(row) for _, rows in found for row in rows)
        return [
            [Hit(int(row), float(score), raws[int(row)]) for score, row in zip(*one, strict=True)]
            for one in found
        ]

    def nearest(
        self, queries: FloatArray, k: int = 10, engine: Engine = "exact"
    ) -> list[tuple[FloatArray, IntArray]]:
        """Do what `search` does, and give for each query scores and rows alone."""
        if queries.ndim != 2 or queries.shape[1] != self.info.dim:
            raise ConfigError(f"queries: expected (number, {self.info.dim}), got {queries.shape}")
        if not np.isfinite(queries).all():
            raise ConfigError(
                f"queries: query {int((~np.isfinite(queries).all(axis=1)).argmax()) + 1} holds numbers that are not finite"
            )
        if k < 1:
            raise ConfigError(f"k: got {k}, must be at least 1")
        if engine not in ENGINES:
            raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
        k = min(k, self.info.num_rows)
        at_once = max(1, min(QUERY_BATCH_SIZE, _RESULTS // k))
        look = self._look_at_all if engine == "exact" else self._walk_graph
        return [
            one
            for first in range(0, len(queries), at_once)
            for one in look(queries[first : first + at_once], k)
        ]

    def read_rows(self, rows: Iterable[int]) -> dict[int, JSON]:
        """Read some rows of the corpus.

        Raises:
            ArtifactError: one cannot be read.
        """
        path = self.folder / "texts.jsonl"
        found = {}
        row = -1
        try:
            with path.open("rb") as file:
                for row in sorted(set(rows)):
                    file.seek(int(self.offsets[row]))
                    found[row] = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path}: row {row + 1} cannot be read: {' '.join(str(error).split())}; make the index anew"
            ) from None
        return found

    def near_duplicates(
        self, threshold: float, max_pairs: int, on_progress: Callable[[int], None] = lambda _: None
    ) -> NearDuplicates:
        """Find the pairs of rows whose cosine is at least the threshold; compares all with all.

        Args:
            threshold: -1 to 1.
            most: how many pairs are kept; memory grows with this alone.
            on_progress: called with the rows that were compared with all rows after them.

        Raises:
            ConfigError: the threshold is no cosine, or `max_pairs` is less than 1.
        """
        if not -1 <= threshold <= 1:
            raise ConfigError(f"threshold: got {threshold}, must be a cosine, -1 to 1")
        if max_pairs < 1:
            raise ConfigError(f"max_pairs: got {max_pairs}, must be at least 1")
        kept = _KeptPairs(
            threshold, max_pairs, self._margin, lambda one, two: self._cosines(self.vectors, one, two)
        )
        for first in range(0, self.info.num_rows, TILE_ROWS):
            left = self._block(first, TILE_ROWS)
            for second in range(first, self.info.num_rows, TILE_ROWS):
                rough = left @ self._block(second, TILE_ROWS).T
                if first == second:
                    rough[np.tril_indices(len(rough))] = -np.inf
                kept.take(rough, first, second)
            on_progress(min(first + TILE_ROWS, self.info.num_rows))
        return kept.result()

    @property
    def _margin(self) -> float:
        """Return more than a float32 product of two vectors of length 1, made of rounded numbers, can be wrong."""
        return (self.info.dim + 16) * 2.0**-23

    def _block(self, first: int, count: int) -> FloatArray:
        """Return rows as float32 (n, width) with length 1, near enough to choose candidates."""
        block = np.asarray(self.vectors[first : first + count], dtype=np.float32)
        if self.info.dtype == "float16":
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))[:, None]
            block /= np.where(lengths, lengths, 1)
        return block

    def _cosines(self, left: npt.NDArray[Any], left_rows: IntArray, rows: IntArray) -> FloatArray:
        """Return the score of some rows of `left` (n, width) with as many rows of the corpus."""
        result = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), _EXACT_AT_ONCE):
            these = slice(first, first + _EXACT_AT_ONCE)
            result[these] = cosines(left[left_rows[these]], self.vectors[rows[these]])
        return result

    def _look_at_all(self, queries: FloatArray, k: int) -> list[tuple[FloatArray, IntArray]]:
        """Compare with every row; keep the best k of the blocks so far."""
        sides = l2_normalize(queries)
        scores, rows = (
            np.empty((len(queries), 0), dtype=np.float32),
            np.empty((len(queries), 0), dtype=np.int64),
        )
        for first in range(0, self.info.num_rows, BLOCK_ROWS):
            rough = sides @ self._block(first, BLOCK_ROWS).T
            seen = first + rough.shape[1]
            if scores.shape[1] == k:
                floor = scores[:, -1] - self._margin
            elif (
                rough.shape[1] > k
            ):  # the k best of this block alone beat what is further below them than both can be wrong
                floor = np.partition(rough, -k, axis=1)[:, -k] - 2 * self._margin
            else:
                floor = np.full(len(queries), -np.inf)
            query, place = np.nonzero(rough >= floor[:, None])
            if len(query):
                new = self._cosines(queries, query, first + place)
                scores, rows = _best_of_each(scores, rows, query, new, first + place, min(k, seen))
        return list(zip(scores, rows, strict=True))

    def _walk_graph(self, queries: FloatArray, k: int) -> list[tuple[FloatArray, IntArray]]:
        """Ask the approximate engine for rows; score them as the exact one does."""
        graph = self._graph()
        graph.expansion_search = max(graph.expansion_search, k)
        matches = graph.search(l2_normalize(queries), k)
        keys = np.asarray(matches.keys).reshape(len(queries), -1).astype(np.int64)
        counts = np.broadcast_to(getattr(matches, "counts", keys.shape[1]), len(queries))
        found = []
        for query, (row_keys, count) in enumerate(zip(keys, counts, strict=True)):
            rows = np.unique(row_keys[:count])
            scores = self._cosines(queries, np.full(len(rows), query), rows)
            order = np.lexsort((rows, -scores))
            found.append((scores[order], rows[order]))
        return found

    def _graph(self) -> Any:
        """Open the graph of the approximate engine; make it if it is not there."""
        try:
            usearch = importlib.import_module("usearch.index")
        except ImportError:
            raise MissingExtra("usearch", "search", "the search engine 'usearch'") from None
        path = self.folder / "usearch.index"
        try:
            graph = usearch.Index.restore(str(path), view=True) if path.exists() else None
        except (RuntimeError, ValueError):
            graph = None
        if graph is not None and (len(graph), graph.ndim) == (self.info.num_rows, self.info.dim):
            return graph
        graph = usearch.Index(ndim=self.info.dim, metric="cos", dtype="f16")
        for first in range(0, self.info.num_rows, BLOCK_ROWS):
            block = self._block(first, BLOCK_ROWS)
            graph.add(np.arange(first, first + len(block)), block)
        part = path.with_name(path.name + ".part")
        with report_write_errors(path):
            graph.save(str(part))
            part.replace(path)
        return graph


def _best_of_each(
    scores: FloatArray, rows: IntArray, query: IntArray, new_scores: FloatArray, new_rows: IntArray, k: int
) -> tuple[FloatArray, IntArray]:
    """Return the best k of what each query had, (q, m), and of what is new; `query` says whose that is."""
    whose = np.concatenate([np.repeat(np.arange(len(scores)), scores.shape[1]), query])
    score, row = np.concatenate([scores.ravel(), new_scores]), np.concatenate([rows.ravel(), new_rows])
    order = np.lexsort((row, -score, whose))
    begins = np.searchsorted(whose[order], np.arange(len(scores)))
    kept = order[np.arange(len(order)) - begins[whose[order]] < k]
    return score[kept].reshape(-1, k), row[kept].reshape(-1, k)


class _KeptPairs:
    """The best pairs so far, at most `max_pairs`, and the count of all."""

    def __init__(
        self,
        threshold: float,
        max_pairs: int,
        margin: float,
        exact: Callable[[IntArray, IntArray], FloatArray],
    ) -> None:
        self._threshold = threshold
        self._most = max_pairs
        self._margin = margin
        self._exact = exact  # the scores of rows with rows
        self._low, self._high = (
            np.float32(threshold - margin),
            np.float32(threshold + margin),
        )  # between them a product cannot tell
        self._total = 0
        self._scores = np.empty(0, dtype=np.float32)
        self._rows = np.empty((2, 0), dtype=np.int64)

    def take(self, rough: FloatArray, first: int, second: int) -> None:
        """Take a tile (n, m) of products; row and column 0 are rows `first` and `second` of the corpus."""
        one, two = np.nonzero((rough >= self._low) & (rough < self._high))
        self._total += int(np.count_nonzero(rough >= self._high))
        self._total += int(
            np.count_nonzero(self._exact(one + first, two + second).astype(np.float64) >= self._threshold)
        )
        full = len(self._scores) == self._most
        floor = max(self._low, self._scores[-1] - np.float32(self._margin)) if full else self._low
        near = rough >= floor
        count = int(np.count_nonzero(near))
        if count > self._most:
            near &= rough >= np.partition(rough[near], -self._most)[-self._most] - np.float32(
                2 * self._margin
            )
        one, two = np.nonzero(near)
        if not len(one):
            return
        rows = np.stack([one + first, two + second])
        scores = self._exact(rows[0], rows[1])
        enough = scores.astype(np.float64) >= self._threshold
        scores, rows = (
            np.concatenate([self._scores, scores[enough]]),
            np.concatenate([self._rows, rows[:, enough]], axis=1),
        )
        best = np.lexsort((rows[1], rows[0], -scores))[: self._most]
        self._scores, self._rows = scores[best], rows[:, best]

    def result(self) -> NearDuplicates:
        best = [
            NearDuplicate(float(score), int(a), int(b))
            for score, a, b in zip(self._scores, *self._rows, strict=True)
        ]
        return NearDuplicates(best, self._total)
