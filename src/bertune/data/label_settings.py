"""Labels that settings name, found among the labels of the data: by their text, else by their value.

YAML and Python have numbers, booleans and null, csv files have texts: a setting 2 means the label "02" where
no label is "2", and true means "True".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bertune.data.labels import format_label, read_labels, sort_labels
from bertune.errors import ConfigError, did_you_mean, listed

_WORDS = {"null": None, "none": None, "~": None, "true": True, "false": False}


def label_value(label: str) -> object:
    """Return the value of a label as YAML would read it: equal for "2", "02" and "2.0"; else the label.

    >>> label_value("02") == label_value("2.0"), label_value("True") == label_value("true")
    (True, True)
    >>> label_value("1") == label_value("true"), label_value("Late") == label_value("late")
    (False, False)
    """
    word = label.lower()
    if word in _WORDS:
        return ("word", _WORDS[word])
    try:
        number = float("_" if "_" in label else label)  # Python reads 1_000 as a number
    except ValueError:
        return label
    return number if math.isfinite(number) else label


def find_labels(given: Sequence[str], labels: Iterable[str], setting: str) -> dict[str, str]:
    """Return the label of the data for each label of a setting that there is.

    Args:
        given: the labels that the setting names.
        labels: those of the data.
        setting: its name, for messages.

    Raises:
        ConfigError: a label may mean several labels of the data, or two labels mean the same.
    """
    known = dict.fromkeys(labels)
    by_value: dict[object, list[str]] = defaultdict(list)
    for label in known:
        by_value[label_value(label)].append(label)
    found = {name: name for name in given if name in known}
    for name in given:
        if name in found:
            continue
        same = [label for label in by_value.get(label_value(name), []) if label not in found]
        if len(same) > 1:
            raise ConfigError(
                f"{setting}: {name!r} may mean {' or '.join(map(repr, same))}; write the label in quotes, "
                f"as the data has it"
            )
        if same and same[0] in found.values():
            twice = [other for other in given if found.get(other) == same[0]]
            raise ConfigError(f"{setting}: {name!r} and {twice[0]!r} are both the label {same[0]!r}")
        if same:
            found[name] = same[0]
    return found


def unknown_labels(given: Iterable[str], labels: Sequence[str]) -> str:
    """Return what to say about labels of a setting that the data lacks: each with the label it may mean."""
    names = list(given)
    shown = ", ".join(f"{name!r}{_nearest(name, labels)}" for name in names[:5])
    more = f", ... ({len(names)} in all)" if len(names) > 5 else ""
    return f"{shown}{more}; labels: {listed(labels)}"


def _nearest(name: str, labels: Sequence[str]) -> str:
    guess = did_you_mean(name, labels).removeprefix("; ")
    return f" ({guess})" if guess else ""


def all_labels(given: list[str] | str | None, seen: Iterable[str]) -> tuple[str, ...]:
    """Return all labels of a task: those of `data.labels`, each as the rows write it, else those of the rows.

    Args:
        given: `data.labels`.
        seen: the labels of the training rows.

    Raises:
        ConfigError: `data.labels` cannot be read, or is ambiguous.
    """
    names = read_labels(given)
    if names is None:
        return sort_labels(seen)
    found = find_labels(names, seen, "data.labels")
    return tuple(found.get(name, name) for name in names)


class LabelFilter:
    """Tells which rows `data.drop_labels` leaves out, over the files of a run.

    A label that the setting writes another way, 2 for "02", counts where no row has it as written.

    Args:
        given: the labels of the setting.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self._given = tuple(dict.fromkeys(given))
        self._by_value = {label_value(name): name for name in self._given}
        self.meant: dict[str, str] = {}
        """Labels that were found by their value: that of the setting, that of the rows."""
        self._found: set[str] = set()
        self._seen: dict[str, None] = {}
        self._same_value: dict[str, dict[str, list[int]]] = {}

    def drops(self, target: Any, index: int) -> bool:
        """Tell whether a row is left out for certain; remember it where only the end of the file can tell.

        Args:
            target: what the row has as target.
            index: the number of the row among those that are kept so far.
        """
        labels = [format_label(v) for v in (target if isinstance(target, tuple) else (target,))]
        written = [label for label in labels if label in self._given]
        self._found.update(written)
        if written:
            return True
        for label in labels:
            if len(self._seen) < 100_000:
                self._seen[label] = None
            name = self._by_value.get(label_value(label))
            if name is not None:
                self._same_value.setdefault(name, {}).setdefault(label, []).append(index)
        return False

    def finish_file(self) -> list[int]:
        """Return the kept rows that are left out after all, since they have a label by its value.

        Raises:
            ConfigError: a label of the setting may mean several labels of the rows.
        """
        dropped: set[int] = set()
        for name, rows_by_label in self._same_value.items():
            if name in self._found:
                continue
            meant = find_labels([name], rows_by_label, "data.drop_labels")[name]
            dropped.update(rows_by_label[meant])
            self.meant[name] = meant
            self._found.add(name)
        self._same_value.clear()
        return sorted(dropped)

    def idle(self) -> Iterator[str]:
        """Yield a line for the labels of the setting that no row had."""
        missing = [name for name in self._given if name not in self._found]
        if missing:
            yield (
                f"data.drop_labels has no effect for {unknown_labels(missing, sort_labels(self._seen))}: "
                "no row has it"
            )
