"""Builds an index on the disk, and opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

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
    upgrade_source,
    write_json,
    write_vectors,
)
from bertune.types import JSON


def build_index(
    folder: Path,
    info: IndexInfo,
    rows: Iterable[tuple[JSON, str]],
    encode: EmbedFn,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    rebuild: bool = False,
) -> int:
    """Build an index; continue where an earlier call for the same was stopped.

    A finished index of something else is replaced.

    Args:
        folder: made if missing.
        info: what the index is made of.
        rows: for each row of the corpus, in order, its columns and its text.
        encode: gets at most a chunk of texts a call.
        on_progress: called with the number of rows that are done.
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
    identity = {"model": info.model_fingerprint, "source": info.source, "for": "search"}
    job = VectorFile(folder / "vectors.npy", info.num_rows, info.dim, info.dtype, identity)
    with report_write_errors(folder):
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
    return write_vectors(
        job, _write_texts(folder, info, rows), lambda texts: l2_normalize(encode(texts)), on_progress
    )


def _is_finished(folder: Path, info: IndexInfo) -> bool:
    try:
        return open_index(folder, info.model_fingerprint).info.to_json() == info.to_json()
    except ArtifactError:
        return False


def _remove_finished(folder: Path) -> None:
    for name in ("index.json", "vectors.npy", "usearch.index"):
        (folder / name).unlink(missing_ok=True)


def _write_texts(
    folder: Path, info: IndexInfo, rows: Iterable[tuple[JSON, str]]
) -> Iterator[tuple[JSON, str]]:
    """Yield the rows; when the last was asked for, texts.jsonl, offsets.npy and index.json are written.

    The vectors get their name after that, so a folder with vectors.npy and index.json is complete.
    """
    texts_path, offsets_path = folder / "texts.jsonl", folder / "offsets.npy"
    with report_write_errors(texts_path):
        texts_file, offsets_file = part_of(texts_path).open("wb"), part_of(offsets_path).open("wb")
    with texts_file, offsets_file:
        offsets_file.write(npy_header((info.num_rows,), np.int64))
        offset = count = 0
        for raw, text in rows:
            line = json_text(raw).encode() + b"\n"
            with report_write_errors(texts_path):
                texts_file.write(line)
                offsets_file.write(np.int64(offset).tobytes())
            offset += len(line)
            count += 1
            yield raw, text
    if count == info.num_rows:
        with report_write_errors(texts_path):
            for path in (texts_path, offsets_path):
                fsync(part_of(path))
                part_of(path).replace(path)
            write_json(folder / "index.json", info.to_json())


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
    try:
        field_names = {key: name for name, key in INDEX_KEYS.items()}
        info = IndexInfo(**{field_names[key]: value for key, value in values.items() if key != "format"})
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        num_bytes = (folder / "texts.jsonl").stat().st_size
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ArtifactError(
            f"{folder}: damaged: {' '.join(str(error).split())}; build the index again: --rebuild"
        ) from None
    if info.model_fingerprint != model_fingerprint:
        raise ArtifactError(
            f"{folder}: was made by another model (has {info.model_fingerprint}, "
            f"this is {model_fingerprint}); build the index again: --rebuild"
        )
    fits = (
        vectors.shape == (info.num_rows, info.dim)
        and vectors.dtype == info.dtype
        and offsets.shape == (info.num_rows,)
    )
    if not fits or not info.num_rows or not 0 <= offsets[-1] < num_bytes:
        raise ArtifactError(
            f"{folder}: damaged: its files do not belong together; build the index again: --rebuild"
        )
    return Index(folder, info, vectors, offsets)


def _read_index_json(folder: Path) -> JSON | None:
    """Return what index.json holds; an empty object if it is damaged, None if there is no such file."""
    try:
        values = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return upgrade_source(values) if isinstance(values, dict) else {}
