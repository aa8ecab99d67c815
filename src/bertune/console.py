"""What bertune shows while it works: lines through `logging`, a progress bar on a terminal.

Standard output is for data.

Lines go to the logger "bertune". Unless the program has given that logger a handler of its own, they are
written to stderr.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOGGER = logging.getLogger("bertune")


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, above the progress bar if there is one."""

    bar: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        line = record.getMessage()
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  (the one place that writes)


_HANDLER = _StderrHandler()


def _logger() -> logging.Logger:
    """Return the logger, with our handler if it has none."""
    if not LOGGER.handlers:
        LOGGER.addHandler(_HANDLER)
        LOGGER.propagate = False
        if LOGGER.level == logging.NOTSET:
            LOGGER.setLevel(logging.INFO)
    return LOGGER


class Console:
    """Shows lines, tables and a progress bar.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: tuple[Progress, TaskID] | None = None

    def info(self, line: str) -> None:
        """Show one line."""
        if not self.quiet:
            _logger().info("%s", line)

    def warning(self, message: str) -> None:
        """Show a problem that the work survives."""
        if not self.quiet:
            _logger().warning("warning: %s", message)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show a table with aligned columns."""
        for line in aligned(header, rows):
            self.info(line)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[None]:
        """Show a bar while the block runs, if this is a terminal; `advance` moves it."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
            self._bar = progress, progress.add_task(description, total=total)
            _HANDLER.bar = progress
            try:
                yield
            finally:
                self._bar = _HANDLER.bar = None

    def advance(self, done: int) -> None:
        """Move the bar to `done`."""
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=done)


def prefixed(console: Console, prefix: str = "data") -> Callable[[str], None]:
    """Return a function that shows lines which begin with `prefix` and a colon."""
    return lambda line: console.info(f"{prefix}: {line}")


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a table as lines: the first column to the left, the others to the right.

    >>> aligned(["name", "n"], [["a", "10"]])
    ['name   n', 'a     10']
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first = row[0] + " " * (widths[0] - display_width(row[0]))
        rest = [
            " " * (width - display_width(cell)) + cell
            for cell, width in zip(row[1:], widths[1:], strict=True)
        ]
        lines.append("  ".join([first, *rest]).rstrip())
    return lines


def display_width(text: str) -> int:
    """Return how many terminal columns a text takes: a Chinese character takes two."""
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


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep reports, warnings and progress bars of transformers off the screen: bertune says what matters."""
    from transformers.utils import logging as hf_logging

    level, has_bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        if has_bars:
            hf_logging.enable_progress_bar()
