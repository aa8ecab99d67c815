"""What bertune shows while it works: lines through `logging`; on a terminal a progress bar, or a live table.

Standard output is for data.

Lines go to the logger "bertune". Unless the program has given that logger a handler of its own, they are
written to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.progress import Progress, TaskID

LOGGER = logging.getLogger("bertune")


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, above the progress bar or the live lines if there are any."""

    display: Progress | Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        line = record.getMessage()
        if self.display is not None:
            self.display.console.print(line, markup=False, highlight=False, soft_wrap=True)
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
        """Show a bar while the block runs, if this is a terminal without live lines; `advance` moves it."""
        if self.quiet or not sys.stderr.isatty() or _HANDLER.display is not None:
            yield
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
            self._bar = progress, progress.add_task(description, total=total)
            _HANDLER.display = progress
            try:
                yield
            finally:
                self._bar = _HANDLER.display = None

    def advance(self, done: int) -> None:
        """Move the bar to `done`."""
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=done)

    @contextmanager
    def live(self, render: Render) -> Iterator[Callable[[], None] | None]:
        """Keep lines up to date below all others while the block runs, if this is a terminal.

        Other lines appear above them. Bars of `progress` do not appear meanwhile.

        Args:
            render: is called about once a second, in a thread of its own, too.

        Yields:
            A function that shows at once what has changed; None where nothing is shown.
        """
        if self.quiet or not sys.stderr.isatty() or _HANDLER.display is not None:
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.live import Live

        console = RichConsole(stderr=True)
        if console.is_dumb_terminal:  # it cannot go back to a line
            yield None
            return
        live = Live(
            _LiveLines(render),
            console=console,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,  # that is for data
            vertical_overflow="crop",
        )
        with live:
            _HANDLER.display = live
            try:
                yield live.refresh
            finally:
                _HANDLER.display = None


Render = Callable[[int, int], Sequence[tuple[str, str]]]
"""Returns lines and the style of each, such as "bold", for a width and a height in characters."""


class _LiveLines:
    """What `rich` shows of lines that change."""

    def __init__(self, render: Render) -> None:
        self._render = render

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Give the lines of the moment."""
        from rich.text import Text

        for line, style in self._render(console.width, console.height):
            # As stderr will write it: an escape is wider than its character, and a line that wraps would
            # shift all others.
            written = line.encode(console.encoding, "backslashreplace").decode(console.encoding)
            yield Text(written, style, no_wrap=True, overflow="crop")


def terminal_width() -> int:
    """Return the width of the terminal in characters; 80 where there is none."""
    from shutil import get_terminal_size

    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return get_terminal_size().columns


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
