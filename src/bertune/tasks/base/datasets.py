"""Data larger than memory: a run's rows and tokens, read and tokenised once and kept in the cache on disk."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bertune import __version__
from bertune.config.schema import DataConfig, RunConfig
from bertune.console import Console, duration
from bertune.data import dataset_cache
from bertune.data.arrow import MappedTable
from bertune.data.dataset import EncodedDataset
from bertune.data.example_store import ExampleStore, iter_chunks, value_from_json, value_to_json
from bertune.data.mapped_dataset import DatasetWriter, MappedDataset
from bertune.data.rows import resolve_files
from bertune.data.split import min_int_type
from bertune.distributed import main_process_first
from bertune.tasks.base.reading import Splits, read_splits
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.text.workers import parallel_tokenizer
from bertune.types import JSON, EncodedExample, Example

CACHE_THRESHOLD = 1 << 26
"""Bytes of data files from which on rows are kept on disk."""
SPLIT_NAMES = ("train", "dev", "test")
_TOKENS_ALONE = {"cache", "workers", "max_length", "truncation"}
"""Settings of `data` that do not change how files are read."""


def uses_cache(data: DataConfig, files: Sequence[Sequence[str]], console: Console) -> bool:
    """Tell whether these files go through the cache."""
    if data.cache == "off":
        return False
    if any(f.startswith("hub:") or f == "-" for group in files for f in group):
        if data.cache == "on":
            console.info(
                "note: data.cache=on has no effect on data sets of the Hub, which are kept by `datasets`"
            )
        return False
    return data.cache == "on" or dataset_cache.total_file_size(files) >= CACHE_THRESHOLD


def read_datasets(run: RunConfig, task: Task, console: Console) -> Splits:
    """Read the data of a run, from the cache where it is there; `task` has learnt from the training rows afterwards.

    Raises:
        DataError: a file or a row cannot be used.
        ConfigError: the cache cannot be written.
    """
    files = {split: resolve_files(getattr(run.data, split), split) for split in SPLIT_NAMES}
    there = all(
        Path(f).is_file() for group in files.values() for f in group
    )  # if not, the complaint of reading says more
    if not uses_cache(run.data, list(files.values()), console) or not there:
        splits = read_splits(task, run.data, run.seed, lambda line: console.info(f"data: {line}"))
        splits.fingerprint = _fingerprint(splits)
        return splits
    with main_process_first():
        return _read_large(run, task, files, console)


def _read_large(run: RunConfig, task: Task, files: dict[str, list[str]], console: Console) -> Splits:
    key = _key_of_rows(run, task, files)
    entry = (
        dataset_cache.find_entry("rows", key, console.info) if _says_what_it_learns(task) else None
    )  # else only reading teaches it
    if entry is not None:
        console.info(f"data: rows and what was learnt of them come from the cache, {entry.path}")
        for line in entry.meta["notes"]:
            console.info(f"data: {line}")
        _recall(task, entry)
    else:
        entry = _keep_rows(run, task, key, console)
    train, dev, test = (_open(entry, split) for split in SPLIT_NAMES)
    return Splits(train, dev, test, key, entry.meta["fingerprint"])


def _key_of_rows(run: RunConfig, task: Task, files: dict[str, list[str]]) -> str:
    data = run.data
    given = [data.labels] if isinstance(data.labels, str) else []
    given += [run.task] if run.task.endswith(".py") else []
    drawn = data.dev is None or data.limit is not None
    return dataset_cache.cache_key(
        {
            "format": dataset_cache.FORMAT_VERSION,
            "bertune": __version__,
            "files": {
                split: [[name, dataset_cache.file_sha256(name)] for name in names]
                for split, names in files.items()
            },
            "also": [dataset_cache.file_sha256(name) if Path(name).is_file() else "" for name in given],
            "data": data.model_dump(mode="json", exclude=_TOKENS_ALONE),
            "task": run.task,
            "options": task.options.model_dump(mode="json"),
            "seed": run.seed if drawn else None,
        }
    )


def _keep_rows(run: RunConfig, task: Task, key: str, console: Console) -> dataset_cache.CacheEntry:
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        console.info(f"data: {line}")

    with dataset_cache.create_entry("rows", key) as folder:
        pace = ProgressReporter(console)
        splits = read_splits(
            task,
            run.data,
            run.seed,
            note,
            folder,
            lambda split, rows: pace.report(f"{split}: {rows} rows read"),
        )
        meta: JSON = {"notes": notes, "fingerprint": _fingerprint(splits), "learnt": _learnt(task)}
        for split in SPLIT_NAMES:
            examples = getattr(splits, split)
            if len(examples):
                whole = examples.indices is None
                places = np.arange(len(examples)) if whole else examples.indices
                np.save(folder / f"{split}.places.npy", places.astype(min_int_type(int(places[-1]) + 1)))
        rows = {split: len(getattr(splits, split)) for split in SPLIT_NAMES}
        own_dev = run.data.dev is not None
        console.info(f"data: {_rate(sum(rows.values()), pace.elapsed, 'read and checked')}")
        del splits, examples
        gc.collect()  # files that are open cannot be moved everywhere
        about = {"task": run.task, "train": run.data.train, "rows": rows}
        return dataset_cache.commit_entry(
            folder, "rows", key, about, {**meta, "own_dev": own_dev, "rows": rows}
        )


def _open(entry: dataset_cache.CacheEntry, split: str) -> Sequence[Example]:
    places = entry.path / f"{split}.places.npy"
    if not places.exists():
        return []
    own = (
        split if split != "dev" or entry.meta["own_dev"] else "train"
    )  # a dev set that was split off lies among the training rows
    return ExampleStore(MappedTable(entry.path / f"{own}.examples.arrow"), np.load(places))


def _says_what_it_learns(task: Task) -> bool:
    """Tell whether the task's own class says so; one that builds on another may learn more than that."""
    return bool(vars(type(task)).get("learnt"))


