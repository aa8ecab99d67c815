"""A corpus of texts to a file of vectors: in memory that does not grow with the corpus, and resumable after a kill at any moment.

While `PATH` is being made there are `PATH.part` (the vectors so far) and `PATH.part.json` (whose they are, and how many rows are
safe on disk). A chunk is on disk before it is recorded, so what is recorded is there. `PATH` appears when all of it is written.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError, DataError
from bertune.inference.vectors import NUMPY_DTYPES, VECTOR_DTYPES, FloatArray, VectorDtype, quantize_vectors
from bertune.inference.writers import free_column_names
from bertune.retrieval.arrow_columns import ArrowColumns, json_text
from bertune.types import JSON

EmbedFn = Callable[[list[str]], FloatArray]
"""Texts to their vectors (n, width)."""
CHUNK_ROWS = 4 * 4096
"""Rows that are encoded, written and recorded together; a kill loses no more than these."""


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors that is to be made."""

    path: Path
    """Its name, which ends in .npy or .parquet."""
    num_rows: int
    """Rows of the corpus, counted beforehand."""
    dim: int
    """Numbers of a vector, as the model gives it."""
    dtype: VectorDtype
    identity: JSON
    """Which model, corpus and settings make it: what is begun under another identity is not gone on with."""

    @property
    def partial_path(self) -> Path:
        """Return where the vectors are until all are there; a folder for parquet."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def progress_path(self) -> Path:
        """Return the file that says how far it is."""
        return self.path.with_name(self.path.name + ".part.json")

    @property
    def stored_dim(self) -> int:
        """Return the numbers of a vector in the file."""
        return -(-self.dim // 8) if self.dtype == "binary" else self.dim

    def to_json(self) -> JSON:
        """Return everything that decides the bytes of the file, as JSON gives it back."""
        whole = {
            "identity": self.identity,
            "count": self.num_rows,
            "width": self.dim,
            "form": self.dtype,
            "chunk": CHUNK_ROWS,
        }
        return dict(json.loads(json.dumps(whole, default=str)))


def write_vectors(
    job: VectorFile,
    rows: Iterable[tuple[JSON, str]],
    encode: EmbedFn,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Make a file of vectors; go on where an earlier call with the same identity was stopped.

    Args:
        job: what is made.
        rows: for each row of the corpus in order its columns, which only parquet keeps, and its text.
        encode: is given at most `CHUNK_ROWS` texts at once, equal ones of a chunk once.
        on_progress: called with the rows that are done.

    Returns:
        How many rows were there already.

    Raises:
        ConfigError: the name tells no format, the file cannot be written, or what is begun there is something else.
        DataError: there are more or fewer rows than counted, or one that cannot be written.
    """
    part = _part_of(job)
    with report_write_errors(job.path):
        before = _taken_over(job, part)
    on_progress(before)
    if part.released:
        return before
    coming = iter(rows)
    if sum(1 for _ in itertools.islice(coming, before)) < before:
        raise _miscounted(job, f"fewer than the {before} that are done already")
    for first in range(before, job.num_rows, CHUNK_ROWS):
        chunk = list(itertools.islice(coming, min(CHUNK_ROWS, job.num_rows - first)))
        done = first + len(chunk)
        if done < min(first + CHUNK_ROWS, job.num_rows):
            raise _miscounted(job, f"only {done}")
        vectors = _encoded(job, encode, [text for _, text in chunk], first)
        with report_write_errors(job.path):
            part.put(first, [raw for raw, _ in chunk], vectors)
            _record(job, done)
        on_progress(done)
    if next(coming, None) is not None:
        raise _miscounted(job, "more")
    with report_write_errors(job.path):
        part.seal()
        _record(job, job.num_rows, sealed=True)
        _release(job, part)
    return before


