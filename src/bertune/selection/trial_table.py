"""The trials of a search on a terminal: a live table while they run, a table of the best at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from rich.cells import cell_len, set_cell_size

from bertune.console import Console, duration, terminal_width
from bertune.selection.space import SearchSpace
from bertune.selection.trial_text import (
    NOTHING,
    by_score,
    last_score,
    printable,
    score_text,
    setting_names,
    short_names,
    span_text,
    states_text,
    value_text,
)
from bertune.selection.trials import Study, Trial

GAP = 2
HEADER_LINES = 2
MAX_COLUMN_WIDTH = 18
MAX_VALUE_LENGTH = 60
"""Of a value in a line of a log."""
NUM_BEST = 10
STYLES = {"pruned": "dim", "failed": "red", "running": "cyan", "complete": ""}
FINISHED = ("complete", "pruned", "failed")


class TrialTable:
    """Shows the trials of a search on standard error.

    On a terminal a table stays below all other lines while trials run. Elsewhere each trial that has finished
    is a line. At the end the best trials are a table.

    Args:
        console: where to.
        space: the settings that are searched, in the order of their columns.
        time_limit: the search ends after so many seconds.
        earlier: trials of earlier calls, which are not told again.
    """

    def __init__(
        self,
        console: Console,
        space: SearchSpace,
        time_limit: float | None = None,
        earlier: Study | None = None,
    ) -> None:
        self._console, self._space, self._time_limit = console, space, time_limit
        self._study = earlier
        self._told = {trial.number for trial in earlier.trials if _is_finished(trial)} if earlier else set()
        self._began = time.monotonic()
        self._updated = self._began
        self._refresh: Callable[[], None] | None = None
        self._live = ExitStack()

    def __enter__(self) -> TrialTable:
        """Show the table."""
        self._began = self._updated = time.monotonic()
        self._refresh = self._live.enter_context(self._console.live(self._render))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the live table, and show the best trials."""
        self._live.close()
        if self._study is not None and any(_is_finished(trial) for trial in self._study.trials):
            for line in final_lines(self._study, self._space, terminal_width()):
                self._console.info(line)

    def update(self, study: Study) -> None:
        """Show the trials as they are now."""
        self._study, self._updated = study, time.monotonic()
        for trial in study.trials:
            if _is_finished(trial) and trial.number not in self._told:
                self._told.add(trial.number)
                if self._refresh is None or trial.state == "failed":  # a reason finds no place in the table
                    self._console.info(trial_line(trial, study))
        if self._refresh is not None:
            self._refresh()

    def _render(self, width: int, height: int) -> list[tuple[str, str]]:
        if self._study is None:
            return [("no trials yet", "")]
        now = time.monotonic()
        elapsed, since = now - self._began, now - self._updated
        left = seconds_left(self._study, since)
        if self._time_limit is not None:
            until_limit = max(self._time_limit - elapsed, 0.0)
            left = until_limit if left is None else min(left, until_limit)
        summary = summary_lines(self._study, width, elapsed, left)
        return live_lines(self._study, self._space, width, height, summary, since)


def trial_line(trial: Trial, study: Study) -> str:
    """Return all about a finished trial in one line, for a log."""
    best = study.best
    score = last_score(trial)
    if trial.state == "complete":
        outcome = f"{study.metric} {score_text(score)}{' (best so far)' if trial is best else ''}"
    elif trial.state == "pruned":
        after = len(trial.evaluations)
        outcome = f"pruned after {after} evaluation{'s' if after != 1 else ''} with {score_text(score)}"
    else:
        outcome = trial.state + (f": {printable(trial.reason)}" if trial.reason else "")
    names = short_names(trial.settings)
    settings = " ".join(
        f"{printable(names[name])}={_shorten(value_text(value), MAX_VALUE_LENGTH)}"
        for name, value in trial.settings.items()
    )
    return f"trial {trial.number}: {outcome}  {duration(trial.seconds)}  {settings}".rstrip()


def seconds_left(study: Study, since: float = 0.0) -> float | None:
    """Estimate how long the other trials take: the mean of those that have finished; None before the first.

    Args:
        study: the trials so far.
        since: seconds that have passed since.
    """
    finished = [trial.seconds for trial in study.trials if _is_finished(trial)]
    if not finished:
        return None
    mean = sum(finished) / len(finished)
    running = [trial for trial in study.trials if trial.state == "running"]
    waiting = max(study.planned - len(finished) - len(running), 0)
    of_running = sum(max(mean - trial.seconds - since, 0.0) for trial in running)
    return (waiting * mean + of_running) / max(len(running), 1)


def summary_lines(study: Study, width: int, elapsed: float, left: float | None) -> list[str]:
    """Return how far the search is, in as many lines as the width needs."""
    finished = sum(map(_is_finished, study.trials))
    parts = [f"{finished}/{study.planned} trials"]
    parts += [f"{study.count('pruned')} pruned"] if study.count("pruned") else []
    parts += [f"{study.count('failed')} failed"] if study.count("failed") else []
    best = study.best
    if best is not None:
        parts.append(f"best {printable(study.metric)} {score_text(best.score)} (trial {best.number})")
    parts.append(duration(elapsed) + (f", about {duration(left)} left" if left else ""))
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}" if lines[-1] else part
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return [_shorten(line, width) for line in lines if line]


