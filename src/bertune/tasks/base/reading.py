"""From files to examples: every row read, every fault collected, every row left out counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from bertune.config.schema import DataConfig
from bertune.data.dataset import IntArray
from bertune.data.example_store import ExampleSink, ExampleWriter, example_digests, take
from bertune.data.formats import BadRows, ReadOptions
from bertune.data.rows import open_rows, resolve_files
from bertune.data.split import factorize, factorize_digests, stratified_sample_codes, train_dev_split_codes
from bertune.errors import DataError
from bertune.tasks.base.task import Task
from bertune.types import JSON, Example, Row

Note = Callable[[str], None]


@dataclass
class Splits:
    """The examples of a run, in memory or in files."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example] = field(default_factory=list)
    cache_key: str = ""
    """Name of the rows in the cache; empty where they are in memory."""
    fingerprint: JSON = field(default_factory=dict)
    """What tells this data from other data: rows and a hash of each split."""


def iter_examples(
    source: str, task: Task, data: DataConfig, bad_rows: BadRows, note: Note, *, require_target: bool
) -> Iterator[tuple[Row, Example]]:
    """Yield each usable row of a file with what it means; bad rows go to `bad_rows`."""
    must_have = require_target and task.columns.target_required
    table = open_rows(ReadOptions(source, data, task.columns, bad_rows, note, must_have))
    note(table.describe())
    for row in table:
        try:
            example = task.read(row if require_target else _without(row, task.columns.target))
            if must_have and example.target is None:
                raise DataError(
                    f"{row.location}: {task.columns.target!r} is missing; every row of this file needs it"
                )
        except DataError as error:
            bad_rows(str(error))
            continue
        yield row, example


def _without(row: Row, part: str) -> Row:
    """Hide a part: whatever stands in a target column must not matter to a prediction."""
    return replace(row, fields={name: value for name, value in row.fields.items() if name != part})


