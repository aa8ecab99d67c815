"""A folder in which a corpus can be searched by meaning: exact by default, so that what is found is what is nearest.

| file | what |
|---|---|
| index.json | format number, rows, width, form, the model and the corpus it was made of |
| vectors.npy | a vector of length 1 for each row, float16 or float32 |
| texts.jsonl | the row as it was, as JSON, one a line |
| offsets.npy | the byte of texts.jsonl at which each row begins |
| usearch.index | only where the approximate engine was asked for: its graph |

The score of two vectors is their cosine, computed in float64 and rounded to float32, so it depends on nothing but the two. Matrix
products in float32 only choose the candidates, with a margin that covers their rounding.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bertune.errors import ArtifactError, ConfigError, MissingExtra
from bertune.ship.arrow import json_text
from bertune.ship.vectors import Encode, Floats, Job, cosines, npy_header, to_disk, unit, write, write_json, writing
from bertune.types import JSON

FORMAT = 1
Places = npt.NDArray[np.int64]
Engine = Literal["exact", "usearch"]
ENGINES: tuple[Engine, ...] = ("exact", "usearch")
QUERIES = 256
"""Queries that are looked for together."""
ROWS = 8192
"""Rows of the corpus that are compared with them at once."""
TILE = 2048
"""Rows that are compared with as many others when pairs are looked for."""
_EXACT_AT_ONCE = 4096
"""Pairs of vectors whose cosine is computed in float64 at once."""
_RESULTS = 1 << 22
"""Results that are kept for all queries that are looked for together."""


class Hit(NamedTuple):
    """A row that was found."""

    row: int  # its place in the corpus, from 0
    score: float  # cosine, -1 to 1
    raw: JSON  # its columns


class Pair(NamedTuple):
    """Two rows that are near each other."""

    score: float  # cosine
    first: int
    second: int  # always after `first`


class Pairs(NamedTuple):
    """The nearest pairs of a corpus."""

    best: list[Pair]  # the highest score first, then the first row, then the second
    total: int  # pairs at or above the threshold, those that were not kept included


@dataclass(frozen=True)
class About:
    """What an index is made of."""

    rows: int
    width: int
    form: Literal["float32", "float16"]
    model: str
    """Fingerprint of the model: vectors of two models cannot be compared."""
    source: JSON
    """Which corpus, and which settings."""

    def described(self) -> JSON:
        """Return what index.json holds."""
        return dict(json.loads(json.dumps({"format": FORMAT, **asdict(self)}, default=str)))


def build_index(
    folder: Path,
    about: About,
    rows: Iterable[tuple[JSON, str]],
    encode: Encode,
    tell_progress: Callable[[int], None] = lambda _: None,
    *,
    anew: bool = False,
) -> int:
    """Make an index; go on where an earlier call for the same was stopped. A finished index of something else is replaced.

    Args:
        folder: where; made if it is not there.
        about: what it is made of.
        rows: for each row of the corpus in order its columns, and its text.
        encode: is given a chunk of texts at most.
        tell_progress: called with the rows that are done.
        anew: whether to take over nothing of what is there.

    Returns:
        How many rows were there already; all of them where the index is finished.

    Raises:
        ConfigError: the form is not for search, the folder cannot be written, or something else is begun in it.
        DataError: there are more or fewer rows than counted.
    """
    if about.form not in {"float32", "float16"}:
        raise ConfigError(f"form: {about.form!r} is not for an index; use float32 or float16")
    identity = {"model": about.model, "source": about.source, "for": "search"}
    job = Job(folder / "vectors.npy", about.rows, about.width, about.form, identity)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if anew:
            job.record.unlink(missing_ok=True)
            _remove_finished(folder)
        elif _is_finished(folder, about):
            job.record.unlink(missing_ok=True)
            tell_progress(about.rows)
            return about.rows
        elif _read_json(folder / "index.json") != about.described() or job.path.exists():
            _remove_finished(folder)
    return write(job, _with_texts_kept(folder, about, rows), lambda texts: unit(encode(texts)), tell_progress)


def _is_finished(folder: Path, about: About) -> bool:
    try:
        return open_index(folder, about.model).about.described() == about.described()
    except ArtifactError:
        return False


def _remove_finished(folder: Path) -> None:
    for name in ("index.json", "vectors.npy", "usearch.index"):
        (folder / name).unlink(missing_ok=True)


def _with_texts_kept(folder: Path, about: About, rows: Iterable[tuple[JSON, str]]) -> Iterator[tuple[JSON, str]]:
    """Pass rows on; when the last was asked for, texts.jsonl, offsets.npy and index.json are there.

    The vectors get their name after that, so a folder with vectors.npy and index.json has everything.
    """
    texts, offsets = folder / "texts.jsonl", folder / "offsets.npy"
    parts = [path.with_name(path.name + ".part") for path in (texts, offsets)]
    with writing(texts):
        of_texts, of_offsets = parts[0].open("wb"), parts[1].open("wb")
    with of_texts, of_offsets:
        of_offsets.write(npy_header((about.rows,), np.int64))
        place = count = 0
        for raw, text in rows:
            line = json_text(raw).encode() + b"\n"
            with writing(texts):
                of_texts.write(line)
                of_offsets.write(np.int64(place).tobytes())
            place += len(line)
            count += 1
            yield raw, text
    if count == about.rows:
        with writing(texts):
            for part, path in zip(parts, (texts, offsets), strict=True):
                to_disk(part)
                part.replace(path)
            write_json(folder / "index.json", about.described())


def open_index(folder: str | Path, model: str) -> Index:
    """Open an index.

    Args:
        folder: what `build_index` made.
        model: fingerprint of the model that queries come from.

    Raises:
        ArtifactError: it is missing, unfinished, damaged, of another format, or made by another model.
    """
    place = Path(folder)
    found = _read_json(place / "index.json")
    unfinished = (place / "vectors.npy.part.json").exists() and not (found is not None and (place / "vectors.npy").exists())
    if unfinished:
        raise ArtifactError(f"{place}: the index is not finished; run the command that was making it again, it goes on where it stopped")
    if found is None:
        reason = "holds no index.json" if place.is_dir() else "no such folder"
        raise ArtifactError(f"{place}: {reason}; give a folder that holds an index")
    if found.get("format") != FORMAT:
        raise ArtifactError(f"{place}: has format {found.get('format')!r}, this bertune reads format {FORMAT}; make the index anew")
    try:
        about = About(**{name: value for name, value in found.items() if name != "format"})
        vectors = np.load(place / "vectors.npy", mmap_mode="r")
        offsets = np.load(place / "offsets.npy", mmap_mode="r")
        length = (place / "texts.jsonl").stat().st_size
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ArtifactError(f"{place}: damaged: {' '.join(str(error).split())}; make the index anew") from None
    if about.model != model:
        raise ArtifactError(f"{place}: was made by another model (has {about.model}, this is {model}); make the index anew")
    fits = vectors.shape == (about.rows, about.width) and vectors.dtype == about.form and offsets.shape == (about.rows,)
    if not fits or not about.rows or not 0 <= offsets[-1] < length:
        raise ArtifactError(f"{place}: damaged: its files do not belong together; make the index anew")
    return Index(place, about, vectors, offsets)


def _read_json(path: Path) -> JSON | None:
    """Return what a JSON file holds, an empty object if that is nothing, None if there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Index:
    """An opened index. Nothing of it is held in memory but what a question needs."""

    folder: Path
    about: About
    vectors: npt.NDArray[Any]
    """(rows, width), mapped from disk."""
    offsets: Places
    """(rows,), mapped from disk."""

    def search(self, queries: Floats, k: int = 10, engine: Engine = "exact") -> list[list[Hit]]:
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
        raws = self.raws(int(row) for _, rows in found for row in rows)
        return [[Hit(int(row), float(score), raws[int(row)]) for score, row in zip(*one, strict=True)] for one in found]

    def nearest(self, queries: Floats, k: int = 10, engine: Engine = "exact") -> list[tuple[Floats, Places]]:
        """Do what `search` does, and give for each query scores and rows alone."""
        if queries.ndim != 2 or queries.shape[1] != self.about.width:
            raise ConfigError(f"queries: expected (number, {self.about.width}), got {queries.shape}")
        if not np.isfinite(queries).all():
            raise ConfigError(f"queries: query {int((~np.isfinite(queries).all(axis=1)).argmax()) + 1} holds numbers that are not finite")
        if k < 1:
            raise ConfigError(f"k: got {k}, must be at least 1")
        if engine not in ENGINES:
            raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
        k = min(k, self.about.rows)
        at_once = max(1, min(QUERIES, _RESULTS // k))
        look = self._look_at_all if engine == "exact" else self._walk_graph
        return [one for first in range(0, len(queries), at_once) for one in look(queries[first : first + at_once], k)]

    def raws(self, rows: Iterable[int]) -> dict[int, JSON]:
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
            raise ArtifactError(f"{path}: row {row + 1} cannot be read: {' '.join(str(error).split())}; make the index anew") from None
        return found

    def pairs(self, threshold: float, most: int, tell_progress: Callable[[int], None] = lambda _: None) -> Pairs:
        """Find the pairs of rows whose cosine is at least the threshold; compares all with all.

        Args:
            threshold: -1 to 1.
            most: how many pairs are kept; memory grows with this alone.
            tell_progress: called with the rows that were compared with all rows after them.

        Raises:
            ConfigError: the threshold is no cosine, or `most` is less than 1.
        """
        if not -1 <= threshold <= 1:
            raise ConfigError(f"threshold: got {threshold}, must be a cosine, -1 to 1")
        if most < 1:
            raise ConfigError(f"most: got {most}, must be at least 1")
        kept = _KeptPairs(threshold, most, self._margin, lambda one, two: self._cosines(self.vectors, one, two))
        for first in range(0, self.about.rows, TILE):
            left = self._block(first, TILE)
            for second in range(first, self.about.rows, TILE):
                rough = left @ self._block(second, TILE).T
                if first == second:
                    rough[np.tril_indices(len(rough))] = -np.inf
                kept.take(rough, first, second)
            tell_progress(min(first + TILE, self.about.rows))
        return kept.result()

    @property
    def _margin(self) -> float:
        """Return more than a float32 product of two vectors of length 1, made of rounded numbers, can be wrong."""
        return (self.about.width + 16) * 2.0**-23

    def _block(self, first: int, count: int) -> Floats:
        """Return rows as float32 (n, width) with length 1, near enough to choose candidates."""
        block = np.asarray(self.vectors[first : first + count], dtype=np.float32)
        if self.about.form == "float16":
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))[:, None]
            block /= np.where(lengths, lengths, 1)
        return block

    def _cosines(self, left: npt.NDArray[Any], left_rows: Places, rows: Places) -> Floats:
        """Return the score of some rows of `left` (n, width) with as many rows of the corpus."""
        result = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), _EXACT_AT_ONCE):
            these = slice(first, first + _EXACT_AT_ONCE)
            result[these] = cosines(left[left_rows[these]], self.vectors[rows[these]])
        return result

    def _look_at_all(self, queries: Floats, k: int) -> list[tuple[Floats, Places]]:
        """Compare with every row; keep the best k of the blocks so far."""
        sides = unit(queries)
        scores, rows = np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
        for first in range(0, self.about.rows, ROWS):
            rough = sides @ self._block(first, ROWS).T
            seen = first + rough.shape[1]
            if scores.shape[1] == k:
                floor = scores[:, -1] - self._margin
            elif rough.shape[1] > k:  # the k best of this block alone beat what is further below them than both can be wrong
                floor = np.partition(rough, -k, axis=1)[:, -k] - 2 * self._margin
            else:
                floor = np.full(len(queries), -np.inf)
            query, place = np.nonzero(rough >= floor[:, None])
            if len(query):
                new = self._cosines(queries, query, first + place)
                scores, rows = _best_of_each(scores, rows, query, new, first + place, min(k, seen))
        return list(zip(scores, rows, strict=True))

    def _walk_graph(self, queries: Floats, k: int) -> list[tuple[Floats, Places]]:
        """Ask the approximate engine for rows; score them as the exact one does."""
        graph = self._graph()
        graph.expansion_search = max(graph.expansion_search, k)
        matches = graph.search(unit(queries), k)
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
        if graph is not None and (len(graph), graph.ndim) == (self.about.rows, self.about.width):
            return graph
        graph = usearch.Index(ndim=self.about.width, metric="cos", dtype="f16")
        for first in range(0, self.about.rows, ROWS):
            block = self._block(first, ROWS)
            graph.add(np.arange(first, first + len(block)), block)
        part = path.with_name(path.name + ".part")
        with writing(path):
            graph.save(str(part))
            part.replace(path)
        return graph


