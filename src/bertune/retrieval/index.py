"""Builds an index on the disk, and opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bertune.errors import ArtifactError, ConfigError
from bertune.files import fsync, part_of
from bertune.inference.vectors import l2_normalize
from bertune.retrieval.arrow_columns import json_text
from bertune.retrieval.search import FORMAT_VERSION, INDEX_KEYS, Index, IndexInfo
from bertune.retrieval.writers import (
    EmbedFn,
    VectorFile,
    npy_header,
    report_write_errors,
    write_json,
    write_vectors,
)
from bertune.types import JSON

IndexRow = tuple[JSON, str, int]
"""The columns of a row of the corpus, its text, and the line on which it begins."""
_FILES = ("index.json", "vectors.npy", "usearch.index")
"""What makes a folder an index; index.json goes first, so nobody opens what is being removed."""


def build_index(
    folder: Path,
    info: IndexInfo,
    rows: Iterable[IndexRow],
    encode: EmbedFn,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    precision: str = "",
    rebuild: bool = False,
) -> int:
    """Build an index; continue where an earlier call for the same was stopped.

    A finished index of something else is replaced. One call at a time may build an index in a folder: see
    `bertune.files.locked`.

    Args:
        folder: made if missing.
        info: what the index is made of.
        rows: the rows of the corpus, in order.
        encode: gets at most a chunk of texts a call.
        on_progress: called with the number of rows that are done.
        precision: how vectors are computed; an unfinished index is continued in this precision only.
        rebuild: use nothing of what the folder holds.

    Returns:
        How many rows were done already; all of them where the index is finished.

    Raises:
        ConfigError: the dtype is not for search, the folder cannot be written, or it holds an unfinished
            index of something else.
        DataError: there are more or fewer rows than counted.
    """
    if info.dtype not in {"float32", "float16"}:
        raise ConfigError(f"dtype: {info.dtype!r} is not for an index; use float32 or float16")
    identity = {
        "model": info.model_fingerprint,
        "vectors": info.settings,
        "source": info.source,
        "similarity": info.similarity,
        "precision": precision,
        "for": "search",
    }
    job = VectorFile(folder / "vectors.npy", info.num_rows, info.dim, info.dtype, identity, "--index")
    with report_write_errors(folder, "--index"):
        folder.mkdir(parents=True, exist_ok=True)
        if rebuild:
            job.progress_path.unlink(missing_ok=True)
            _remove_finished(folder)
        elif _is_finished(folder, info):
            job.progress_path.unlink(missing_ok=True)
            on_progress(info.num_rows)
            return info.num_rows
        elif _read_index_json(folder) != info.to_json() or job.path.exists():
            _remove_finished(folder)
    is_cosine = info.similarity == "cosine"  # vectors of length 1 lose nothing that a cosine needs
    return write_vectors(
        job,
        _write_texts(folder, info, rows),
        (lambda texts: l2_normalize(encode(texts))) if is_cosine else encode,
        on_progress,
    )


def _is_finished(folder: Path, info: IndexInfo) -> bool:
    try:
        return open_index(folder, info.model_fingerprint).info.to_json() == info.to_json()
    except ArtifactError:
        return False


def _remove_finished(folder: Path) -> None:
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _write_texts(folder: Path, info: IndexInfo, rows: Iterable[IndexRow]) -> Iterator[tuple[JSON, str]]:
    """Yield the rows; when the last was asked for, all files are there but the vectors.

    The vectors get their name after that, so a folder with vectors.npy and index.json is complete.
    """
    paths = [folder / name for name in ("texts.jsonl", "offsets.npy", "lines.npy")]
    with ExitStack() as stack:
        with report_write_errors(paths[0], "--index"):
            files: list[BinaryIO] = [stack.enter_context(part_of(path).open("wb")) for path in paths]
        texts, *numbers = files
        for file in numbers:
            file.write(npy_header((info.num_rows,), np.int64))
        offset = count = 0
        for raw, text, source_line in rows:
            line = json_text(raw).encode() + b"\n"
            with report_write_errors(paths[0], "--index"):
                texts.write(line)
                for file, number in zip(numbers, (offset, source_line), strict=True):
                    file.write(np.int64(number).tobytes())
            offset += len(line)
            count += 1
            yield raw, text
    if count == info.num_rows:
        with report_write_errors(paths[0], "--index"):
            for path in paths:
                fsync(part_of(path))
                part_of(path).replace(path)
            write_json(folder / "index.json", info.to_json())


def has_index(folder: Path) -> bool:
    """Tell whether the folder holds a finished index, of whatever format."""
    return (folder / "index.json").is_file() and (folder / "vectors.npy").is_file()


def has_older_index(folder: Path) -> bool:
    """Tell whether the folder holds an index of an earlier format, finished or not; it is built again."""
    version = (_read_index_json(folder) or {}).get("format")
    if version is not None:
        return isinstance(version, int) and version < FORMAT_VERSION
    try:
        progress = json.loads((folder / "vectors.npy.part.json").read_text(encoding="utf-8"))
        return "vectors" not in progress["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_index(folder: str | Path, model_fingerprint: str) -> Index:
    """Open an index.

    Args:
        folder: what `build_index` made.
        model_fingerprint: fingerprint of the model that queries come from.

    Raises:
        ArtifactError: it is missing, unfinished, damaged, of another format, or made by another model.
    """
    folder = Path(folder)
    values = _read_index_json(folder)
    _check_readable(folder, values)
    try:
        field_names = {key: name for name, key in INDEX_KEYS.items()}
        given = {field_names[key]: value for key, value in (values or {}).items() if key != "format"}
        info = IndexInfo(**given)
        vectors, offsets, lines = (
            np.load(folder / name, mmap_mode="r") for name in ("vectors.npy", "offsets.npy", "lines.npy")
        )
        texts: npt.NDArray[Any] = np.memmap(folder / "texts.jsonl", np.uint8, "r")
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ArtifactError(
            f"{folder}: damaged: {' '.join(str(error).split())}; build the index again: --rebuild"
        ) from None
    if _read_index_json(folder) != values:
        raise ArtifactError(f"{folder}: another process is building this index again; repeat the call")
    if info.model_fingerprint != model_fingerprint:
        raise ArtifactError(
            f"{folder}: was made by another model (has {info.model_fingerprint[:12]}, "
            f"this is {model_fingerprint[:12]}); build the index again: --rebuild"
        )
    fits = (
        vectors.shape == (info.num_rows, info.dim)
        and vectors.dtype == info.dtype
        and offsets.shape == lines.shape == (info.num_rows,)
    )
    if not fits or not info.num_rows or not 0 <= offsets[-1] < len(texts):
        raise ArtifactError(
            f"{folder}: damaged: its files do not belong together; build the index again: --rebuild"
        )
    return Index(folder, info, vectors, offsets, lines, texts)


def _check_readable(folder: Path, values: JSON | None) -> None:
    """Raise an ArtifactError where index.json is missing, of another format, or the index is unfinished."""
    is_finished = values is not None and (folder / "vectors.npy").exists()
    if not is_finished and (folder / "vectors.npy.part.json").exists():
        raise ArtifactError(
            f"{folder}: the index is not finished; run the command that was making it again, "
            "it goes on where it stopped"
        )
    if values is None:
        reason = "holds no index.json" if folder.is_dir() else "no such folder"
        raise ArtifactError(f"{folder}: {reason}; give a folder that holds an index")
    if values.get("format") != FORMAT_VERSION:
        raise ArtifactError(
            f"{folder}: has format {values.get('format')!r}, this bertune reads format {FORMAT_VERSION}; "
            "build the index again: --rebuild"
        )


def _read_index_json(folder: Path) -> JSON | None:
    """Return what index.json holds; an empty object if it is damaged, None if there is no such file."""
    try:
        values = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
