"""From files to examples: every row read, every fault collected, every row left out counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bertune.config import DataConfig
from bertune.data.formats import Faults, Reading
from bertune.data.rows import files_of, open_table
from bertune.data.split import draw, split
from bertune.errors import DataError
from bertune.tasks.task import Task
from bertune.types import Example, Row

Note = Callable[[str], None]


@dataclass
class Splits:
    """The examples of a run."""

    train: list[Example]
    dev: list[Example]
    test: list[Example] = field(default_factory=list)


def stream(source: str, task: Task, data: DataConfig, faults: Faults, note: Note, *, need_target: bool) -> Iterator[tuple[Row, Example]]:
    """Yield each usable row of a file with what it means; bad rows go to `faults`."""
    must_have = need_target and task.columns.target_needed
    table = open_table(Reading(source, data, task.columns, faults, note, must_have))
    note(table.describe())
    for row in table:
        try:
            example = task.read(row if need_target else _without(row, task.columns.target))
            if must_have and example.target is None:
                raise DataError(f"{row.place}: {task.columns.target!r} is missing; every row of this file needs it")
        except DataError as error:
            faults(str(error))
            continue
        yield row, example


def _without(row: Row, part: str) -> Row:
    """Hide a part: whatever stands in a target column must not matter to a prediction."""
    return replace(row, fields={name: value for name, value in row.fields.items() if name != part})


def read_examples(
    files: Sequence[str], task: Task, data: DataConfig, note: Note, *, need_target: bool = True, to_score: bool = False
) -> list[Example]:
    """Read all rows of some files.

    Args:
        files: one or several.
        task: says what a row means.
        data: how to read them.
        note: hears what a user should know.
        need_target: whether every row must have its target.
        to_score: whether they are scored, not learnt from: where targets serve scores alone, `data.drop_labels` leaves these rows be.

    Raises:
        DataError: a row cannot be used (unless `data.bad_rows` is skip), or no row is left.
    """
    faults = Faults(skip=data.bad_rows == "skip")
    examples: list[Example] = []
    dropped = 0
    drops = bool(data.drop_labels) and (task.columns.target_needed or not to_score)
    for source in files:
        for _, example in stream(source, task, data, faults, note, need_target=need_target):
            if drops and _has_dropped(example, data.drop_labels):
                dropped += 1
            else:
                examples.append(example)
    for line in faults.settle():
        note(line)
    if dropped:
        note(f"{', '.join(files)}: {dropped} rows left out, since data.drop_labels names their label")
    if not examples:
        raise DataError(f"{', '.join(files)}: no usable row is left")
    return examples


def _has_dropped(example: Example, dropped: list[str]) -> bool:
    held = example.target if isinstance(example.target, tuple) else (example.target,)
    return any(str(label) in dropped for label in held)


def checked(examples: list[Example], task: Task, data: DataConfig, note: Note) -> list[Example]:
    """Return the examples whose targets the task knows.

    Raises:
        DataError: one does not, unless `data.bad_rows` is skip.
    """
    faults = Faults(skip=data.bad_rows == "skip")
    good = []
    for example in examples:
        try:
            task.check(example)
        except DataError as error:
            faults(str(error))
        else:
            good.append(example)
    for line in faults.settle():
        note(line)
    if not good:
        raise DataError(f"{examples[0].source}: no usable row is left")
    task.check_together(good)
    return good


def read_splits(task: Task, data: DataConfig, seed: int, note: Note) -> Splits:
    """Read, check, divide and thin out the data of a run; `task` has learnt from the training rows afterwards.

    Raises:
        DataError: a file or a row cannot be used.
    """
    train = read_examples(files_of(data.train, "train"), task, data, note)
    dev = read_examples(files_of(data.dev, "dev"), task, data, note, to_score=True) if data.dev else []
    test = read_examples(files_of(data.test, "test"), task, data, note, to_score=True) if data.test else []
    task.fit(train, note)
    dev, test = (checked(part, task, data, note) if part else part for part in (dev, test))
    if not dev:
        if len(train) < 2:
            raise DataError(f"{train[0].source}: one row cannot be divided into train and dev; give data.dev")
        keep, held = split([e.texts for e in train], [task.strata(e) for e in train], data.dev_share, seed)
        train, dev = [train[i] for i in keep], [train[i] for i in held]
        if not train:
            raise DataError(f"{dev[0].source}: all rows have the same text; there is nothing to learn")
        try:
            task.check_together(dev)
        except DataError as error:
            share = f"the {len(dev)} rows split off as dev set (data.dev_share={data.dev_share:g})"
            raise DataError(f"{share} cannot be scored: {error}; give data.dev, or a larger data.dev_share") from None
        note(f"no data.dev: {len(dev)} of {len(keep) + len(held)} rows split off as dev set, by label, equal texts kept together")
    if data.limit is not None and data.limit < len(train):
        note(f"data.limit: {data.limit} of {len(train)} training rows, drawn by label")
        train = [train[i] for i in draw([task.strata(e) for e in train], data.limit, seed)]
    _note_repeats(train, dev, test, note)
    return Splits(train, dev, test)


def _note_repeats(train: list[Example], dev: list[Example], test: list[Example], note: Note) -> None:
    targets: dict[tuple[str, ...], object] = {}
    repeated = conflicting = 0
    for example in train:
        if example.texts in targets:
            repeated += 1
            conflicting += targets[example.texts] != example.target
        targets[example.texts] = example.target
    if repeated:
        other = f", {conflicting} of them with another target" if conflicting else ""
        note(f"{repeated} of {len(train)} training rows repeat the text of an earlier one{other}")
    for name, part in (("dev", dev), ("test", test)):
        known = sum(example.texts in targets for example in part)
        if known:
            note(f"{known} of {len(part)} {name} rows have a text that is also a training row, which flatters the {name} scores")
