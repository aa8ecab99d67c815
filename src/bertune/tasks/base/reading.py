"""From files to examples: reads every row, collects every bad row, counts every row that is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from bertune.config.schema import DataConfig
from bertune.data.dataset import IntArray
from bertune.data.example_store import ExampleSink, ExampleWriter, example_digests, take
from bertune.data.list_text import SentenceLists
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows, resolve_files
from bertune.data.split import factorize_digests
from bertune.errors import DataError
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.splitting import draw_limit, split_off_dev
from bertune.tasks.base.task import Note, Task
from bertune.types import JSON, Example, Row


@dataclass
class Splits:
    """The examples of a run, in memory or in files."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example] = field(default_factory=list)
    cache_key: str = ""
    """Key of the rows in the dataset cache; empty where they are in memory."""
    fingerprint: JSON = field(default_factory=dict)
    """Number of rows and a hash of each split."""


def iter_examples(
    source: str,
    task: Task,
    data: DataConfig,
    bad_rows: BadRows,
    note: Note,
    *,
    require_target: bool,
    reader: RowReader | None = None,
) -> Iterator[tuple[Row, Example]]:
    """Yield each usable row of a file with its example; bad rows go to `bad_rows`.

    Args:
        source: the file.
        task: says what a row means.
        data: how to read the file.
        bad_rows: collects the rows that cannot be used.
        note: called with each line that a user should see.
        require_target: whether rows are read with their target; for predictions they are read without it.
        reader: the reader of a pass over several files; without it this file is a pass of its own.
    """
    reader = reader or task.new_reader()
    needs_target = require_target and task.columns.target_required
    table = open_rows(ReadOptions(source, data, task.columns, bad_rows, note, needs_target))
    note(table.describe())
    reader.see_columns(table.mapping)
    lists = SentenceLists("text", task.columns.target)
    for row in table:
        if task.columns.is_word_level:
            row = lists.unpack(row)
        try:
            example = reader.read(row if require_target else _without_field(row, task.columns.target))
            if needs_target and example.target is None:
                raise DataError(
                    f"{row.location}: {task.columns.target!r} is missing; every row of this file needs it"
                )
        except DataError as error:
            bad_rows(error)
            continue
        yield row, example
    for line in lists.report():
        note(line)


def _without_field(row: Row, field_name: str) -> Row:
    """Return the row without a field: a prediction must not depend on what the target column holds."""
    return replace(row, fields={name: value for name, value in row.fields.items() if name != field_name})


def read_examples(
    files: Sequence[str],
    task: Task,
    data: DataConfig,
    note: Note,
    *,
    require_target: bool = True,
    to_score: bool = False,
    arrow_path: Path | None = None,
) -> Sequence[Example]:
    """Read all rows of some files, to score or predict them; see `read_files`."""
    reader = task.new_reader()
    examples = read_files(
        files, reader, data, note, require_target=require_target, to_score=to_score, arrow_path=arrow_path
    )
    for line in reader.report():
        note(line)
    return examples


def read_and_fit(files: Sequence[str], task: Task, data: DataConfig, note: Note) -> Sequence[Example]:
    """Read all rows of some training files, and let the task learn from them; see `read_files`."""
    reader = task.new_reader()
    examples = read_files(files, reader, data, note)
    for line in reader.label_filter.idle():
        note(line)
    reader.fit(examples, note)
    return examples


