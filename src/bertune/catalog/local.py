"""Where the files of a named set are below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertune.catalog.named_set import SPLITS, Layout, NamedSet
from bertune.data.lines import open_binary

_COLLECTIONS = ("glue", "glue_data", "clue", "CLUEdatasets", "ner", "sts")
"""Folders that hold the folders of several sets."""


@dataclass(frozen=True)
class Found:
    """A form of a set whose files are there, at least some of them."""

    layout: Layout
    folder: Path

    def path(self, split: str) -> Path:
        """Return where the file of a split should be; a compressed one where that is there alone."""
        path = self.folder / self.layout.file(split)
        packed = path.with_name(f"{path.name}.gz")
        return packed if not path.is_file() and packed.is_file() else path

    def has(self, split: str) -> bool:
        """Tell whether the file of a split is there."""
        return bool(self.layout.file(split)) and self.path(split).is_file()

    def missing(self) -> list[Path]:
        """Return the files that training needs and that are not there."""
        return [
            self.path(split) for split in ("train", "dev") if self.layout.file(split) and not self.has(split)
        ]


def find_files(named_set: NamedSet, root: Path, split: str = "") -> Found | None:
    """Return the form of a set that is below a folder, and where; None where no file of it is there.

    A form with all files of train and dev is taken before one that lacks some.

    Args:
        named_set: the set.
        root: a folder with the folder of the set, with such a folder as `glue`, or the folder itself.
        split: a split that must be there.
    """
    found = [
        Found(layout, folder) for layout in named_set.layouts for folder in _folders(named_set, layout, root)
    ]
    present = [f for f in found if any(f.has(s) for s in SPLITS) and _is_form(f)]
    if split:
        with_split = [f for f in present if f.has(split)]
        present = with_split or present
    return min(present, key=lambda f: (bool(f.missing()), sum(not f.has(s) for s in SPLITS)), default=None)


def _folders(named_set: NamedSet, layout: Layout, root: Path) -> Iterator[Path]:
    """Yield the folders that may hold the files of a form."""
    wanted = {name.lower() for name in (*layout.folders, named_set.name)}
    collections = {named_set.suite.lower(), *(name.lower() for name in _COLLECTIONS)}
    below = _subfolders(root)
    for folder in below:
        if folder.name.lower() in wanted:
            yield folder
    for folder in below:
        if folder.name.lower() in collections:
            yield from (inner for inner in _subfolders(folder) if inner.name.lower() in wanted)
    if root.resolve().name.lower() in wanted:
        yield root


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _is_form(found: Found) -> bool:
    """Tell whether the first line is that of this form."""
    wanted = found.layout.first_line
    if not wanted:
        return True
    split = next(split for split in SPLITS if found.has(split))
    with open_binary(str(found.path(split))) as file:
        return wanted in file.readline().decode("utf-8", "replace")