def read_examples(
    files: Sequence[str],
    task: Task,
    data: DataConfig,
    note: Note,
    *,
    require_target: bool = True,
    to_score: bool = False,
    arrow_path: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Sequence[Example]:
    """Read all rows of some files.

    Args:
        files: one or several.
        task: says what a row means.
        data: how to read them.
        note: hears what a user should know.
        require_target: whether every row must have its target.
        to_score: whether they are scored, not learnt from: where targets serve scores alone, `data.drop_labels` leaves these rows be.
        arrow_path: an Arrow file to keep them in, instead of memory.
        on_progress: is then told from time to time how many rows there are.

    Raises:
        DataError: a row cannot be used (unless `data.bad_rows` is skip), or no row is left.
    """
    faults = BadRows(skip=data.bad_rows == "skip")
    examples: ExampleSink = [] if arrow_path is None else ExampleWriter(arrow_path, on_progress)
    dropped = 0
    drops = bool(data.drop_labels) and (task.columns.target_required or not to_score)
    for source in files:
        for _, example in iter_examples(source, task, data, faults, note, require_target=require_target):
            if drops and _has_dropped(example, data.drop_labels):
                dropped += 1
            else:
                examples.append(example)
    for line in faults.finish():
        note(line)
    if dropped:
        note(f"{', '.join(files)}: {dropped} rows left out, since data.drop_labels names their label")
    if not len(examples):
        raise DataError(f"{', '.join(files)}: no usable row is left")
    return examples.finish() if isinstance(examples, ExampleWriter) else cast(list[Example], examples)


def _has_dropped(example: Example, dropped: list[str]) -> bool:
    held = example.target if isinstance(example.target, tuple) else (example.target,)
    return any(str(label) in dropped for label in held)


def check_examples(
    examples: Sequence[Example], task: Task, data: DataConfig, note: Note
) -> Sequence[Example]:
    """Return the examples whose targets the task knows.

    Raises:
        DataError: one does not, unless `data.bad_rows` is skip.
    """
    faults = BadRows(skip=data.bad_rows == "skip")
    bad = np.zeros(len(examples), bool)
    for place, example in enumerate(examples):
        try:
            task.check(example)
        except DataError as error:
            faults(str(error))
            bad[place] = True
    for line in faults.finish():
        note(line)
    good = take(examples, np.flatnonzero(~bad)) if bad.any() else examples
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
    """Read, check, divide and thin out the data of a run; `task` has learnt from the training rows afterwards.

    Args:
        task: says what a row means.
        data: which files, and how to read them.
        seed: decides who goes to the dev set, and who is drawn.
        note: hears what a user should know.
        folder: where to keep the rows as Arrow files, instead of memory.
        on_progress: is then told the split and how many rows of it were read, from time to time.

    Raises:
        DataError: a file or a row cannot be used.
    """

    def read(split: str, files: str | list[str] | None) -> Sequence[Example]:
        into = None if folder is None else folder / f"{split}.examples.arrow"
        if not files:
            return []
        return read_examples(
            resolve_files(files, split),
            task,
            data,
            note,
            to_score=split != "train",
            arrow_path=into,
            on_progress=lambda rows: on_progress(split, rows),
        )

    train, dev, test = read("train", data.train), read("dev", data.dev), read("test", data.test)
    task.fit(train, note)
    dev, test = (check_examples(part, task, data, note) if part else part for part in (dev, test))
    if not dev:
        train, dev = _divided(train, task, data, seed, note)
    if data.limit is not None and data.limit < len(train):
        note(f"data.limit: {data.limit} of {len(train)} training rows, drawn by label")
        train = take(
            train, stratified_sample_codes(factorize(task.stratify_key(e) for e in train), data.limit, seed)
        )
    _note_repeats(train, dev, test, note)
    return Splits(train, dev, test)


def _divided(
    rows: Sequence[Example], task: Task, data: DataConfig, seed: int, note: Note
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Split a dev set off the training rows."""
    source = rows[0].location.source
    if len(rows) < 2:
        raise DataError(f"{source}: one row cannot be divided into train and dev; give data.dev")
    keep, held = train_dev_split_codes(
        factorize_digests(example_digests(rows)),
        factorize(task.stratify_key(e) for e in rows),
        data.dev_fraction,
        seed,
    )
    train, dev = take(rows, keep), take(rows, held)
    if not train:
        raise DataError(f"{source}: all rows have the same text; there is nothing to learn")
    try:
        task.check_scorable(dev)
    except DataError as error:
        share = f"the {len(dev)} rows split off as dev set (data.dev_fraction={data.dev_fraction:g})"
        raise DataError(
            f"{share} cannot be scored: {error}; give data.dev, or a larger data.dev_fraction"
        ) from None
    note(
        f"no data.dev: {len(dev)} of {len(rows)} rows split off as dev set, by label, equal texts kept together"
    )
    return train, dev


def _note_repeats(
    train: Sequence[Example], dev: Sequence[Example], test: Sequence[Example], note: Note
) -> None:
    parts = [train, dev, test]
    numbers = factorize_digests(np.concatenate([example_digests(part) for part in parts if part]))
    ends = np.cumsum([len(part) for part in parts])
    of_train, of_dev, of_test = np.split(numbers, ends[:-1])
    order = np.argsort(of_train, kind="stable")
    again = np.flatnonzero(
        of_train[order][1:] == of_train[order][:-1]
    )  # places in `order`; the next one has the same text
    if len(again):
        conflicting = sum(_differ(train, order, again))
        other = f", {conflicting} of them with another target" if conflicting else ""
        note(f"{len(again)} of {len(train)} training rows repeat the text of an earlier one{other}")
    for name, part in (("dev", of_dev), ("test", of_test)):
        known = int(np.isin(part, of_train).sum())
        if known:
            note(
                f"{known} of {len(part)} {name} rows have a text that is also a training row, which flatters the {name} scores"
            )


def _differ(train: Sequence[Example], order: IntArray, again: IntArray) -> Iterator[bool]:
    """Say of each row that repeats a text whether its target is another one than that of the row with this text before it."""
    places = np.unique(np.concatenate([order[again], order[again + 1]]))
    targets = [e.target for e in take(train, places)]
    earlier, later = (np.searchsorted(places, order[again + n]).tolist() for n in (0, 1))
    for a, b in zip(earlier, later, strict=True):
        yield targets[a] != targets[b]