def read_files(
    files: Sequence[str],
    reader: RowReader,
    data: DataConfig,
    note: Note,
    *,
    require_target: bool = True,
    to_score: bool = False,
    arrow_path: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Sequence[Example]:
    """Read all rows of some files, as a part of a pass.

    Args:
        files: one or several.
        reader: the reader of the pass.
        data: how to read the files.
        note: called with each line that a user should see.
        require_target: whether every row must have its target.
        to_score: whether the rows are for scoring, not for training. Where targets are for scores only,
            `data.drop_labels` drops none of these rows.
        arrow_path: an Arrow file for the examples; without it they are in memory.
        on_progress: called from time to time with the number of rows read.

    Raises:
        DataError: a row cannot be used (unless `data.bad_rows` is skip), or no row is left.
    """
    task = reader.task
    bad_rows = BadRows(skip=data.bad_rows == "skip")
    examples: ExampleSink = [] if arrow_path is None else ExampleWriter(arrow_path, on_progress)
    num_dropped = 0
    drops = bool(data.drop_labels) and (task.columns.target_required or not to_score)
    label_filter = reader.label_filter
    for source in files:
        for _, example in iter_examples(
            source, task, data, bad_rows, note, require_target=require_target, reader=reader
        ):
            if drops and label_filter.drops(example.target, len(examples)):
                num_dropped += 1
            else:
                examples.append(example)
    for line in bad_rows.finish():
        note(line)
    if not len(examples):
        raise DataError(f"{', '.join(files)}: no usable row is left")
    kept = examples.finish() if isinstance(examples, ExampleWriter) else cast(Sequence[Example], examples)
    dropped = label_filter.finish_file() if drops else []
    if dropped:
        kept = take(kept, np.delete(np.arange(len(kept)), dropped))
    if num_dropped + len(dropped):
        meant = ", ".join(f"{name} is {label!r}" for name, label in label_filter.meant.items())
        note(
            f"{', '.join(files)}: {num_dropped + len(dropped)} rows left out, since data.drop_labels names "
            f"their label{f' ({meant})' if meant else ''}"
        )
    if not len(kept):
        raise DataError(f"{', '.join(files)}: no usable row is left")
    return kept


def check_examples(
    examples: Sequence[Example], task: Task, data: DataConfig, note: Note
) -> Sequence[Example]:
    """Return the examples whose targets fit what the task has learned.

    Raises:
        DataError: one does not fit, unless `data.bad_rows` is skip; or they cannot be scored.
    """
    bad_rows = BadRows(skip=data.bad_rows == "skip")
    is_bad = np.zeros(len(examples), bool)
    for index, example in enumerate(examples):
        try:
            task.check(example)
        except DataError as error:
            bad_rows(error)
            is_bad[index] = True
    for line in bad_rows.finish():
        note(line)
    good = take(examples, np.flatnonzero(~is_bad)) if is_bad.any() else examples
    if not good:
        raise DataError(f"{examples[0].location.source}: no usable row is left")
    task.check_scorable(good)
    return good


def read_splits(
    task: Task,
    data: DataConfig,
    seed: int,
    note: Note,
    folder: Path | None = None,
    on_progress: Callable[[str, int], None] = lambda *_: None,
) -> Splits:
    """Read, check, split and subsample the data of a run. The task learns from the training rows.

    Args:
        task: says what a row means.
        data: which files, and how to read them.
        seed: decides which rows the dev set and a subset get.
        note: called with each line that a user should see.
        folder: for Arrow files with the examples; without it they are in memory.
        on_progress: called from time to time with the name of a split and the number of its rows read.

    Raises:
        DataError: a file or a row cannot be used.
    """
    reader = task.new_reader()

    def read(split: str, files: str | list[str] | None) -> Sequence[Example]:
        if not files:
            return []
        return read_files(
            resolve_files(files, split),
            reader,
            data,
            note,
            to_score=split != "train",
            arrow_path=None if folder is None else folder / f"{split}.examples.arrow",
            on_progress=lambda num_rows: on_progress(split, num_rows),
        )

    train, dev, test = read("train", data.train), read("dev", data.dev), read("test", data.test)
    for line in reader.label_filter.idle():
        note(line)
    reader.fit(train, note)
    dev, test = (check_examples(part, task, data, note) if part else part for part in (dev, test))
    if not dev and data.dev_fraction:
        train, dev = split_off_dev(train, task, data, seed, note)
    if data.limit is not None and data.limit < len(train):
        train = draw_limit(train, task, data.limit, seed, note)
    _note_repeats(train, dev, test, note)
    return Splits(train, dev, test)


def _note_repeats(
    train: Sequence[Example], dev: Sequence[Example], test: Sequence[Example], note: Note
) -> None:
    """Note how many rows repeat a text of the training rows, in each split."""
    splits = [train, dev, test]
    codes = factorize_digests(np.concatenate([example_digests(split) for split in splits if split]))
    ends = np.cumsum([len(split) for split in splits])
    train_codes, dev_codes, test_codes = np.split(codes, ends[:-1])
    order = np.argsort(train_codes, kind="stable")
    # Positions in `order` whose successor has the same text.
    repeated = np.flatnonzero(train_codes[order][1:] == train_codes[order][:-1])
    if len(repeated):
        conflicting = sum(_targets_differ(train, order, repeated))
        other = f", {conflicting} of them with another target" if conflicting else ""
        note(f"{len(repeated)} of {len(train)} training rows repeat the text of an earlier one{other}")
    for name, split_codes in (("dev", dev_codes), ("test", test_codes)):
        num_shared = int(np.isin(split_codes, train_codes).sum())
        if num_shared:
            note(
                f"{num_shared} of {len(split_codes)} {name} rows have a text that is also a training row, "
                f"which flatters the {name} scores"
            )


def _targets_differ(train: Sequence[Example], order: IntArray, repeated: IntArray) -> Iterator[bool]:
    """Yield for each repeated text whether the later row has another target than the row before it."""
    indices = np.unique(np.concatenate([order[repeated], order[repeated + 1]]))
    targets = [e.target for e in take(train, indices)]
    earlier, later = (np.searchsorted(indices, order[repeated + n]).tolist() for n in (0, 1))
    for a, b in zip(earlier, later, strict=True):
        yield targets[a] != targets[b]
