"""The dev set that is split off, and the subset of `data.limit`: each label keeps a row where it can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertune.config.schema import DataConfig
from bertune.data.example_store import example_digests, take
from bertune.data.split import (
    LabelledRows,
    factorize_digests,
    stratified_sample_codes,
    train_dev_split_codes,
)
from bertune.errors import DataError, listed
from bertune.tasks.base.task import Note, Task
from bertune.types import Example


def mask_of_train(
    rows: Sequence[Example], labelled: LabelledRows, dev_fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Return which rows train, where the others are split off: by label, equal texts together.

    Each label keeps a training row where it can.
    """
    texts = factorize_digests(example_digests(rows))
    is_train = np.ones(len(rows), bool)
    is_train[train_dev_split_codes(texts, labelled.groups, dev_fraction, seed)[1]] = False
    min_dev = max(1, int(np.count_nonzero(~is_train)) // 2)
    return labelled.cover(is_train, texts, seed, min_left=min_dev)


def split_off_dev(
    rows: Sequence[Example], task: Task, data: DataConfig, seed: int, note: Note
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Return the training rows and the dev set that is split off.

    Raises:
        DataError: the rows cannot be divided, or the dev set cannot be scored.
    """
    source = rows[0].location.source
    if len(rows) < 2:
        raise DataError(f"{source}: one row cannot be divided into train and dev; give data.dev")
    labelled = LabelledRows(task.stratify_key(e) for e in rows)
    is_train = mask_of_train(rows, labelled, data.dev_fraction, seed)
    train, dev = take(rows, np.flatnonzero(is_train)), take(rows, np.flatnonzero(~is_train))
    if not train:
        raise DataError(f"{source}: all rows have the same text; there is nothing to learn")
    try:
        task.check_scorable(dev)
    except DataError as error:
        rows_split_off = f"the {len(dev)} rows split off as dev set (data.dev_fraction={data.dev_fraction:g})"
        raise DataError(
            f"{rows_split_off} cannot be scored: {error}; give data.dev, or a larger data.dev_fraction"
        ) from None
    note(
        f"no data.dev: {len(dev)} of {len(rows)} rows split off as dev set, "
        "by label, equal texts kept together"
    )
    _note_lost(labelled, is_train, "the dev set was split off; give data.dev", note)
    missing = labelled.lost(~is_train)
    if missing:
        note(
            f"the dev set has no row of {len(missing)} of {len(labelled.names)} labels, so its scores say "
            f"nothing of them: {listed(missing)}"
        )
    return train, dev


def draw_limit(train: Sequence[Example], task: Task, limit: int, seed: int, note: Note) -> Sequence[Example]:
    """Return `limit` of the training rows, drawn by label."""
    note(f"data.limit: {limit} of {len(train)} training rows, drawn by label")
    labelled = LabelledRows(task.stratify_key(e) for e in train)
    is_kept = np.zeros(len(train), bool)
    is_kept[stratified_sample_codes(labelled.groups, limit, seed)] = True
    is_kept = labelled.cover(is_kept, np.arange(len(train)), seed, min_left=len(train))
    _note_lost(labelled, is_kept, f"data.limit={limit}; a larger one keeps them", note)
    return take(train, np.flatnonzero(is_kept))


def _note_lost(labelled: LabelledRows, is_kept: np.ndarray, reason: str, note: Note) -> None:
    lost = labelled.lost(is_kept)
    if lost:
        note(f"labels without a training row: {listed(lost)}; the model cannot learn them, since {reason}")
