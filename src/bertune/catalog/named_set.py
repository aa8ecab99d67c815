"""What a named set is: the data of a benchmark, in every form in which it is passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Note = Callable[[str], None]
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Published:
    """A figure that somebody has published."""

    model: str
    metric: str
    """The name of the metric here, such as accuracy, mcc or f1."""
    value: float
    """In percent, as publications have it."""
    split: str
    """dev or test."""
    source: str
    """Where it stands."""
    note: str = ""
    """Why it can, or cannot, be compared."""


@dataclass(frozen=True)
class Layout:
    """The files of a set in one of its forms, and how they are read."""

    train: str = ""
    """Name of the file within the folder; empty where the form has none. Or a name on a hub."""
    dev: str = ""
    test: str = ""
    folders: tuple[str, ...] = ()
    """Names that the folder has, in any case; empty for data of a hub."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `data` to read train and dev."""
    test_data: Mapping[str, Any] | None = None
    """Settings to read test where they differ."""
    test_is_labelled: bool = False
    """Whether test has targets and is scored at the end of a run."""
    scored_test: str = ""
    """Another file with the test rows and their targets, for `bertune evaluate`."""
    scored_test_data: Mapping[str, Any] | None = None
    """Settings to read it where they differ."""
    first_line: str = ""
    """What stands in the first line of this form, where another one has files of the same names."""

    def file(self, split: str) -> str:
        """Return the name of the file of a split; empty where there is none."""
        return str(getattr(self, split))

    def reading(self, split: str) -> Mapping[str, Any]:
        """Return the settings of `data` that read a split."""
        return self.data if split != "test" or self.test_data is None else self.test_data


def remote_layout(
    name: str,
    data: Mapping[str, Any],
    splits: tuple[str, str, str] = ("train", "validation", "test"),
    *,
    test_is_labelled: bool = False,
) -> Layout:
    """Return the form of a data set of a hub, such as hub:nyu-mll/glue/cola.

    Args:
        name: the name with its prefix.
        data: settings of `data` to read it.
        splits: what the hub calls train, dev and test.
        test_is_labelled: whether test has targets and is scored at the end of a run.
    """
    train, dev, test = (f"{name}:{split}" for split in splits)
    return Layout(train, dev, test, data=data, test_is_labelled=test_is_labelled)


@dataclass(frozen=True)
class Leaderboard:
    """What the file of a leaderboard looks like."""

    file_name: str
    form: str
    """`glue`: index and prediction with a tab. `clue`: JSON lines with id and label. `cluener`: with id, text
    and entities."""
    rows: tuple[int, ...]
    """Rows of the official test set; of two, where it was exchanged."""
    labels: tuple[str, ...] = ()
    """What is written for each label, in the order of `NamedSet.labels`; empty for numbers."""
    descriptions: tuple[str, ...] = ()
    """The name of each label beside it (`label_desc` of TNEWS)."""
    old_name: str = ""
    """Name of the file for the test set that was exchanged (test1.0.json)."""


@dataclass(frozen=True)
class NamedSet:
    """A data set of a suite."""

    suite: str
    name: str
    title: str
    """One line for people."""
    task: str
    metric: str
    """The main metric of a run on it."""
    train_rows: int
    """Official count; 0 where the set has no training rows."""
    dev_rows: int
    layouts: tuple[Layout, ...]
    """Local forms, the first one that is found counts."""
    hub: Layout | None = None
    modelscope: Layout | None = None
    labels: tuple[str, ...] = ()
    """The labels in the order of their official ids."""
    options: Mapping[str, Any] = field(default_factory=dict)
    leaderboard: Leaderboard | None = None
    published: tuple[Published, ...] = ()
    trap: str = ""
    """What a user should know about its figures."""

    @property
    def full_name(self) -> str:
        """Return the name with its suite, such as glue:cola."""
        return f"{self.suite}:{self.name}"