def live_lines(
    study: Study,
    space: SearchSpace,
    width: int,
    height: int,
    summary: Sequence[str] = (),
    since: float = 0.0,
) -> list[tuple[str, str]]:
    """Return the lines of the live table with the style of each: never wider or higher than the terminal.

    Args:
        study: the trials so far.
        space: the settings that are searched.
        width: characters of a line.
        height: lines of the terminal.
        summary: lines above the table.
        since: seconds that running trials have run beyond what the study says.
    """
    running = [
        _shorten(f"trial {t.number} so far: {', '.join(map(score_text, t.evaluations[-12:]))}", width)
        for t in study.trials
        if t.state == "running" and t.evaluations
    ][-3:]
    room = max(height - len(summary) - len(running) - HEADER_LINES - 2, 1)  # a note, the line of the cursor
    shown = _newest(study, room)
    header, rows, hidden = _layout(study, space, shown, width, since)
    notes = _hidden_settings(hidden, width)
    lines = [(line, "bold") for line in summary] + [(line, "dim") for line in header]
    best = study.best
    for trial, row in zip(shown, rows, strict=True):
        lines.append((row, "bold green" if trial is best else STYLES[trial.state]))
    lines += [(line, "cyan") for line in running] + [(line, "dim") for line in notes]
    return lines[: max(height - 1, 1)]


def final_lines(study: Study, space: SearchSpace, width: int) -> list[str]:
    """Return the best trials as a table, and how many there are of each state."""
    shown = [trial for trial in by_score(study) if trial.state == "complete"][:NUM_BEST]
    if not shown:
        failed = [trial for trial in study.trials if trial.state == "failed" and trial.reason]
        reason = (
            [_shorten(f"trial {failed[-1].number}: {printable(failed[-1].reason)}", width)] if failed else []
        )
        return [_shorten(f"no trial ran to its end: {states_text(study)}", width), *reason]
    header, rows, hidden = _layout(study, space, shown, width, 0.0)
    count = f"{len(study.trials)} trials: {states_text(study)}"
    if len(shown) < study.count("complete"):
        count += f"; the best {len(shown)} are shown"
    return [*header, *rows, _shorten(count, width), *_hidden_settings(hidden, width)]


def _is_finished(trial: Trial) -> bool:
    return trial.state in FINISHED


def _newest(study: Study, room: int) -> list[Trial]:
    """Return the newest trials, and the best one above them where it is older."""
    newest = list(study.trials[-room:])
    best = study.best
    if best is not None and best not in newest:
        newest = [best, *newest[len(newest) - room + 1 :]] if room > 1 else newest
    return newest


def _layout(
    study: Study, space: SearchSpace, shown: Sequence[Trial], width: int, since: float
) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of the header, the rows, and the names of the settings that found no place."""
    best = study.best
    columns = [
        _Column("trial  ", [f"{t.number}{' *' if t is best else '  '}" for t in shown]),
        _Column("state", [t.state for t in shown], to_left=True),
        _Column(printable(study.metric), [score_text(last_score(t)) for t in shown]),
        _Column("time", [span_text(t.seconds + (since if t.state == "running" else 0)) for t in shown]),
    ]
    names = setting_names(study, space)
    short = short_names(names)
    used = sum(column.width + GAP for column in columns)
    hidden = []
    for name in names:
        texts = [value_text(t.settings[name]) if name in t.settings else NOTHING for t in shown]
        column = _Column(printable(short[name]), texts)
        if used + column.width <= width:
            columns.append(column)
            used += column.width + GAP
        else:
            hidden.append(printable(short[name]))
    cells = zip(*(column.cells() for column in columns), strict=True)
    lines = [_shorten((" " * GAP).join(row).rstrip(), width) for row in cells]
    is_one_line = not lines[0].strip()
    return lines[is_one_line:HEADER_LINES], lines[HEADER_LINES:], hidden


class _Column:
    """A header of two lines and a value for each row."""

    def __init__(self, name: str, texts: list[str], *, to_left: bool = False) -> None:
        texts = [*_two_lines(name), *texts]
        self.width = min(max(map(cell_len, texts)), MAX_COLUMN_WIDTH)
        self._texts, self._to_left = texts, to_left

    def cells(self) -> list[str]:
        """Return header and values, all of one width."""
        cells = [_shorten(text, self.width) for text in self._texts]
        blanks = [" " * (self.width - cell_len(cell)) for cell in cells]
        return [cell + b if self._to_left else b + cell for cell, b in zip(cells, blanks, strict=True)]


def _two_lines(name: str) -> tuple[str, str]:
    """Divide the name of a setting where the longer part is shortest.

    >>> _two_lines("learning_rate"), _two_lines("epochs"), _two_lines("a_very_long_name")
    (('learning', 'rate'), ('', 'epochs'), ('a_very', 'long_name'))
    """
    words = name.split("_")
    divided = [("_".join(words[:i]), "_".join(words[i:])) for i in range(1, len(words))]
    return min(divided, key=lambda lines: max(map(cell_len, lines)), default=("", name))


def _shorten(text: str, width: int) -> str:
    """Cut a text, with dots where something is missing."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 2, 0)).rstrip() + ".."[:width]


def _hidden_settings(names: Sequence[str], width: int) -> list[str]:
    if not names:
        return []
    more = f"{len(names)} more setting{'s' if len(names) > 1 else ''}, in trials.jsonl: "
    return [_shorten(more + ", ".join(names), width)]
