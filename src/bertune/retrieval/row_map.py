"""Where the rows of a file of vectors come from, if they are not simply its lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bertune.files import part_of
from bertune.retrieval.corpus import CorpusRow
from bertune.retrieval.writers import report_write_errors

HEADER = "row\tline\n"


def row_map_path(path: Path) -> Path:
    """Return where the map of a file of vectors is.

    >>> row_map_path(Path("x.npy")).name
    'x.npy.rows.tsv'
    """
    return path.with_name(path.name + ".rows.tsv")


def write_row_map(path: Path, rows: Iterable[CorpusRow]) -> Iterator[CorpusRow]:
    """Yield the rows; when the last was asked for, the map of `path` is written.

    It has a line a vector: its row in the array, from 0, and the line of the corpus on which its row begins.

    Raises:
        ConfigError: it cannot be written.
    """
    target = row_map_path(path)
    with report_write_errors(target):
        file = part_of(target).open("w", encoding="utf-8")
    with file:
        file.write(HEADER)
        for number, row in enumerate(rows):
            with report_write_errors(target):
                file.write(f"{number}\t{row.line}\n")
            yield row
    with report_write_errors(target):
        part_of(target).replace(target)


def remove_row_map(path: Path, rows: Iterable[CorpusRow]) -> Iterator[CorpusRow]:
    """Yield the rows; when the last was asked for, the map of an earlier `path` is removed."""
    yield from rows
    target = row_map_path(path)
    with report_write_errors(target):
        if target.is_file() and target.read_bytes().startswith(HEADER.encode()):
            target.unlink()
