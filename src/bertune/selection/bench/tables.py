"""The tables of a bench as cells of text: for the terminal, Markdown and the page alike."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from bertune.console import aligned, display_width
from bertune.selection.bench.plan import PublishedFigure, Variant
from bertune.selection.bench.result import BenchResult, SetResult, SuiteScore, seeds_text
from bertune.selection.bench.versus import SetVersus, Versus
from bertune.selection.trial_text import NOTHING, printable, score_text, span_text

WIDTH = 80
_MAX_NAME, _MIN_NAME = 24, 8


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        kinds: of each row: "", "mean" of the suite, "weak" for what has no number.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the table for a terminal; names are cut where it would be too wide."""
        width = _MAX_NAME
        while True:
            cells = [(short_text(row[0], width), *row[1:]) for row in self.rows]
            lines = aligned(self.header, cells)
            if width == _MIN_NAME or max(map(display_width, lines)) <= WIDTH:
                notes = [line for note in self.notes for line in textwrap.wrap(note, WIDTH)]
                return [self.title, *lines, *notes]
            width -= 1


def interval_text(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Write an interval.

    >>> interval_text((0.5, 0.61)), interval_text((-0.1, 0.2), signed=True), interval_text(None)
    ('0.5000 to 0.6100', '-0.1000 to +0.2000', '-')
    """
    if interval is None or not all(map(math.isfinite, interval)):
        return NOTHING
    low, high = (("+" if signed and end >= 0 else "") + score_text(end) for end in interval)
    return f"{low} to {high}"


def short_text(text: str, width: int) -> str:
    """Return a text in one line, its end if it is too wide."""
    text = printable(" ".join(text.split()))
    if display_width(text) <= width:
        return text
    while display_width(text) > width - 2:
        text = text[1:]
    return f"..{text}"


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else NOTHING


def score_table(result: BenchResult, variant: Variant, *, published: bool = False) -> Table:
    """Return the scores and costs of one model: a row a set and split, and the mean of the suite.

    Args:
        result: of a bench.
        variant: the model.
        published: add a column with a published figure of each set and split.
    """
    rows: list[tuple[str, ...]] = []
    kinds: list[str] = []
    for each in result.of(variant):
        rows += _score_rows(each)
        kinds += ["" if each.done else "weak"] * (len(rows) - len(kinds))
    for split in ("dev", "test"):
        score = result.suite_score(variant, split)
        if score is not None:
            name = "mean" if split == "dev" else ""
            interval = interval_text(score.spread.interval)
            rows.append(
                (name, split, f"{len(score.sets)} sets", score_text(score.spread.mean), interval, "", "", "")
            )
            kinds.append("mean")
    header: tuple[str, ...] = ("set", "split", "metric", "score", "95 % interval", "train", "rows/s", "GB")
    wide = _with_published(rows, result)
    if published and any(row[-1] for row in wide):
        header, rows = (*header, "published"), wide
    return Table(variant.name, header, tuple(rows), tuple(_score_notes(result, variant)), tuple(kinds))


def _with_published(rows: list[tuple[str, ...]], result: BenchResult) -> list[tuple[str, ...]]:
    """Add to each row the first published figure of its set, split and metric."""
    figures = {data.name: data.published for data in result.plan.sets}
    name, wide = "", []
    for row in rows:
        name = row[0] or name
        same = (f for f in figures.get(name, ()) if (f.split, f.metric) == (row[1], row[2]))
        figure = next(same, None)
        wide.append((*row, "" if figure is None else f"{published_text(figure)} {figure.model}"))
    return wide


def _score_rows(each: SetResult) -> list[tuple[str, ...]]:
    cost = (
        span_text(each.seconds) if math.isfinite(each.seconds) else NOTHING,
        _number(each.rows_per_s, ".0f"),
        _number(each.memory_gb, ".2f"),
    )
    rows: list[tuple[str, ...]] = []
    for split in each.splits:
        score = each.score(split)
        if score is not None:
            name, costs = (each.data.name, cost) if not rows else ("", ("", "", ""))
            mean, interval = score_text(score.spread.mean), interval_text(score.interval)
            rows.append((name, split, score.metric, mean, interval, *costs))
    if not rows:
        what = "no scores" if each.done else "failed" if each.failed else "not run"
        return [(each.data.name, NOTHING, what, NOTHING, NOTHING, *(cost if each.done else (NOTHING,) * 3))]
    return rows


def _score_notes(result: BenchResult, variant: Variant) -> list[str]:
    """Say what the numbers of a table are."""
    seeds = result.plan.seeds
    notes = []
    if len(seeds) > 1:
        notes.append(f"score: mean over {seeds_text(seeds)}; interval: over seeds (Student's t)")
        if len(seeds) == 2:
            notes.append("two seeds say little about their spread, hence the wide intervals")
    else:
        notes.append(f"score: of {seeds_text(seeds)}; interval: of the rows (bootstrap).")
        notes.append("One seed says nothing about the spread over seeds: --seeds 1,2,3")
    score = result.suite_score(variant)
    if score is not None:
        notes.append(suite_note(result, score))
    for each in result.of(variant):
        done = len(each.done)
        if each.failed and done:
            missing = seeds_text(sorted(each.failed))
            kind = "" if done > 1 else "; interval: of the rows"
            notes.append(f"{each.data.name}: without {missing}, which failed{kind}")
        notes += _unlearnt_notes(each)
    return notes


def _unlearnt_notes(each: SetResult) -> list[str]:
    """Say which seeds have learnt nothing, or hardly anything."""
    seeds: dict[str, list[int]] = {}
    for seed, record in each.done.items():
        if record.unlearnt:
            seeds.setdefault(record.unlearnt, []).append(seed)
    return [f"{each.data.name}, {seeds_text(which)}: {what}" for what, which in seeds.items()]


def suite_note(result: BenchResult, score: SuiteScore) -> str:
    """Say of which sets the mean of a suite is."""
    count, total = len(score.sets), result.plan.size
    if count == total:
        return f"mean: of the main metrics of all {total} sets of {result.plan.suite}"
    names = ", ".join(score.sets)
    return f"mean: of {count} of the {total} sets of {result.plan.suite}, so not its score: {names}"


def published_table(result: BenchResult) -> Table | None:
    """Return the figures of others for the sets; None where there are none."""
    rows = []
    for data in result.plan.sets:
        rows += [
            (data.name, figure.model, figure.source, figure.split, figure.metric, published_text(figure))
            for figure in data.published
        ]
    if not rows:
        return None
    header = ("set", "model", "source", "split", "metric", "score")
    note = "Other encoders, settings and often other rows: to look at, not to test against."
    return Table("published figures", header, tuple(rows), (note,))


def published_text(figure: PublishedFigure) -> str:
    """Write a published figure, which is in percent, on the scale of the scores here.

    >>> published_text(PublishedFigure("bert", "mcc", 52.1)), published_text(PublishedFigure("bert", "f1", 0))
    ('0.521', '0.000')
    """
    return f"{figure.value / 100:.4f}".removesuffix("0")


def published_lines(result: BenchResult) -> list[str]:
    """Return the published figures for a terminal: one line for each set, as many as it has room for."""
    lines = []
    for data in result.plan.runnable:
        figures = [f"{published_text(f)} {f.model} ({f.metric}, {f.split})" for f in data.published]
        line, left = data.name, len(figures)
        for figure in figures:
            longer = f"{line}{': ' if line == data.name else '; '}{figure}"
            if line != data.name and display_width(longer) > WIDTH - (9 if left > 1 else 0):
                break
            line, left = longer, left - 1
        if figures:
            lines.append(f"{line}; {left} more" if left else line)
    return ["published figures (other encoders and settings; sources in bench.md)", *lines] if lines else []


def versus_table(versus: Versus) -> Table:
    """Return the comparison of two models: a row a set, and what it comes to."""
    rows, kinds = [], []
    for each in versus.sets:
        sign = "+" if each.difference >= 0 else ""
        difference = sign + score_text(each.difference)
        p_value = NOTHING if each.p_holm is None else _p_text(each.p_holm)
        scores = score_text(each.a), score_text(each.b)
        interval = interval_text(each.interval, signed=True)
        a, b = each.rows_won()
        won = f"{b}:{a}" if each.rows else NOTHING
        rows.append((each.name, *scores, difference, interval, p_value, won, verdict(each, versus)))
        kinds.append("" if each.better else "weak")
    header = ("set", "A", "B", "B - A", "95 % interval", "p", "rows", "better")
    title = f"A {versus.a}, B {versus.b}"
    return Table(title, header, tuple(rows), tuple(_versus_notes(versus)), tuple(kinds))


def verdict(each: SetVersus, versus: Versus) -> str:
    """Say who is better on a set: A, B, or that no difference is shown."""
    if each.better is None:
        return NOTHING
    return "B" if each.better == versus.b else "A"


def _p_text(p_value: float) -> str:
    return "<.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def _versus_notes(versus: Versus) -> list[str]:
    wins, ties, losses = versus.counts()
    notes = [f"verdict: B is better on {wins}, A on {losses}, no difference shown on {ties}"]
    if versus.overall is not None:
        interval = interval_text(versus.overall.interval, signed=True)
        kind = f"95 % interval {interval} over seeds" if interval != NOTHING else "one seed has no interval"
        mean = f"{versus.overall.mean:+.4f}"
        notes.append(f"mean of B - A over {len(versus.overall_sets)} sets: {mean}, {kind}")
    notes += _test_notes(versus)
    for each in versus.sets:
        if each.why_not:
            notes.append(f"{each.name}: no test: {each.why_not}")
    return notes


def _test_notes(versus: Versus) -> list[str]:
    """Say what interval and p-value are over."""
    kinds = {each.kind for each in versus.sets if each.p_value is not None}
    notes = []
    if "seeds" in kinds:
        notes.append("interval, p: over seeds, by the paired t-test; p is corrected for all sets (Holm)")
    if "rows" in kinds:
        names = [each.name for each in versus.sets if each.kind == "rows" and each.p_value is not None]
        where = "" if kinds == {"rows"} else f" of {', '.join(names)}"
        notes.append(
            f"interval, p{where}: of the dev rows of one seed, by the paired bootstrap; p is corrected for "
            "all sets (Holm)"
        )
    if any(each.rows for each in versus.sets):
        notes.append("rows: seeds on which the bootstrap of dev rows alone shows B better : A better")
    return notes


def run_table(result: BenchResult) -> Table:
    """Return every run: scores, cost, and why it failed."""
    rows, kinds = [], []
    for each in result.results.values():
        for seed, record in each.records.items():
            scores = [
                interval_text(s.intervals.get(s.main_metric)) if part else score_text(s.main_value)
                for split in ("dev", "test")
                for s in [record.scores.get(split)]
                if s is not None
                for part in ((False, True) if split == "dev" else (False,))
            ]
            scores += [NOTHING] * (3 - len(scores))
            summary = record.summary
            cost = (
                str(summary.get("steps", NOTHING)),
                span_text(record.train_seconds) if math.isfinite(record.train_seconds) else NOTHING,
                _number(summary.get("rows_per_s", math.nan), ".0f"),
                _number(summary.get("peak_memory_gb", math.nan), ".2f"),
            )
            state = "failed" if not record.is_done else "resumed" if record.resumed else "done"
            rows.append((each.data.name, each.variant.name, str(seed), *scores, *cost, state))
            kinds.append("" if record.is_done else "weak")
    header = (
        "set",
        "model",
        "seed",
        "dev",
        "95 % of dev rows",
        "test",
        "steps",
        "train",
        "rows/s",
        "GB",
        "state",
    )
    return Table("runs", header, tuple(rows), kinds=tuple(kinds))


def trouble_lines(result: BenchResult) -> list[str]:
    """Say which sets cannot be run and which runs failed, with reasons."""
    lines = [f"not run: {name}: {reason}" for name, reason in result.skipped]
    return lines + [f"failed: {title}: {message}" for title, message in result.failed]


def markdown_table(table: Table) -> list[str]:
    """Return a table as Markdown, the first column to the left."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"

    sides = ["---", *["--:"] * (len(table.header) - 1)]
    return [line(table.header), f"| {' | '.join(sides)} |", *map(line, table.rows)]