def _learnt(task: Task) -> dict[str, str | None]:
    """Return what a task has learnt of its rows."""
    return (
        {name: value_to_json(getattr(task, name)) for name in type(task).learnt}
        if _says_what_it_learns(task)
        else {}
    )


def _recall(task: Task, entry: dataset_cache.CacheEntry) -> None:
    """Let a task know what it has learnt."""
    for name, value in entry.meta["learnt"].items():
        setattr(task, name, value_from_json(value))


def _fingerprint(splits: Splits) -> dict[str, Any]:
    """Return what tells this data from other data: rows and a hash of each split."""
    result = {}
    for name in SPLIT_NAMES:
        examples: Sequence[Example] = getattr(splits, name)
        if examples:
            digest = hashlib.sha256()
            for example in examples:
                digest.update(json.dumps([example.texts, example.target], ensure_ascii=False).encode())
            result[name] = {"rows": len(examples), "sha256": digest.hexdigest()}
    return result


def encode_datasets(
    run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, console: Console
) -> dict[str, EncodedDataset]:
    """Turn all rows of a run into integers, from the cache where they are there.

    Raises:
        ConfigError: the cache cannot be written.
    """
    if not splits.cache_key:
        encoded: dict[str, EncodedDataset] = {}
        for name in SPLIT_NAMES:
            examples: Sequence[Example] = getattr(splits, name)
            if examples:
                rows = encoded[name] = EncodedDataset(task.encode(examples, tokenizer))
                _tell(console, name, rows, tokenizer, task.report())
        return encoded
    key = _key_of_tokens(splits.cache_key, task, tokenizer)
    with main_process_first():
        entry = dataset_cache.find_entry("tokens", key, console.info)
        if entry is not None:
            console.info(f"data: tokens come from the cache, {entry.path}")
        else:
            entry = _keep_tokens(run, task, tokenizer, splits, key, console)
    found: dict[str, EncodedDataset] = {
        name: MappedDataset(entry.path, name) for name in entry.meta["reports"]
    }
    for name, rows in found.items():
        _tell(console, name, rows, tokenizer, entry.meta["reports"][name])
    return found