def npy_header(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bytes:
    """Return how a .npy file begins."""
    header = io.BytesIO()
    described = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


@contextmanager
def report_write_errors(path: Path) -> Iterator[None]:
    """Say in one line that a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None


def write_json(path: Path, value: JSON) -> None:
    """Write a JSON file in one step: a reader finds the old one or the new one whole."""
    aside = path.with_name(path.name + ".new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(json_text(value, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class _Part:
    """The unfinished file in its format."""

    def __init__(self, job: VectorFile, whole: Path) -> None:
        self.job = job
        self.whole = whole  # what gets the final name
        self.released = False  # whether it has it

    def holds(self, rows: int) -> bool:
        """Return whether the first rows are there; make ready to go on after them."""
        raise NotImplementedError

    def begin(self) -> None:
        """Make ready for the first row."""
        raise NotImplementedError

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        """Bring a chunk that begins with row `first` to disk."""
        raise NotImplementedError

    def seal(self) -> None:
        """Make `whole` of what was put, on disk."""

    def clear(self) -> None:
        """Remove what is left when `whole` has its name."""


def _part_of(job: VectorFile) -> _Part:
    kinds: dict[str, Callable[[VectorFile], _Part]] = {".npy": _Npy, ".parquet": _Parquet}
    kind = kinds.get(job.path.suffix.lower())
    if kind is None:
        raise ConfigError(f"-o {job.path}: vectors are written to names that end in {' or '.join(kinds)}")
    if job.dtype not in VECTOR_DTYPES:
        raise ConfigError(f"dtype: {job.dtype!r} is none of {', '.join(VECTOR_DTYPES)}")
    if job.path.is_dir():
        raise ConfigError(f"-o {job.path}: is a folder; give the name of a file")
    if job.num_rows < 1:
        raise DataError(f"-o {job.path}: there are no rows to write")
    return kind(job)


def _taken_over(job: VectorFile, part: _Part) -> int:
    """Return how many rows an earlier call has left; else begin."""
    try:
        found = json.loads(job.progress_path.read_text(encoding="utf-8"))
        rows, sealed = int(found.pop("rows")), bool(found.pop("sealed"))
    except FileNotFoundError:
        found, rows, sealed = job.to_json(), 0, False
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"-o {job.path}: {job.progress_path} is damaged; remove it and {job.partial_path}"
        ) from None
    if rows and found != job.to_json():
        raise ConfigError(
            f"-o {job.path}: {job.partial_path} is the beginning of something else ({_difference(found, job.to_json())}); "
            f"to start anew, remove {job.partial_path} and {job.progress_path}"
        )
    if sealed and (part.whole.exists() or job.path.exists()):
        _release(job, part)
        return job.num_rows
    if rows and part.holds(rows):
        return rows
    _record(job, 0)
    part.begin()
    return 0


def _difference(found: JSON, wanted: JSON) -> str:
    """Name the first value that differs.

    >>> _difference({"form": "int8", "identity": {"model": "a"}}, {"form": "int8", "identity": {"model": "b"}})
    "model: 'a' there, 'b' here"
    """
    identity = found.get("identity")
    there = {**found, **(identity if isinstance(identity, dict) else {})}
    here = {**wanted, **wanted["identity"]}
    names = [name for name in {**here, **there} if name != "identity" and there.get(name) != here.get(name)]
    return (
        f"{names[0]}: {there.get(names[0])!r} there, {here.get(names[0])!r} here"
        if names
        else "another identity"
    )


def _record(job: VectorFile, rows: int, *, sealed: bool = False) -> None:
    write_json(job.progress_path, {**job.to_json(), "rows": rows, "sealed": sealed})


def _release(job: VectorFile, part: _Part) -> None:
    """Give a whole file its name."""
    if part.whole.exists():
        part.whole.replace(job.path)
    part.clear()
    part.released = True
    job.progress_path.unlink(missing_ok=True)


def _miscounted(job: VectorFile, found: str) -> DataError:
    return DataError(
        f"-o {job.path}: {job.num_rows} rows were counted, and then there were {found}; run it again on a file that stays as it is"
    )


def _encoded(job: VectorFile, encode: EmbedFn, texts: list[str], first: int) -> npt.NDArray[Any]:
    """Encode the different texts of a chunk; return for each row what is stored."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors = np.asarray(encode(list(places)), dtype=np.float32)
    if vectors.shape != (len(places), job.dim):
        raise ConfigError(
            f"encode: {len(places)} texts became {vectors.shape}, expected {(len(places), job.dim)}"
        )

    def check(numbers: npt.NDArray[Any], why: str) -> None:
        bad = ~np.isfinite(numbers).all(axis=1)
        if bad.any():
            row = first + texts.index(list(places)[int(bad.argmax())])
            raise DataError(f"-o {job.path}: row {row + 1}: {why}")

    check(vectors, "the model gives a vector that is not finite; look at its weights and at the text")
    stored = quantize_vectors(vectors, job.dtype)
    check(stored, "the vector holds numbers above 65504, which float16 cannot hold; write float32")
    return stored[[places[text] for text in texts]]


class _Npy(_Part):
    """A .npy file, its header first. Written, not mapped: on a full disk a mapped file kills the process."""

    def __init__(self, job: VectorFile) -> None:
        super().__init__(job, job.partial_path)
        dtype = np.dtype(NUMPY_DTYPES[job.dtype])
        self._header = npy_header((job.num_rows, job.stored_dim), dtype)
        self._row_bytes = job.stored_dim * dtype.itemsize

    def _end(self, rows: int) -> int:
        return len(self._header) + rows * self._row_bytes

    def holds(self, rows: int) -> bool:
        if not self.whole.exists():
            return False
        with self.whole.open("rb") as file:
            return file.read(len(self._header)) == self._header and file.seek(0, os.SEEK_END) >= self._end(
                rows
            )

    def begin(self) -> None:
        with self.whole.open("wb") as file:
            file.write(self._header)

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        with self.whole.open("r+b") as file:
            file.seek(self._end(first))
            file.write(np.ascontiguousarray(vectors).data)
            file.flush()
            os.fsync(file.fileno())


class _Parquet(_Part):
    """A folder with a parquet file for each chunk, since parquet cannot be appended to; joined at the end."""

    def __init__(self, job: VectorFile) -> None:
        super().__init__(job, job.partial_path / "joined.parquet")
        self._columns = ArrowColumns()
        self._embedding = ""

    def _chunk(self, first: int) -> Path:
        return self.job.partial_path / f"{first // CHUNK_ROWS:06}.parquet"

    def holds(self, rows: int) -> bool:
        import pyarrow.parquet as pq

        if not all(self._chunk(first).exists() for first in range(0, rows, CHUNK_ROWS)):
            return False
        with self._readable():
            *fields, embedding = pq.read_schema(self._chunk(rows - 1))
        self._columns = ArrowColumns(fields)
        self._embedding = embedding.name
        return True

    def begin(self) -> None:
        self.job.partial_path.mkdir(exist_ok=True)
        self._remove_files()
        foreign = next(self.job.partial_path.iterdir(), None)
        if foreign:
            raise ConfigError(f"-o {self.job.path}: {foreign} is in the way and not bertune's; move it away")

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def location_of(row: int) -> str:
            return f"-o {self.job.path}: row {first + row + 1}"

        names = dict.fromkeys([*self._columns.fields, *(name for raw in raws for name in raw)])
        self._embedding = self._embedding or free_column_names(names, ["embedding"])["embedding"]
        if self._embedding in names:
            row = next(n for n, raw in enumerate(raws) if self._embedding in raw)
            raise DataError(
                f"{location_of(row)}: has a column {self._embedding!r}, which the rows before it lack; rename it"
            )
        columns = [
            self._columns.to_array(name, [raw.get(name) for raw in raws], location_of) for name in names
        ]
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        pq.write_table(pa.table([*columns, embedding], self._schema(embedding.type)), self._chunk(first))
        to_disk(self._chunk(first))

    def _schema(self, of_embedding: Any) -> Any:
        import pyarrow as pa

        return pa.schema([*self._columns.fields.values(), pa.field(self._embedding, of_embedding)])

    def seal(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._readable():
            schema = self._schema(pq.read_schema(self._chunk(0)).field(self._embedding).type)
            with pq.ParquetWriter(self.whole, schema) as writer:
                for first in range(0, self.job.num_rows, CHUNK_ROWS):
                    with pq.ParquetFile(self._chunk(first)) as file:
                        chunk = file.read()
                    columns = [self._columns.cast_column(name, chunk) for name in self._columns.fields]
                    writer.write_table(pa.table([*columns, chunk.column(self._embedding)], schema))
        to_disk(self.whole)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Say in one line that a chunk is damaged."""
        import pyarrow as pa

        try:
            yield
        except pa.ArrowInvalid as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"-o {self.job.path}: {self.job.partial_path} is damaged: {reason}; remove it and {self.job.progress_path}"
            ) from None

    def clear(self) -> None:
        self._remove_files()
        if self.job.partial_path.is_dir():
            self.job.partial_path.rmdir()

    def _remove_files(self) -> None:
        for path in self.job.partial_path.glob("*.parquet"):
            if path == self.whole or path.stem.isdigit():
                path.unlink()


def to_disk(path: Path) -> None:
    """Wait until a file that was written is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
