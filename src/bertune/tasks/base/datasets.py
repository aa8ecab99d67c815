"""The rows and tokens of a run, in memory; those of large files in the dataset cache, made once."""

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
from bertune.data.example_store import ExampleStore, iter_chunks
from bertune.data.mapped_dataset import DatasetWriter, MappedDataset
from bertune.data.rows import resolve_files
from bertune.data.split import min_int_type
from bertune.distributed import main_process_first
from bertune.files import is_remote, sha256
from bertune.tasks.base.reading import Splits, read_splits
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.text.workers import parallel_tokenizer
from bertune.types import JSON, EncodedExample, Example

CACHE_THRESHOLD = 1 << 26
"""Bytes of data files from which rows go through the dataset cache."""
CHUNK_SIZE = 8192
"""Rows that are tokenised together."""
SPLIT_NAMES = ("train", "dev", "test")
_NOT_FOR_ROWS = {"cache", "workers", "max_length", "truncation"}
"""Settings of `data` that do not change how files are read."""


def uses_cache(data: DataConfig, files: Sequence[Sequence[str]], console: Console) -> bool:
    """Tell whether these files go through the dataset cache."""
    if data.cache == "off":
        return False
    if any(is_remote(f) or f == "-" for group in files for f in group):
        if data.cache == "on":
            console.info("note: data.cache=on has no effect on data sets of a hub, which its package keeps")
        return False
    return data.cache == "on" or dataset_cache.total_file_size(files) >= CACHE_THRESHOLD


def read_datasets(run: RunConfig, task: Task, console: Console) -> Splits:
    """Read the data of a run, or take it from the cache. The task learns from the training rows.

    Raises:
        DataError: a file or a row cannot be used.
        ConfigError: the cache cannot be written.
    """
    files = {split: resolve_files(getattr(run.data, split), split) for split in SPLIT_NAMES}
    all_exist = all(Path(f).is_file() for group in files.values() for f in group)
    # For a missing file, reading raises the better message.
    if not uses_cache(run.data, list(files.values()), console) or not all_exist:
        splits = read_splits(task, run.data, run.seed, lambda line: console.info(f"data: {line}"))
        splits.fingerprint = _fingerprint(splits)
        return splits
    with main_process_first():
        return _read_cached(run, task, files, console)


def _read_cached(run: RunConfig, task: Task, files: dict[str, list[str]], console: Console) -> Splits:
    """Return the rows in the cache; read them first if the cache has none that suffice for the task."""
    key = _rows_key(run, task, files)
    entry = dataset_cache.find_entry("rows", key, console.info)
    if entry is None or entry.meta.get("state") is None:
        entry = _write_rows(run, task, key, console)
    else:
        console.info(f"data: rows and what was learned from them come from the cache, {entry.path}")
        for line in entry.meta["notes"]:
            console.info(f"data: {line}")
        task.load_state(entry.meta["state"])
    train, dev, test = (_open(entry, split) for split in SPLIT_NAMES)
    return Splits(train, dev, test, key, entry.meta["fingerprint"])


def _rows_key(run: RunConfig, task: Task, files: dict[str, list[str]]) -> str:
    data = run.data
    other_files = [data.labels] if isinstance(data.labels, str) else []
    other_files += [run.task] if run.task.endswith(".py") else []
    is_random = data.dev is None or data.limit is not None
    return dataset_cache.cache_key(
        {
            "format": dataset_cache.FORMAT_VERSION,
            "bertune": __version__,
            "files": {split: [[name, sha256(name)] for name in names] for split, names in files.items()},
            "also": [sha256(f) if Path(f).is_file() else "" for f in other_files],
            "data": data.model_dump(mode="json", exclude=_NOT_FOR_ROWS),
            "task": run.task,
            "options": task.options.model_dump(mode="json"),
            "seed": run.seed if is_random else None,
        }
    )


