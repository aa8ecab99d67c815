"""An index on disk: build it, open it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bertune.errors import ArtifactError, ConfigError
from bertune.inference.vectors import l2_normalize
from bertune.retrieval.arrow_columns import json_text
from bertune.retrieval.search import FORMAT_VERSION, INDEX_KEYS, Index, IndexInfo
from bertune.retrieval.writers import (
    EmbedFn,
    VectorFile,
    npy_header,
    report_write_errors,
    to_disk,
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
    """Make an index; go on where an earlier call for the same was stopped. A finished index of something else is replaced.

    Args:
        folder: where; made if it is not there.
        info: what it is made of.
        rows: for each row of the corpus in order its columns, and its text.
        encode: is given a chunk of texts at most.
        on_progress: called with the rows that are done.
        rebuild: whether to take over nothing of what is there.

    Returns:
        How many rows were there already; all of them where the index is finished.

    Raises:
        ConfigError: the form is not for search, the folder cannot be written, or something else is begun in it.
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
        elif _read_json(folder / "index.json") != info.to_json() or job.path.exists():
            _remove_finished(folder)
    return write_vectors(
        job, _with_texts_kept(folder, info, rows), lambda texts: l2_normalize(encode(texts)), on_progress
    )


def _is_finished(folder: Path, info: IndexInfo) -> bool:
    try:
        return open_index(folder, info.model_fingerprint).info.to_json() == info.to_json()
    except ArtifactError:
        return False


def _remove_finished(folder: Path) -> None:
    for name in ("index.json", "vectors.npy", "usearch.index"):
        (folder / name).unlink(missing_ok=True)


def _with_texts_kept(
    folder: Path, info: IndexInfo, rows: Iterable[tuple[JSON, str]]
) -> Iterator[tuple[JSON, str]]:
    """Pass rows on; when the last was asked for, texts.jsonl, offsets.npy and index.json are there.

    The vectors get their name after that, so a folder with vectors.npy and index.json has everything.
    """
    texts, offsets = folder / "texts.jsonl", folder / "offsets.npy"
    parts = [path.with_name(path.name + ".part") for path in (texts, offsets)]
    with report_write_errors(texts):
        of_texts, of_offsets = parts[0].open("wb"), parts[1].open("wb")
    with of_texts, of_offsets:
        of_offsets.write(npy_header((info.num_rows,), np.int64))
        place = count = 0
        for raw, text in rows:
            line = json_text(raw).encode() + b"\n"
            with report_write_errors(texts):
                of_texts.write(line)
                of_offsets.write(np.int64(place).tobytes())
            place += len(line)
            count += 1
            yield raw, text
    if count == info.num_rows:
        with report_write_errors(texts):
            for part, path in zip(parts, (texts, offsets), strict=True):
                to_disk(part)
                part.replace(path)
            write_json(folder / "index.json", info.to_json())


def open_index(folder: str | Path, model_fingerprint: str) -> Index:
    """Open an index.

    Args:
        folder: what `build_index` made.
        model_fingerprint: fingerprint of the model that queries come from.

    Raises:
        ArtifactError: it is missing, unfinished, damaged, of another format, or made by another model.
    """
    place = Path(folder)
    found = _read_json(place / "index.json")
    unfinished = (place / "vectors.npy.part.json").exists() and not (
        found is not None and (place / "vectors.npy").exists()
    )
    if unfinished:
        raise ArtifactError(
            f"{place}: the index is not finished; run the command that was making it again, it goes on where it stopped"
        )
    if found is None:
        reason = "holds no index.json" if place.is_dir() else "no such folder"
        raise ArtifactError(f"{place}: {reason}; give a folder that holds an index")
    if found.get("format") != FORMAT_VERSION:
        raise ArtifactError(
            f"{place}: has format {found.get('format')!r}, this bertune reads format {FORMAT_VERSION}; make the index anew"
        )
    try:
        names = {key: name for name, key in INDEX_KEYS.items()}
        info = IndexInfo(**{names[key]: value for key, value in found.items() if key != "format"})
        vectors = np.load(place / "vectors.npy", mmap_mode="r")
        offsets = np.load(place / "offsets.npy", mmap_mode="r")
        length = (place / "texts.jsonl").stat().st_size
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ArtifactError(
            f"{place}: damaged: {' '.join(str(error).split())}; make the index anew"
        ) from None
    if info.model_fingerprint != model_fingerprint:
        raise ArtifactError(
            f"{place}: was made by another model (has {info.model_fingerprint}, this is {model_fingerprint}); make the index anew"
        )
    fits = (
        vectors.shape == (info.num_rows, info.dim)
        and vectors.dtype == info.dtype
        and offsets.shape == (info.num_rows,)
    )
    if not fits or not info.num_rows or not 0 <= offsets[-1] < length:
        raise ArtifactError(f"{place}: damaged: its files do not belong together; make the index anew")
    return Index(place, info, vectors, offsets)


def _read_json(path: Path) -> JSON | None:
    """Return what a JSON file holds, an empty object if that is nothing, None if there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
