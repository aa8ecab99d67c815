"""Writes the vectors of a corpus to a file, in little memory. A killed call can be continued.

While `PATH` is unfinished there are two files. `PATH.part` has the vectors so far. `PATH.part.json` says what
they are made of, and how many rows are safe on the disk: a chunk is on the disk before it is counted there.
`PATH` appears when everything is written. One process at a time writes it; a second one is refused.
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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError, DataError
from bertune.files import fsync, locked, part_of, write_text
from bertune.inference.vectors import (
    NUMPY_DTYPES,
    PACKED_DTYPES,
    FloatArray,
    VectorDtype,
    check_vector_dtype,
    quantize_vectors,
)
from bertune.inference.writers import free_column_names
from bertune.retrieval.arrow_columns import ArrowColumns, json_text
from bertune.types import JSON

EmbedFn = Callable[[list[str]], FloatArray]
"""Texts to their vectors (n, dim)."""
SUFFIXES = (".npy", ".parquet")
"""How the name of a file of vectors may end."""
CHUNK_ROWS = 4 * 4096
"""Rows that are encoded, written and counted together; a kill loses no more than these."""


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors that is to be written."""

    path: Path
    """Its name ends in .npy or .parquet."""
    num_rows: int
    """Rows of the corpus, counted beforehand."""
    dim: int
    """Width of a vector, as the model gives it."""
    dtype: VectorDtype
    identity: JSON
    """Which model, corpus and settings it is made of. A file with another identity is not continued."""
    option: Literal["-o", "--index"] = "-o"
    """Where the user named it, for messages."""

    @property
    def location(self) -> str:
        """Return where the file is, for messages."""
        return f"{self.option} {self.path}"

    @property
    def partial_path(self) -> Path:
        """Return where the vectors are until the file is finished; a folder for parquet."""
        return part_of(self.path)

    @property
    def progress_path(self) -> Path:
        """Return the file that says how many rows are done."""
        return self.path.with_name(self.path.name + ".part.json")

    @property
    def stored_dim(self) -> int:
        """Return the width of a vector in the file: bytes for packed bits, else numbers."""
        return -(-self.dim // 8) if self.dtype in PACKED_DTYPES else self.dim

    def to_json(self) -> JSON:
        """Return everything that decides the bytes of the file, as JSON gives it back."""
        values = {
            "identity": self.identity,
            "count": self.num_rows,
            "width": self.dim,
            "form": self.dtype,
            "chunk": CHUNK_ROWS,
        }
        return dict(json.loads(json.dumps(values, default=str)))


def write_vectors(
    job: VectorFile,
    rows: Iterable[tuple[JSON, str]],
    encode: EmbedFn,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write a file of vectors; continue where an earlier call with the same identity was stopped.

    Args:
        job: what to write.
        rows: for each row of the corpus, in order, its columns, which only parquet keeps, and its text.
        encode: gets at most `CHUNK_ROWS` texts a call.
        on_progress: called with the number of rows that are done.

    Returns:
        How many rows an earlier call had done.

    Raises:
        ConfigError: the name tells no format, the file cannot be written, another process is writing it, or
            the unfinished file has another identity.
        DataError: there are more or fewer rows than counted, or a row cannot be written.
    """
    partial = _open_partial(job)
    with locked(job.path):
        return _write_rows(job, partial, rows, encode, on_progress)


def _write_rows(
    job: VectorFile,
    partial: _PartialFile,
    rows: Iterable[tuple[JSON, str]],
    encode: EmbedFn,
    on_progress: Callable[[int], None],
) -> int:
    with report_write_errors(job.path, job.option):
        rows_before = _resume(job, partial)
    on_progress(rows_before)
    if partial.is_released:
        return rows_before
    iterator = iter(rows)
    if sum(1 for _ in itertools.islice(iterator, rows_before)) < rows_before:
        raise _row_count_error(job, f"fewer than the {rows_before} that are done already")
    for first in range(rows_before, job.num_rows, CHUNK_ROWS):
        chunk = list(itertools.islice(iterator, min(CHUNK_ROWS, job.num_rows - first)))
        rows_done = first + len(chunk)
        if rows_done < min(first + CHUNK_ROWS, job.num_rows):
            raise _row_count_error(job, f"only {rows_done}")
        vectors = _encode_chunk(job, encode, [text for _, text in chunk], first)
        with report_write_errors(job.path, job.option):
            partial.put(first, [raw for raw, _ in chunk], vectors)
            _record_progress(job, rows_done)
        on_progress(rows_done)
    if next(iterator, None) is not None:
        raise _row_count_error(job, "more")
    with report_write_errors(job.path, job.option):
        partial.seal()
        _record_progress(job, job.num_rows, is_sealed=True)
        _release(job, partial)
    return rows_before


def npy_header(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bytes:
    """Return the header of a .npy file."""
    header = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


@contextmanager
def report_write_errors(path: Path, option: str = "-o") -> Iterator[None]:
    """Turn an OSError of the block into a ConfigError: `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written: {error.strerror or error}") from None


def write_json(path: Path, value: JSON) -> None:
    """Write a JSON file atomically, on the disk before it gets its name. Lone surrogates survive."""
    write_text(path, json_text(value, indent=2) + "\n", durable=True)


class _PartialFile:
    """The unfinished file, in its format."""

    def __init__(self, job: VectorFile, finished: Path) -> None:
        self.job = job
        self.finished = finished  # what gets the final name
        self.is_released = False  # whether it has it

    def holds(self, num_rows: int) -> bool:
        """Return whether the first rows are here; get ready to continue after them."""
        raise NotImplementedError

    def begin(self) -> None:
        """Get ready for the first row."""
        raise NotImplementedError

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        """Bring a chunk that begins with row `first` to the disk."""
        raise NotImplementedError

    def seal(self) -> None:
        """Make `finished` from all chunks, on the disk."""

    def clear(self) -> None:
        """Remove what is left once `finished` has its name."""


def check_vector_file(path: Path, dtype: str, option: str = "-o") -> None:
    """Check that vectors can be written to a file of this name, in this dtype.

    Raises:
        ConfigError: they cannot.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"{option} {path}: vectors are written to names that end in {' or '.join(SUFFIXES)}"
        )
    check_vector_dtype(dtype)


def _open_partial(job: VectorFile) -> _PartialFile:
    check_vector_file(job.path, job.dtype, job.option)
    if job.path.is_dir():
        raise ConfigError(f"{job.location}: is a folder; give the name of a file")
    if job.num_rows < 1:
        raise DataError(f"{job.location}: there are no rows to write")
    return _Npy(job) if job.path.suffix.lower() == ".npy" else _Parquet(job)


def _resume(job: VectorFile, partial: _PartialFile) -> int:
    """Return how many rows an earlier call has done; begin where there are none."""
    try:
        recorded = json.loads(job.progress_path.read_text(encoding="utf-8"))
        num_rows, is_sealed = int(recorded.pop("rows")), bool(recorded.pop("sealed"))
        if not isinstance(recorded["identity"], dict):
            raise TypeError
    except FileNotFoundError:
        recorded, num_rows, is_sealed = job.to_json(), 0, False
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{job.location}: {job.progress_path} is damaged; remove it and {job.partial_path}"
        ) from None
    if num_rows and recorded != job.to_json():
        remedy = f"remove {job.partial_path} and {job.progress_path}" if job.option == "-o" else "--rebuild"
        raise ConfigError(
            f"{job.location}: {job.partial_path} is the beginning of something else "
            f"({_describe_difference(recorded, job.to_json())}); to start again, {remedy}"
        )
    if is_sealed and (partial.finished.exists() or job.path.exists()):
        _release(job, partial)
        return job.num_rows
    if num_rows and partial.holds(num_rows):
        return num_rows
    _record_progress(job, 0)
    partial.begin()
    return 0


def _describe_difference(recorded: JSON, wanted: JSON) -> str:
    """Name the first value that differs.

    >>> _describe_difference({"identity": {"model": "a"}}, {"identity": {"model": "b"}})
    "model: 'a' there, 'b' here"
    """
    there, here = _flat(recorded), _flat(wanted)
    if "vectors.prompt" in here and "vectors.prompt" not in there:
        return "an earlier version of bertune began it, and did not write down which prompt and width it used"
    for name in {**here, **there}:
        if there.get(name) != here.get(name):
            return f"{name.split('.')[-1]}: {there.get(name)!r} there, {here.get(name)!r} here"
    return "another identity"


def _flat(values: JSON, prefix: str = "") -> JSON:
    """Return nested values by their path; the identity's own come without a prefix."""
    flat: JSON = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, "" if name == "identity" else f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _record_progress(job: VectorFile, num_rows: int, *, is_sealed: bool = False) -> None:
    write_json(job.progress_path, {**job.to_json(), "rows": num_rows, "sealed": is_sealed})


def _release(job: VectorFile, partial: _PartialFile) -> None:
    """Give the finished file its name."""
    if partial.finished.exists():
        partial.finished.replace(job.path)
    partial.clear()
    partial.is_released = True
    job.progress_path.unlink(missing_ok=True)


def _row_count_error(job: VectorFile, count: str) -> DataError:
    return DataError(
        f"{job.location}: {job.num_rows} rows were counted, and then there were {count}; "
        "run it again on a file that does not change"
    )


def _encode_chunk(job: VectorFile, encode: EmbedFn, texts: list[str], first: int) -> npt.NDArray[Any]:
    """Encode the texts of a chunk; return for each row what is stored."""
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if vectors.shape != (len(texts), job.dim):
        raise ConfigError(
            f"encode: {len(texts)} texts became {vectors.shape}, expected {(len(texts), job.dim)}"
        )

    def check_finite(numbers: npt.NDArray[Any], problem: str) -> None:
        is_bad = ~np.isfinite(numbers).all(axis=1)
        if is_bad.any():
            raise DataError(f"{job.location}: row {first + int(is_bad.argmax()) + 1}: {problem}")

    check_finite(vectors, "the model gives a vector that is not finite; look at its weights and at the text")
    stored = quantize_vectors(vectors, job.dtype)
    check_finite(stored, "the vector holds numbers above 65504, which float16 cannot hold; write float32")
    return stored


class _Npy(_PartialFile):
    """A .npy file, header first. It is written, not mapped: a full disk would kill a process that maps it."""

    def __init__(self, job: VectorFile) -> None:
        super().__init__(job, job.partial_path)
        dtype = np.dtype(NUMPY_DTYPES[job.dtype])
        self._header = npy_header((job.num_rows, job.stored_dim), dtype)
        self._row_bytes = job.stored_dim * dtype.itemsize

    def _offset(self, row: int) -> int:
        return len(self._header) + row * self._row_bytes

    def holds(self, num_rows: int) -> bool:
        if not self.finished.exists():
            return False
        with self.finished.open("rb") as file:
            has_header = file.read(len(self._header)) == self._header
            return has_header and file.seek(0, os.SEEK_END) >= self._offset(num_rows)

    def begin(self) -> None:
        with self.finished.open("wb") as file:
            file.write(self._header)

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        with self.finished.open("r+b") as file:
            file.seek(self._offset(first))
            file.write(np.ascontiguousarray(vectors).data)
        fsync(self.finished)


class _Parquet(_PartialFile):
    """A folder with a parquet file a chunk, since parquet cannot be appended to; `seal` joins them."""

    def __init__(self, job: VectorFile) -> None:
        super().__init__(job, job.partial_path / "joined.parquet")
        self._columns = ArrowColumns()
        self._embedding = ""

    def _chunk_path(self, first: int) -> Path:
        return self.job.partial_path / f"{first // CHUNK_ROWS:06}.parquet"

    def holds(self, num_rows: int) -> bool:
        import pyarrow.parquet as pq

        if not all(self._chunk_path(first).exists() for first in range(0, num_rows, CHUNK_ROWS)):
            return False
        with self._report_damage():
            *fields, embedding = pq.read_schema(self._chunk_path(num_rows - 1))
        self._columns = ArrowColumns(fields)
        self._embedding = embedding.name
        return True

    def begin(self) -> None:
        self.job.partial_path.mkdir(exist_ok=True)
        self._remove_files()
        foreign = next(self.job.partial_path.iterdir(), None)
        if foreign:
            raise ConfigError(f"{self.job.location}: {foreign} is in the way and not bertune's; move it away")

    def put(self, first: int, raws: Sequence[JSON], vectors: npt.NDArray[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def location_of(row: int) -> str:
            return f"{self.job.location}: row {first + row + 1}"

        names = dict.fromkeys([*self._columns.fields, *(name for raw in raws for name in raw)])
        self._embedding = self._embedding or free_column_names(names, ["embedding"])["embedding"]
        if self._embedding in names:
            row = next(n for n, raw in enumerate(raws) if self._embedding in raw)
            raise DataError(
                f"{location_of(row)}: has a column {self._embedding!r}, which the rows before it lack; "
                "rename it"
            )
        columns = [
            self._columns.to_array(name, [raw.get(name) for raw in raws], location_of) for name in names
        ]
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        pq.write_table(pa.table([*columns, embedding], self._schema(embedding.type)), self._chunk_path(first))
        fsync(self._chunk_path(first))

    def _schema(self, embedding_type: Any) -> Any:
        import pyarrow as pa

        return pa.schema([*self._columns.fields.values(), pa.field(self._embedding, embedding_type)])

    def seal(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._report_damage():
            schema = self._schema(pq.read_schema(self._chunk_path(0)).field(self._embedding).type)
            with pq.ParquetWriter(self.finished, schema) as writer:
                for first in range(0, self.job.num_rows, CHUNK_ROWS):
                    with pq.ParquetFile(self._chunk_path(first)) as file:
                        chunk = file.read()
                    columns = [self._columns.cast_column(name, chunk) for name in self._columns.fields]
                    writer.write_table(pa.table([*columns, chunk.column(self._embedding)], schema))
        fsync(self.finished)

    @contextmanager
    def _report_damage(self) -> Iterator[None]:
        """Turn an Arrow error of the block into a ConfigError: a chunk is damaged."""
        import pyarrow as pa

        try:
            yield
        except pa.ArrowInvalid as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{self.job.location}: {self.job.partial_path} is damaged: {reason}; "
                f"remove it and {self.job.progress_path}"
            ) from None

    def clear(self) -> None:
        self._remove_files()
        if self.job.partial_path.is_dir():
            self.job.partial_path.rmdir()

    def _remove_files(self) -> None:
        for path in self.job.partial_path.glob("*.parquet"):
            if path == self.finished or path.stem.isdigit():
                path.unlink()
