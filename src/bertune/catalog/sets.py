"""Data sets by name: `glue:cola` to the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bertune.catalog.clue import CLUE
from bertune.catalog.glue import GLUE
from bertune.catalog.local import Found, find_files
from bertune.catalog.named_set import SPLITS, Layout, NamedSet, Note
from bertune.catalog.ner import NER
from bertune.catalog.sts import STS
from bertune.errors import ConfigError, did_you_mean

SUITES: Mapping[str, tuple[NamedSet, ...]] = MappingProxyType(
    {"glue": GLUE, "clue": CLUE, "ner": NER, "sts": STS}
)
"""The sets by suite."""
REMOTES = ("hub", "modelscope")


def is_set_name(text: object) -> bool:
    """Tell whether a text begins like the name of a set, such as glue:cola or glue:cola:test.

    >>> is_set_name("glue:cola"), is_set_name("hub:glue/cola"), is_set_name("classify")
    (True, False, False)
    """
    suite, colon, rest = str(text).partition(":")
    return bool(colon and rest) and suite in SUITES and not Path(str(text)).exists()


def refuse_unknown_suite(task: str) -> None:
    """Refuse a task that looks like the name of a set of a suite with a slip, such as glu:cola.

    Raises:
        ConfigError: it does.
    """
    suite, colon, rest = task.partition(":")
    near = did_you_mean(suite, SUITES)
    if colon and suite not in SUITES and near and not set(rest) & {"/", "\\", "."}:
        raise ConfigError(f"{task!r}: {suite!r} is no suite of data sets{near}; suites: {', '.join(SUITES)}")


def find_set(name: str) -> NamedSet:
    """Return the set of a name such as glue:cola.

    Raises:
        ConfigError: there is none of that name.
    """
    suite, _, rest = name.partition(":")
    if suite not in SUITES:
        raise ConfigError(f"{name!r} is no named set; suites: {', '.join(SUITES)} (bertune sets lists them)")
    by_name = {named_set.name: named_set for named_set in SUITES[suite]}
    if rest not in by_name:
        others = [f"{other}:{rest}" for other in SUITES if any(s.name == rest for s in SUITES[other])]
        hint = f"; did you mean {' or '.join(others)}?" if others else did_you_mean(rest, by_name)
        raise ConfigError(f"{suite} has no set {rest!r}{hint}; sets: {', '.join(by_name)}")
    return by_name[rest]


def split_name(name: str) -> tuple[NamedSet, str]:
    """Return the set and the split of a name such as glue:cola:test; the split is empty where none is named.

    Raises:
        ConfigError: there is no such set or split.
    """
    suite, _, rest = name.partition(":")
    set_name, colon, split = rest.partition(":")
    named_set = find_set(f"{suite}:{set_name}")
    if colon and split not in SPLITS:
        raise ConfigError(
            f"{name}: {split!r} is no split{did_you_mean(split, SPLITS)}; write one of {', '.join(SPLITS)}"
        )
    return named_set, split


def set_settings(named_set: NamedSet, root: str | Path | None, note: Note) -> dict[str, Any]:
    """Return the settings of a run on a set: task, data and options.

    Args:
        named_set: the set.
        root: the folder of its files; None or "hub" for the Hub, "modelscope" for ModelScope.
        note: called with each line that a user should see.

    Raises:
        ConfigError: files are missing; or the set has no training rows, or is not where it is asked for.
    """
    _refuse_without_training(named_set)
    layout, files = _locate(named_set, root)
    if isinstance(root, str | Path) and str(root).rstrip(":") not in REMOTES:
        found = _found(named_set, Path(root))
        _refuse_missing(named_set, found, Path(root))
    data = {**layout.data}
    for split in SPLITS:
        if files.get(split) and (split != "test" or layout.test_is_labelled):
            data[split] = files[split]
    note(f"{named_set.full_name}: {', '.join(f'{split} {data[split]}' for split in SPLITS if split in data)}")
    if root is None:
        note(f"{named_set.full_name}: comes from the Hub; data.root=FOLDER reads files of yours instead")
    if named_set.trap:
        note(f"{named_set.full_name}: {named_set.trap}")
    return {"task": named_set.task, "data": data, "options": dict(named_set.options)}


def rows_settings(
    named_set: NamedSet, split: str, root: str | Path | None, *, scored: bool = False
) -> tuple[str, dict[str, Any]]:
    """Return the file of a split, and the settings of `data` that read it.

    Args:
        named_set: the set.
        split: train, dev or test.
        root: as for `set_settings`.
        scored: whether the rows need targets.

    Raises:
        ConfigError: the file is missing, or the set has no such split, or no targets for it.
    """
    layout, files = _locate(named_set, root, split)
    if scored and split == "test" and not layout.test_is_labelled:
        return _scored_test(named_set, layout, root)
    if not files.get(split):
        have = ", ".join(name for name in SPLITS if files.get(name)) or "none"
        wanted = f" ({layout.file(split)})" if layout.file(split) else ""
        raise ConfigError(f"{named_set.full_name}: has no {split} rows here{wanted}; it has {have}")
    return files[split], dict(layout.reading(split))


def _scored_test(named_set: NamedSet, layout: Layout, root: str | Path | None) -> tuple[str, dict[str, Any]]:
    """Return the file of the test rows that has targets, and the settings that read it."""
    if layout.scored_test and root is not None:
        path = _found(named_set, Path(root)).folder / layout.scored_test
        if path.is_file():
            return str(path), dict(
                layout.data if layout.scored_test_data is None else layout.scored_test_data
            )
    submit = "; bertune predict --format leaderboard writes what its leaderboard takes" * bool(
        named_set.leaderboard
    )
    raise ConfigError(
        f"{named_set.full_name}: its test rows have no targets to score; {named_set.full_name}:dev has"
        f"{submit}"
    )


def why_not_runnable(named_set: NamedSet, root: str | Path | None) -> str:
    """Return why a run on a set cannot begin, such as "QNLI/train.tsv is not in DIR"; empty if it can.

    Whether a hub can be reached is not tried.
    """
    try:
        set_settings(named_set, root, lambda _: None)
    except ConfigError as error:
        return str(error).removeprefix(f"{named_set.full_name}: ")
    return ""


def _refuse_without_training(named_set: NamedSet) -> None:
    if not any(layout.train for layout in named_set.layouts):
        raise ConfigError(f"{named_set.full_name}: {named_set.trap}")


def _locate(named_set: NamedSet, root: str | Path | None, split: str = "") -> tuple[Layout, dict[str, str]]:
    """Return the form of a set, and its files by split."""
    if root is None or str(root).rstrip(":") in REMOTES:
        where = "hub" if root is None else str(root).rstrip(":")
        layout = named_set.hub if where == "hub" else named_set.modelscope
        if layout is None:
            place = "the Hub" if where == "hub" else "ModelScope"
            raise ConfigError(
                f"{named_set.full_name}: is not known to be on {place}; "
                "give the folder of its files: data.root=DIR"
            )
        return layout, {name: layout.file(name) for name in SPLITS if layout.file(name)}
    found = _found(named_set, Path(root), split)
    return found.layout, {name: str(found.path(name)) for name in SPLITS if found.has(name)}


def _found(named_set: NamedSet, root: Path, split: str = "") -> Found:
    """Return the form of a set below a folder.

    Raises:
        ConfigError: no file of it is there.
    """
    if not root.is_dir():
        raise ConfigError(f"data.root: {str(root)!r} is no folder")
    found = find_files(named_set, root, split)
    if found is None:
        expected = ", ".join(dict.fromkeys(_expected(layout) for layout in named_set.layouts))
        raise ConfigError(f"{named_set.full_name}: {expected} is not in {root}")
    return found


def _expected(layout: Layout) -> str:
    return f"{layout.folders[0]}/{layout.train or layout.dev or layout.test}"


def _refuse_missing(named_set: NamedSet, found: Found, root: Path) -> None:
    missing = found.missing()
    if missing:
        names = " and ".join(str(path.relative_to(found.folder.parent)) for path in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{named_set.full_name}: {names} {verb} not in {root}")