def _write_rows(run: RunConfig, task: Task, key: str, console: Console) -> dataset_cache.CacheEntry:
    """Read the rows of a run into a new cache entry; the task learns from them."""
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        console.info(f"data: {line}")

    with dataset_cache.create_entry("rows", key) as folder:
        progress = ProgressReporter(console)
        splits = read_splits(
            task,
            run.data,
            run.seed,
            note,
            folder,
            lambda split, num_rows: progress.report(f"{split}: {num_rows} rows read"),
        )
        for split in SPLIT_NAMES:
            examples = getattr(splits, split)
            if len(examples):
                indices = np.arange(len(examples)) if examples.indices is None else examples.indices
                int_type = min_int_type(int(indices[-1]) + 1)
                np.save(folder / f"{split}.indices.npy", indices.astype(int_type))
        num_rows = {split: len(getattr(splits, split)) for split in SPLIT_NAMES}
        meta: JSON = {
            "notes": notes,
            "fingerprint": _fingerprint(splits),
            "state": complete_state(task),
            "has_dev_file": run.data.dev is not None,
        }
        console.info(f"data: {_rate(sum(num_rows.values()), progress.elapsed, 'read and checked')}")
        del splits, examples
        gc.collect()  # some systems do not move files that are open
        about = {"task": run.task, "train": run.data.train, "rows": num_rows}
        return dataset_cache.commit_entry(folder, "rows", key, about, meta)


def _open(entry: dataset_cache.CacheEntry, split: str) -> Sequence[Example]:
    indices = entry.path / f"{split}.indices.npy"
    if not indices.exists():
        return []
    # A dev set that was split off lies among the training rows.
    file = "train" if split == "dev" and not entry.meta["has_dev_file"] else split
    return ExampleStore(MappedTable(entry.path / f"{file}.examples.arrow"), np.load(indices))


def complete_state(task: Task) -> JSON | None:
    """Return the task's state, if it holds all that the task has learned.

    A task of your own may set attributes that its `state` leaves out. So a second task is built from the same
    settings and gets the state, as JSON keeps it. Only if it then equals the first, attribute by attribute,
    can a cache entry replace reading.
    """
    try:
        state: JSON = json.loads(json.dumps(task.state()))
        restored = type(task)(task.options, task.data)
        restored.load_state(state)
        names = vars(task).keys() | vars(restored).keys()
        is_complete = all(getattr(restored, name) == getattr(task, name) for name in names)
        return state if is_complete else None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None  # not JSON, an attribute is missing, or attributes cannot be compared, such as arrays


def _fingerprint(splits: Splits) -> JSON:
    """Return number of rows and a hash of each split."""
    fingerprint = {}
    for split in SPLIT_NAMES:
        examples: Sequence[Example] = getattr(splits, split)
        if examples:
            digest = hashlib.sha256()
            for example in examples:
                parts = [example.texts, example.target]
                if example.num_positives > 1:
                    parts.append(example.num_positives)
                digest.update(json.dumps(parts, ensure_ascii=False).encode())
            fingerprint[split] = {"rows": len(examples), "sha256": digest.hexdigest()}
    return fingerprint


def encode_datasets(
    run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, console: Console
) -> dict[str, EncodedDataset]:
    """Return all rows of a run as token ids, by split; from the cache where they are in it.

    Raises:
        ConfigError: the cache cannot be written.
    """
    datasets: dict[str, EncodedDataset] = {}
    if not splits.cache_key:
        for split in SPLIT_NAMES:
            examples: Sequence[Example] = getattr(splits, split)
            if examples:
                datasets[split] = EncodedDataset(_encode(task, examples, tokenizer, packs=split == "train"))
                _print_report(console, split, datasets[split], tokenizer, task.report())
        return datasets
    key = _tokens_key(splits.cache_key, task, tokenizer)
    with main_process_first():
        entry = dataset_cache.find_entry("tokens", key, console.info)
        if entry is not None:
            console.info(f"data: tokens come from the cache, {entry.path}")
        else:
            entry = _write_tokens(run, task, tokenizer, splits, key, console)
    for split, report in entry.meta["reports"].items():
        datasets[split] = MappedDataset(entry.path, split)
        _print_report(console, split, datasets[split], tokenizer, report)
    return datasets


def _encode(
    task: Task, examples: Sequence[Example], tokenizer: Tokenizer, *, packs: bool
) -> list[EncodedExample]:
    """Return examples as tokens, in chunks: the tokenizer's result for all texts at once is much larger."""
    size = CHUNK_SIZE if task.is_chunkable(examples) else len(examples)
    rows: list[EncodedExample] = []
    for chunk in iter_chunks(examples, size):
        encoded = task.encode(chunk, tokenizer)
        rows += task.pack(encoded) if packs else encoded
    return rows


def _print_report(
    console: Console, split: str, dataset: EncodedDataset, tokenizer: Tokenizer, report: list[str]
) -> None:
    for line in [*dataset.diagnostics(tokenizer.unk_token_id, tokenizer.max_length), *report]:
        console.info(f"data: {split}: {line}")