def _tell(console: Console, name: str, rows: EncodedDataset, tokenizer: Tokenizer, report: list[str]) -> None:
    for line in [*rows.diagnostics(tokenizer.unk_token_id, tokenizer.max_length), *report]:
        console.info(f"data: {name}: {line}")


def _key_of_tokens(rows: str, task: Task, tokenizer: Tokenizer) -> str:
    return dataset_cache.cache_key(
        {
            "rows": rows,
            "tokenizer": [
                type(tokenizer).__qualname__,
                tokenizer.fingerprint(),
                tokenizer.max_length,
                *tokenizer.truncation_settings,
            ],
            "tokenizers": importlib.metadata.version("tokenizers"),
            "task": task.state(),
        }
    )


def _keep_tokens(
    run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, key: str, console: Console
) -> dataset_cache.CacheEntry:
    reports: dict[str, list[str]] = {}
    with (
        dataset_cache.create_entry("tokens", key) as folder,
        parallel_tokenizer(tokenizer, run.data.workers, console.info) as parallel,
    ):
        for name in SPLIT_NAMES:
            examples: Sequence[Example] = getattr(splits, name)
            if len(examples):
                write_dataset(folder, name, task, parallel, examples, console)
                reports[name] = task.report()
        tokenizer.clear_word_cache()
        gc.collect()
        about = {
            "task": run.task,
            "model": run.model,
            "train": run.data.train,
            "rows": {n: len(getattr(splits, n)) for n in SPLIT_NAMES},
        }
        return dataset_cache.commit_entry(folder, "tokens", key, about, {"reports": reports})


def write_dataset(
    folder: Path, name: str, task: Task, tokenizer: Any, examples: Sequence[Example], console: Console
) -> MappedDataset:
    """Encode examples part by part into files, and say how fast that was."""
    writer = DatasetWriter(folder, name, tokenizer.max_token_id + 1)
    pace = ProgressReporter(console)
    size = CHUNK_SIZE if task.is_chunkable(examples) else len(examples)

    def write(coming: Future[list[EncodedExample]]) -> None:
        encoded = coming.result()
        writer.write(encoded)
        pace.num_done += len(encoded)
        console.advance(pace.num_done)
        pace.report(f"{name}: {pace.num_done} of {len(examples)} rows tokenised")

    # While a part is encoded, mostly by other processes, the one before is written here.
    with (
        console.progress(f"tokenising {name}", len(examples)),
        ThreadPoolExecutor(1, "bertune-encode") as ahead,
    ):
        coming: Future[list[EncodedExample]] | None = None
        for part in iter_chunks(examples, size):
            before, coming = coming, ahead.submit(task.encode, part, tokenizer)
            if before is not None:
                write(before)
        if coming is not None:
            write(coming)
    rows = writer.finish()
    console.info(f"data: {name}: {_rate(len(examples), pace.elapsed, 'tokenised')}")
    return rows


CHUNK_SIZE = 8192
"""Rows that are tokenised together."""


class ProgressReporter:
    """Says how far long work has come, every so many seconds."""

    INTERVAL = 15.0

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.perf_counter()
        self._said = self._began
        self.num_done = 0

    @property
    def elapsed(self) -> float:
        """Return the time since it began."""
        return time.perf_counter() - self._began

    def report(self, line: str) -> None:
        """Say this, if nothing was said for a while."""
        now = time.perf_counter()
        if now - self._said >= self.INTERVAL:
            self._said = now
            self._console.info(f"data: {line}")


def _rate(rows: int, seconds: float, what: str) -> str:
    """Write how fast something was.

    >>> _rate(650_000, 20.0, "tokenised")
    '650000 rows tokenised in 20.0 s, 32,500 rows/s'
    """
    return f"{rows} rows {what} in {duration(seconds)}, {rows / max(seconds, 1e-9):,.0f} rows/s"


@contextmanager
def scratch_dir(data: DataConfig, files: Sequence[str], console: Console) -> Iterator[Path | None]:
    """Give a folder to keep the rows of large files in for a while, or None where they fit into memory."""
    if not uses_cache(data, [files], console):
        yield None
        return
    with dataset_cache.create_entry("rows", "scratch") as folder:
        yield folder