def _best_of_each(scores: Floats, rows: Places, query: Places, new_scores: Floats, new_rows: Places, k: int) -> tuple[Floats, Places]:
    """Return the best k of what each query had, (q, m), and of what is new; `query` says whose that is."""
    whose = np.concatenate([np.repeat(np.arange(len(scores)), scores.shape[1]), query])
    score, row = np.concatenate([scores.ravel(), new_scores]), np.concatenate([rows.ravel(), new_rows])
    order = np.lexsort((row, -score, whose))
    begins = np.searchsorted(whose[order], np.arange(len(scores)))
    kept = order[np.arange(len(order)) - begins[whose[order]] < k]
    return score[kept].reshape(-1, k), row[kept].reshape(-1, k)


class _KeptPairs:
    """The best pairs so far, at most `most`, and the count of all."""

    def __init__(self, threshold: float, most: int, margin: float, exact: Callable[[Places, Places], Floats]) -> None:
        self._threshold = threshold
        self._most = most
        self._margin = margin
        self._exact = exact  # the scores of rows with rows
        self._low, self._high = np.float32(threshold - margin), np.float32(threshold + margin)  # between them a product cannot tell
        self._total = 0
        self._scores = np.empty(0, dtype=np.float32)
        self._rows = np.empty((2, 0), dtype=np.int64)

    def take(self, rough: Floats, first: int, second: int) -> None:
        """Take a tile (n, m) of products; row and column 0 are rows `first` and `second` of the corpus."""
        one, two = np.nonzero((rough >= self._low) & (rough < self._high))
        self._total += int(np.count_nonzero(rough >= self._high))
        self._total += int(np.count_nonzero(self._exact(one + first, two + second).astype(np.float64) >= self._threshold))
        full = len(self._scores) == self._most
        floor = max(self._low, self._scores[-1] - np.float32(self._margin)) if full else self._low
        near = rough >= floor
        count = int(np.count_nonzero(near))
        if count > self._most:
            near &= rough >= np.partition(rough[near], -self._most)[-self._most] - np.float32(2 * self._margin)
        one, two = np.nonzero(near)
        if not len(one):
            return
        rows = np.stack([one + first, two + second])
        scores = self._exact(rows[0], rows[1])
        enough = scores.astype(np.float64) >= self._threshold
        scores, rows = np.concatenate([self._scores, scores[enough]]), np.concatenate([self._rows, rows[:, enough]], axis=1)
        best = np.lexsort((rows[1], rows[0], -scores))[: self._most]
        self._scores, self._rows = scores[best], rows[:, best]

    def result(self) -> Pairs:
        best = [Pair(float(score), int(a), int(b)) for score, a, b in zip(self._scores, *self._rows, strict=True)]
        return Pairs(best, self._total)
