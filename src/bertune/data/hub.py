"""Data sets of the Hub and of ModelScope to records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertune.data.records import Record
from bertune.errors import DataError, MissingExtra
from bertune.files import split_remote


def read_remote(source: str) -> Iterator[Record]:
    """Yield the rows of `hub:NAME` or `modelscope:NAME`, with optional `/CONFIG` and `:SPLIT`.

    NAME is that of a data set, OWNER/NAME, or for the Hub a local folder. Numbers of labels become the names
    that the data set gives them.

    Raises:
        MissingExtra: the package that reads it is missing.
        DataError: it cannot be loaded.
    """
    name, split = split_remote(source)
    prefix, _, path = name.partition(":")
    load, place = (_load_from_hub, "the Hub") if prefix == "hub" else (_load_from_modelscope, "ModelScope")
    problem: Exception | None = None
    for arguments in _load_arguments(path):
        try:
            loaded = load(source, arguments, split or "train")
        except (OSError, ValueError, RuntimeError) as error:
            problem = problem or error  # the first way is the likely one
            continue
        yield from _records(loaded)
        return
    reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    raise DataError(f"{source}: cannot be loaded from {place}: {reason}")


def _load_from_hub(source: str, arguments: tuple[str, ...], split: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hub", f"{source!r}") from None
    return datasets.load_dataset(*arguments, split=split)


def _load_from_modelscope(source: str, arguments: tuple[str, ...], split: str) -> Any:
    try:
        from modelscope.msdatasets import MsDataset
    except ImportError:
        raise MissingExtra("modelscope", "modelscope", f"{source!r}") from None
    name, *subset = arguments
    try:
        loaded = MsDataset.load(name, subset_name=subset[0] if subset else "default", split=split)
    except Exception as error:  # its own errors have no root but Exception
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    return loaded.to_hf_dataset() if hasattr(loaded, "to_hf_dataset") else loaded


def _records(loaded: Any) -> Iterator[Record]:
    """Yield the rows of a data set of the package `datasets`, with the names of labels."""
    name_of = {column: _label_names(feature) for column, feature in loaded.features.items()}
    to_names = {column: convert for column, convert in name_of.items() if convert is not None}
    for line, record in enumerate(loaded, 1):
        for column, convert in to_names.items():
            record[column] = convert(record[column])
        yield Record(line, record)


def _label_names(feature: Any) -> Callable[[Any], Any] | None:
    """Return what turns the values of a column into names; None for a column without numbers of labels."""
    if hasattr(feature, "int2str"):
        # GLUE and others write -1 where a test split has no label.
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    element: Any = getattr(feature, "feature", None)  # such as a list of tags
    if hasattr(element, "int2str"):
        return lambda ids: None if ids is None else [element.int2str(tag) for tag in ids]
    return None


def _load_arguments(name: str) -> list[tuple[str, ...]]:
    """Return the arguments to try: the whole name, and a name with a configuration."""
    parts = name.split("/")
    if len(parts) == 1 or Path(name).exists():
        return [(name,)]
    tries: list[tuple[str, ...]] = [(name,), ("/".join(parts[:-1]), parts[-1])]
    return tries[::-1] if len(parts) == 3 else tries
