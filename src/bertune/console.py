"""What bertune says while it works: lines on stderr, a bar only on a terminal. Standard output is for data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class Console:
    """Writes lines, tables and a bar; `quiet` writes nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: tuple[Progress, TaskID] | None = None

    def say(self, line: str) -> None:
        """Write one line."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar[0].console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is the one place that talks)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table with aligned columns."""
        for line in aligned(header, rows):
            self.say(line)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[None]:
        """Show a bar while the block runs, if this is a terminal; `tick` moves it."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            self._bar = progress, progress.add_task(what, total=total)
            try:
                yield
            finally:
                self._bar = None

    def tick(self, done: int) -> None:
        """Move the bar to `done`."""
        if self._bar is not None:
            self._bar[0].update(self._bar[1], completed=done)


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a table as lines, the first column to the left, numbers to the right.

    >>> aligned(["name", "n"], [["a", "10"]])
    ['name   n', 'a     10']
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first = row[0] + " " * (widths[0] - _width(row[0]))
        rest = [" " * (w - _width(cell)) + cell for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return lines


def _width(text: str) -> int:
    """Return how many terminal columns a text takes: Chinese characters take two."""
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def duration(seconds: float) -> str:
    """Write a time span.

    >>> duration(3725), duration(61), duration(4.2)
    ('1 h 02 min', '1 min 01 s', '4.2 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def prefixed(talk: Console, about: str = "data") -> Callable[[str], None]:
    """Return what says a line about something."""
    return lambda line: talk.say(f"{about}: {line}")