def _tokens_key(rows_key: str, task: Task, tokenizer: Tokenizer) -> str:
    return dataset_cache.cache_key(
        {
            "rows": rows_key,
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


def _write_tokens(
    run: RunConfig, task: Task, tokenizer: Tokenizer, splits: Splits, key: str, console: Console
) -> dataset_cache.CacheEntry:
    """Tokenise the rows of a run into a new cache entry."""
    reports: dict[str, list[str]] = {}
    with (
        dataset_cache.create_entry("tokens", key) as folder,
        parallel_tokenizer(tokenizer, run.data.workers, console.info) as parallel,
    ):
        for split in SPLIT_NAMES:
            examples: Sequence[Example] = getattr(splits, split)
            if len(examples):
                packs = split == "train"
                write_dataset(folder, split, task, parallel, examples, console, packs=packs)
                reports[split] = task.report()
        tokenizer.clear_word_cache()
        gc.collect()
        about = {
            "task": run.task,
            "model": run.model,
            "train": run.data.train,
            "rows": {split: len(getattr(splits, split)) for split in SPLIT_NAMES},
        }
        return dataset_cache.commit_entry(folder, "tokens", key, about, {"reports": reports})


def write_dataset(
    folder: Path,
    name: str,
    task: Task,
    tokenizer: Any,
    examples: Sequence[Example],
    console: Console,
    *,
    packs: bool = False,
) -> MappedDataset:
    """Encode examples chunk by chunk into files; print how fast that was.

    Args:
        folder: for the files.
        name: the first part of their names, such as a split.
        task: encodes the examples.
        tokenizer: a tokenizer, or one that works in several processes.
        examples: what to encode.
        console: shows progress.
        packs: whether `Task.pack` may make other rows of them, as for training.
    """
    writer = DatasetWriter(folder, name, tokenizer.max_token_id + 1)
    progress = ProgressReporter(console)
    size = CHUNK_SIZE if task.is_chunkable(examples) else len(examples)

    def write(future: Future[list[EncodedExample]]) -> None:
        encoded = future.result()
        writer.write(task.pack(encoded) if packs else encoded)
        progress.num_done += len(encoded)
        console.advance(progress.num_done)
        progress.report(f"{name}: {progress.num_done} of {len(examples)} rows tokenised")

    # One thread encodes a chunk, mostly by other processes; this one writes the chunk before it.
    with (
        console.progress(f"tokenising {name}", len(examples)),
        ThreadPoolExecutor(1, "bertune-encode") as executor,
    ):
        next_chunk: Future[list[EncodedExample]] | None = None
        for chunk in iter_chunks(examples, size):
            previous, next_chunk = next_chunk, executor.submit(task.encode, chunk, tokenizer)
            if previous is not None:
                write(previous)
        if next_chunk is not None:
            write(next_chunk)
    dataset = writer.finish()
    console.info(f"data: {name}: {_rate(len(examples), progress.elapsed, 'tokenised')}")
    return dataset


class ProgressReporter:
    """Prints the progress of long work, at most every `INTERVAL` seconds.

    Args:
        console: where to print.
    """

    INTERVAL = 15.0

    def __init__(self, console: Console) -> None:
        self._console, self._start = console, time.perf_counter()
        self._last_report = self._start
        self.num_done = 0
        """How many rows are done; for the caller to count."""

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._start

    def report(self, line: str) -> None:
        """Print a line, unless one was printed less than `INTERVAL` seconds ago."""
        now = time.perf_counter()
        if now - self._last_report >= self.INTERVAL:
            self._last_report = now
            self._console.info(f"data: {line}")


def _rate(num_rows: int, seconds: float, work: str) -> str:
    """Return a line about the speed of some work.

    >>> _rate(650_000, 20.0, "tokenised")
    '650000 rows tokenised in 20.0 s, 32,500 rows/s'
    """
    return f"{num_rows} rows {work} in {duration(seconds)}, {num_rows / max(seconds, 1e-9):,.0f} rows/s"


@contextmanager
def scratch_dir(data: DataConfig, files: Sequence[str], console: Console) -> Iterator[Path | None]:
    """Return a context with a folder for the rows of large files, or with None where they fit into memory."""
    if not uses_cache(data, [files], console):
        yield None
        return
    with dataset_cache.create_entry("rows", "scratch") as folder:
        yield folder
