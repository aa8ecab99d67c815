"""What a cross-validation is asked to do, and whether its rows allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertune.data.example_store import example_digests
from bertune.data.folds import make_folds, tie_rows
from bertune.data.split import IntArray, LabelledRows, factorize_digests
from bertune.errors import DataError, listed
from bertune.tasks.base.task import Note, Task
from bertune.types import Example

DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class CrossvalRequest:
    """What a cross-validation is asked to do."""

    folds: int | None = DEFAULT_FOLDS
    """None where seeds are given."""
    group: str | None = None
    """The column of the groups that no fold divides."""
    seeds: tuple[int, ...] = ()
    """Train once with each, instead of folding."""
    refit: bool = False
    """Also train on all rows."""
    ensemble: bool = False
    """Also keep the models of folds or seeds as one folder."""

    @property
    def part(self) -> str:
        """What a part is: fold or seed."""
        return "seed" if self.seeds else "fold"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The folds from 1, or the seeds."""
        return self.seeds or tuple(range(1, (self.folds or 0) + 1))


def parse_request(
    folds: object, group: str | None, seeds: object, *, refit: bool, ensemble: bool
) -> tuple[CrossvalRequest, list[str]]:
    """Return the request, and a line for each fault of it.

    Args:
        folds: how many; None for the default.
        group: the column of the groups.
        seeds: a list of numbers, or numbers with commas between them as text.
        refit: whether to train on all rows.
        ensemble: whether to keep the models.
    """
    faults: list[str] = []
    chosen = _parse_seeds(seeds, faults)
    if isinstance(folds, bool) or not isinstance(folds, int | None):
        faults.append(f"--folds: must be a whole number from 2, got {folds!r}")
    elif folds is not None and folds < 2:
        faults.append(
            f"--folds: must be at least 2, got {folds}: each fold is scored by a model of the others"
        )
    if seeds is not None:
        idle = {"--folds": folds is not None, "--group": group is not None, "--refit": refit}
        names = [name for name, given in idle.items() if given]
        if names:
            faults.append(
                f"{', '.join(names)}: without effect with --seeds, which trains on the same rows each time; "
                "leave out the one or the other"
            )
    if group is not None and not group.strip():
        faults.append("--group: must name a column")
    number = DEFAULT_FOLDS if folds is None else folds
    request = CrossvalRequest(
        None if chosen else number if isinstance(number, int) else DEFAULT_FOLDS,
        group,
        chosen,
        refit,
        ensemble,
    )
    return request, faults


def _parse_seeds(seeds: Any, faults: list[str]) -> tuple[int, ...]:
    if seeds is None:
        return ()
    given = [each.strip() for each in seeds.split(",")] if isinstance(seeds, str) else list(seeds)
    wrong = [each for each in given if not _is_seed(each)]
    if wrong:
        faults.append(
            f"--seeds: must be whole numbers from 0 to 4294967295 with commas between them, such as 1,2,3; "
            f"got {listed(wrong)}"
        )
        return ()
    numbers = tuple(int(str(each)) for each in given)
    repeated = sorted({n for n in numbers if numbers.count(n) > 1})
    if repeated:
        faults.append(f"--seeds: names {listed(repeated)} twice; the same seed gives the same model")
    if len(numbers) < 2:
        faults.append(f"--seeds: names {len(numbers)}; at least 2 are needed to see how much seeds matter")
    return numbers


def _is_seed(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and int(value) < 2**32
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def divide(
    rows: Sequence[Example], task: Task, num_folds: int, groups: IntArray | None, seed: int, note: Note
) -> IntArray:
    """Return the fold of each row, from 0; see `make_folds`.

    Args:
        rows: all rows.
        task: has learned from them.
        num_folds: how many folds.
        groups: (rows,) the group of each row.
        seed: the same seed gives the same folds.
        note: called with each line that a user should see.

    Raises:
        DataError: the rows cannot be divided so, or a fold cannot be scored; all reasons.
    """
    texts = factorize_digests(example_digests(rows))
    labelled = LabelledRows(task.stratify_key(example) for example in rows)
    ties = tie_rows(texts, groups)
    faults = _too_few_ties(ties, num_folds, groups) + _small_labels(labelled, task, num_folds, note)
    if faults:
        raise DataError("; ".join(faults))
    folds = make_folds(labelled.groups, texts, groups, num_folds, seed)
    _note_ties(rows, ties, groups, note)
    _note_uneven(labelled, folds, num_folds, note)
    for fold in range(num_folds):
        held_out = [rows[n] for n in np.flatnonzero(folds == fold).tolist()]
        try:
            task.check_scorable(held_out)
        except DataError as error:
            faults.append(f"fold {fold + 1} of {num_folds} cannot be scored: {error}")
    if faults:
        raise DataError("; ".join([*faults[:3], "fewer folds have more rows each (--folds)"]))
    return folds


def _too_few_ties(ties: IntArray, num_folds: int, groups: IntArray | None) -> list[str]:
    count = int(ties.max()) + 1
    if count >= num_folds:
        return []
    what = "different texts" if groups is None else "groups that share no text"
    advice = f"--folds {count} would do" if count > 1 else "more rows are needed"
    return [f"--folds {num_folds}: the {len(ties)} training rows have only {count} {what}; {advice}"]


def _small_labels(labelled: LabelledRows, task: Task, num_folds: int, note: Note) -> list[str]:
    """Return a fault where a label has fewer rows than there are folds; of tags, note it."""
    counts = labelled.count(np.ones(len(labelled.groups), bool))
    small = np.flatnonzero(counts < num_folds).tolist()
    if not small:
        return []
    least = min(small, key=lambda n: int(counts[n]))
    name, count = labelled.names[least], int(counts[least])
    others = f" ({len(small)} labels have fewer than {num_folds})" if len(small) > 1 else ""
    rows = f"{count} row{'s' * (count > 1)}"
    if task.columns.is_word_level:
        note(f"type {name!r} is in {rows} only{others}, so folds are scored without it")
        return []
    advice = f"--folds {count} would do, or " if count > 1 else ""
    return [
        f"--folds {num_folds}: label {name!r} has {rows} only{others}, so a fold would have none of it; "
        f"{advice}data.drop_labels leaves rows of a label out"
    ]


def _note_ties(rows: Sequence[Example], ties: IntArray, groups: IntArray | None, note: Note) -> None:
    sizes = np.bincount(ties)
    num_tied = int(sizes[sizes > 1].sum())
    if groups is not None:
        note(
            f"{int(groups.max()) + 1} groups; rows of one group or of equal text stay in one fold, which "
            f"makes {len(sizes)} sets of rows, the largest of {int(sizes.max())}"
        )
    elif num_tied:
        note(f"{num_tied} of {len(rows)} rows share their text with another; these stay in one fold")


def _note_uneven(labelled: LabelledRows, folds: IntArray, num_folds: int, note: Note) -> None:
    """Note the labels that a fold has no row of, and those that only one fold has."""
    if not labelled.names:
        return
    counts = np.array([labelled.count(folds == fold) for fold in range(num_folds)])
    alone = [labelled.names[n] for n in np.flatnonzero((counts > 0).sum(0) == 1).tolist()]
    absent = [labelled.names[n] for n in np.flatnonzero((counts == 0).any(0)).tolist()]
    if alone:
        note(f"labels whose rows are all in one fold, so that its model has never seen them: {listed(alone)}")
    if absent:
        note(f"labels that some folds have no row of: {listed(absent)}")
