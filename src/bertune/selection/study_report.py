"""report.html of a search: what was searched, which number is which, all trials, plots with their numbers."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune.console import duration
from bertune.errors import ConfigError, MissingExtra
from bertune.files import write_bytes
from bertune.selection.importance import Importance
from bertune.selection.report_page import (
    card,
    code,
    details,
    figure,
    page,
    paragraph,
    section,
    table,
    text,
)
from bertune.selection.space import Dimension, SearchSpace
from bertune.selection.study_charts import Chart, study_charts
from bertune.selection.study_plots import png_plots, svg_plot
from bertune.selection.trial_text import (
    NOTHING,
    by_score,
    exact_text,
    is_number,
    last_score,
    score_text,
    setting_names,
    short_names,
    span_text,
    states_text,
    value_text,
)
from bertune.selection.trials import Study, Trial

REPORT = "report.html"
PLOTS = "plots"


@dataclass(frozen=True)
class StudyFacts:
    """What a report says beside the trials.

    Attributes:
        name: what was tuned, such as the name of the run file.
        task: of the run.
        model: the encoder.
        winner_file: the run file of the best settings, as a user types it.
        folds: of how many folds a trial's score is the mean; None for rows held out once.
        dev_rows: how many there are.
        dev_score: of the best settings trained on all training rows; the dev rows were scored once. None
            where there is none.
        dev_interval: its 95 % interval.
        dev_uses: how often the dev rows have scored a winner of this search.
        default_trial: the trial that had the run's own settings.
        default_dev_score: of the run's own settings, trained on all training rows.
        seconds: of the whole search.
        notes: more to know, a sentence each.
    """

    name: str = ""
    task: str = ""
    model: str = ""
    winner_file: str = "winner.yaml"
    folds: int | None = None
    dev_rows: int | None = None
    dev_score: float | None = None
    dev_interval: tuple[float, float] | None = None
    dev_uses: int = 1
    default_trial: int | None = None
    default_dev_score: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()


def write_study_report(
    folder: Path,
    study: Study,
    space: SearchSpace,
    importance: Importance,
    facts: StudyFacts,
    note: Callable[[str], None],
) -> Path:
    """Write report.html, one file that needs no other, and the plots as PNG into the folder plots.

    Without matplotlib the report has the numbers of the plots as tables, and there are no PNG files.

    Args:
        folder: where to; it exists.
        study: the trials.
        space: the settings that were searched.
        importance: of each setting.
        facts: what else is known.
        note: hears of what is missing.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: a file cannot be written.
    """
    charts = study_charts(study, space, importance)
    missing = ""
    drawings: list[str] = []
    try:
        drawings = [svg_plot(chart, f"plot{i}") for i, chart in enumerate(charts)]
        pictures = png_plots(charts, note)
    except MissingExtra as error:
        missing, drawings, pictures = str(error), [""] * len(charts), {}
        note(f"plots: none are drawn; {error}")
    page = report_page(study, space, importance, facts, list(zip(charts, drawings, strict=True)), missing)
    path = folder / REPORT
    try:
        if pictures:
            (folder / PLOTS).mkdir(exist_ok=True)
        for name, picture in pictures.items():
            write_bytes(folder / PLOTS / name, picture)
        write_bytes(path, page.encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"out: {str(folder)!r} cannot be written: {error.strerror or error}") from None
    return path


def report_page(
    study: Study,
    space: SearchSpace,
    importance: Importance,
    facts: StudyFacts,
    plots: Sequence[tuple[Chart, str]],
    missing: str = "",
) -> str:
    """Return the page of a study.

    Args:
        study: the trials.
        space: the settings that were searched.
        importance: of each setting.
        facts: what else is known.
        plots: charts with their SVG, or "" where it could not be drawn.
        missing: why nothing was drawn.
    """
    title = f"Search for settings{f': {facts.name}' if facts.name else ''}"
    about = ", ".join(part for part in (facts.task, facts.model) if part)
    subtitle = f"{len(study.trials)} of {study.planned} trials: {states_text(study)}"
    sections = [
        _numbers(study, facts),
        _winner(study, space, facts),
        _searched(study, space, facts),
        _trials(study, space),
        _importance_section(importance, plots),
        *[_plot_section(chart, svg) for chart, svg in plots if chart.kind in {"history", "curves"}],
        _slices(plots),
        section("Plots", paragraph(f"No plots: {missing}.", "note")) if missing else "",
    ]
    return page(title, f"{about}. {subtitle}" if about else subtitle, filter(None, sections))


def _numbers(study: Study, facts: StudyFacts) -> str:
    """Say which number may be believed."""
    best, naive = study.best, study.optimistic_score
    if best is None:
        reasons = Counter(trial.reason for trial in study.trials if trial.state == "failed" and trial.reason)
        why = [paragraph(f"{count} failed: {reason}") for reason, count in reasons.most_common(3)]
        none = paragraph(f"No trial ran to its end: {states_text(study)}.")
        return section("Result", none, *why, *_notes(facts))
    honest = is_number(facts.dev_score)
    interval = ""
    if honest and facts.dev_interval is not None:
        low, high = facts.dev_interval
        interval = f" 95% interval {score_text(low)} to {score_text(high)}."
    rows = f"the {facts.dev_rows} dev rows" if facts.dev_rows else "the dev rows"
    uses = "once" if facts.dev_uses == 1 else f"{facts.dev_uses} times, for a winner each"
    cards = [
        card(
            score_text(facts.dev_score),
            "Dev score: the honest one",
            f"The best settings, trained on all training rows. No trial saw {rows}; they were scored {uses}."
            f"{interval}"
            if honest
            else "There is none: the best settings were not trained again, or there are no dev rows.",
            "honest" if honest else "",
        ),
        card(
            score_text(best.score),
            "Score in the search: optimistic",
            f"Trial {best.number} on {_held_out(study, facts)}. It is the best of {len(study.complete)} "
            "complete trials on the same rows, so part of it is luck.",
        ),
        card(
            score_text(naive),
            "What a naive report would claim",
            "The best score of any trial at any evaluation, on the rows that chose it."
            + (f" The dev score differs by {_signed(facts.dev_score, naive)}." if honest else ""),
        ),
    ]
    more = _against_default(study, facts, best)
    intro = paragraph(
        f"All scores are {study.metric}; {'higher' if study.higher_is_better else 'lower'} is better."
    )
    return section(
        "Which number is which", intro, f"<div class=cards>{''.join(cards)}</div>", more, *_notes(facts)
    )


def _notes(facts: StudyFacts) -> list[str]:
    return [paragraph(words, "note") for words in facts.notes]


def _held_out(study: Study, facts: StudyFacts) -> str:
    if facts.folds:
        return f"the mean of {facts.folds} folds of the training rows"
    return f"{study.num_rows[1]} training rows that it was not trained on"


def _signed(score: float | None, other: float | None) -> str:
    if score is None or other is None or not is_number(score) or not is_number(other):
        return NOTHING
    return f"{score - other:+.4f}"


def _against_default(study: Study, facts: StudyFacts, best: Trial) -> str:
    default = next((t for t in study.trials if t.number == facts.default_trial), None)
    if default is None and facts.default_dev_score is None:
        return ""
    inner = default.score if default is not None else None
    dev, default_dev = facts.dev_score, facts.default_dev_score
    rows = [
        ("dev rows (honest)", score_text(default_dev), score_text(dev), _signed(dev, default_dev)),
        ("rows of the search", score_text(inner), score_text(best.score), _signed(best.score, inner)),
    ]
    return "<h3>Against the settings of the run file, untuned</h3>" + table(
        ("", "untuned", "tuned", "difference"), rows
    )


def _winner(study: Study, space: SearchSpace, facts: StudyFacts) -> str:
    best = study.best
    if best is None:
        return ""
    default = next((t for t in study.trials if t.number == facts.default_trial), None)
    header = ["setting", f"trial {best.number}"]
    rows = []
    for name in setting_names(study, space):
        row = [name, exact_text(best.settings[name]) if name in best.settings else NOTHING]
        if default is not None and default is not best:
            row.append(exact_text(default.settings[name]) if name in default.settings else NOTHING)
        rows.append(row)
    if default is not None and default is not best:
        header.append("untuned")
    same = default is best
    return section(
        "Best settings",
        paragraph("The settings of the run file were the best of all.") if same else "",
        table(header, rows, num_left=len(header), wraps=True),
        paragraph("To train with them:"),
        code(f"bertune train {shlex.quote(facts.winner_file)}"),
    )


def _searched(study: Study, space: SearchSpace, facts: StudyFacts) -> str:
    train, scored = study.num_rows
    words = (
        f"Each trial was trained and scored on {facts.folds} folds of the training rows: about {train} rows "
        f"to train on, {scored} to score, in turn."
        if facts.folds
        else f"Each trial was trained on {train} training rows and scored on {scored} others."
    )
    if facts.dev_rows:
        words += f" The {facts.dev_rows} dev rows took no part in the search."
    spent = facts.seconds if facts.seconds is not None else sum(trial.seconds for trial in study.trials)
    steps = sum(trial.steps for trial in study.trials)
    words += f" All trials together took {duration(spent)} and {steps:,} steps of training."
    rows = [(dimension.name, _values_text(dimension)) for dimension in space.dimensions]
    values = table(("setting", "values"), rows, num_left=2, wraps=True)
    return section("What was searched", paragraph(words), values)


def _values_text(dimension: Dimension) -> str:
    texts = [value_text(value) for value in dimension.values]
    words = ", ".join(texts) if dimension.kind == "choice" else " to ".join(texts)
    words += " (log)" if dimension.kind == "log_uniform" else ""
    conditions = [
        f"{name} is {' or '.join(map(value_text, values))}" for name, values in dimension.when.items()
    ]
    return words + (f"; where {' and '.join(conditions)}" if conditions else "")


def _trials(study: Study, space: SearchSpace) -> str:
    if not study.trials:
        return ""
    names = setting_names(study, space)
    short = short_names(names)
    best = study.best
    header = ["trial", "state", study.metric, "time", "steps", *(short[name] for name in names)]
    reasons = any(trial.reason for trial in study.trials)
    rows, kinds = [], []
    for trial in by_score(study):
        cells: list[object] = [trial.number, trial.state]
        cells.append((score_text(last_score(trial)), _sort_key(last_score(trial))))
        cells += [(span_text(trial.seconds), round(trial.seconds, 1)), trial.steps]
        cells += [_setting_cell(trial, name) for name in names]
        cells += [trial.reason] if reasons else []
        rows.append(cells)
        kinds.append("best" if trial is best else "" if trial.state == "complete" else "weak")
    words = (
        "Best first; a click on a column sorts by it. The score of a pruned trial is that of its last "
        "evaluation."
    )
    header += ["reason"] if reasons else []
    return section(
        "All trials", paragraph(words), table(header, rows, kinds=kinds, num_left=2, sortable=True)
    )


def _sort_key(score: float | None) -> object:
    return score if is_number(score) else ""


def _setting_cell(trial: Trial, name: str) -> object:
    value = trial.settings.get(name)
    shown = value_text(value) if name in trial.settings else NOTHING
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return (shown, value) if is_real and shown != str(value) else shown


def _importance_section(importance: Importance, plots: Sequence[tuple[Chart, str]]) -> str:
    for chart, svg in plots:
        if chart.kind == "importance":
            return _plot_section(chart, svg)
    return section(
        "Importance of each setting", paragraph(f"Nothing can be said: {importance.reason or 'not asked'}.")
    )


def _plot_section(chart: Chart, svg: str) -> str:
    picture = figure(svg, chart.title, chart.about) if svg else paragraph(chart.about, "soft")
    return section(chart.title, picture, _numbers_of(chart))


def _slices(plots: Sequence[tuple[Chart, str]]) -> str:
    slices = [(chart, svg) for chart, svg in plots if chart.kind == "slice"]
    if not slices:
        return ""
    parts = []
    for chart, svg in slices:
        heading = "" if svg else f"<h3>{text(chart.title)}</h3>"
        picture = figure(svg, f"{chart.metric} by {chart.title}", "") if svg else ""
        parts.append(f"<div>{heading}{picture}{_numbers_of(chart)}</div>")
    words = (
        "Each point is a trial that ran to its end; the diamond is the best one. The other settings differ "
        "too, so a cloud without a shape says little."
    )
    return section("Score by setting", paragraph(words, "soft"), f"<div class=slices>{''.join(parts)}</div>")


def _numbers_of(chart: Chart) -> str:
    rows = [[chart_cell(chart, i, value) for i, value in enumerate(row)] for row in chart.rows]
    return details("The numbers", table(chart.header, rows, num_left=1, sortable=True))


def chart_cell(chart: Chart, place: int, value: object) -> str:
    """Write a number of a plot: scores with four decimals, shares in per cent, settings as they are."""
    if value is None:
        return NOTHING
    if chart.kind == "importance" and isinstance(value, float):
        return f"{value:.1%}"
    is_setting = chart.kind == "slice" and place == 0
    return score_text(value) if isinstance(value, float) and not is_setting else value_text(value)
