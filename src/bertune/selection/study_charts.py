"""The numbers of every plot of a study, as tables: what is drawn is what the tables say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bertune.selection.importance import Importance
from bertune.selection.space import SearchSpace, choice_key
from bertune.selection.trial_text import exact_text, last_score, setting_names, short_names
from bertune.selection.trials import Study

MAX_SLICES, MAX_BARS = 12, 15
ChartKind = Literal["history", "importance", "slice", "curves"]


@dataclass(frozen=True)
class Chart:
    """A plot as a table.

    Attributes:
        kind: how it is drawn.
        title: its heading.
        about: how to read it.
        header: names of the columns.
        rows: values by column; None where there is none.
        metric: the score.
        is_log: whether the axis of the setting is logarithmic (slice).
        categories: choices in their order along the axis (slice); none for numbers.
        best: number of the best trial.
    """

    kind: ChartKind
    title: str
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    metric: str = ""
    is_log: bool = False
    categories: tuple[str, ...] = ()
    best: int | None = None


def study_charts(study: Study, space: SearchSpace, importance: Importance) -> list[Chart]:
    """Return the charts of a study: those for which there are numbers."""
    charts = [history_chart(study), importance_chart(study, space, importance)]
    charts += [*slice_charts(study, space, importance), curves_chart(study)]
    return [chart for chart in charts if chart.rows]


def history_chart(study: Study) -> Chart:
    """Return the score of each trial, and the best so far; for pruned ones that of the last evaluation."""
    rows = tuple(
        (trial.number, trial.state, _finite(last_score(trial)), _finite(best))
        for trial, best in zip(study.trials, study.best_so_far(), strict=True)
    )
    return Chart(
        "history",
        "Score by trial",
        "A circle is a trial that ran to its end, a cross one that was pruned (its last score), a triangle "
        "one that failed. The line is the best score so far.",
        ("trial", "state", study.metric, "best so far"),
        rows,
        study.metric,
        best=_best(study),
    )


def importance_chart(study: Study, space: SearchSpace, importance: Importance) -> Chart:
    """Return the importance of each setting, the largest first."""
    names = short_names(setting_names(study, space))
    about = f"Share of the differences between scores, by {importance.method} from {importance.num_trials} "
    about += f"complete trials.{' So few trials give a rough guide only.' if importance.is_rough else ''}"
    if len(importance.shares) > MAX_BARS:
        about += f" The first {MAX_BARS} are drawn."
    rows = tuple((names.get(name, name), share) for name, share in importance.shares.items())
    return Chart("importance", "Importance of each setting", about, ("setting", "share"), rows, study.metric)


def slice_charts(study: Study, space: SearchSpace, importance: Importance) -> list[Chart]:
    """Return score against setting for the most important settings, else for the first ones."""
    names = setting_names(study, space)
    ranked = sorted(names, key=lambda name: -importance.shares.get(name, 0.0))
    charts = [_slice_chart(study, space, name, short_names(names)[name]) for name in ranked]
    return [chart for chart in charts if chart.rows][:MAX_SLICES]


def _slice_chart(study: Study, space: SearchSpace, name: str, short: str) -> Chart:
    dimension = next((d for d in space.dimensions if d.name == name), None)
    found = [
        (trial.settings[name], _finite(trial.score), trial.number)
        for trial in study.complete
        if name in trial.settings and _finite(trial.score) is not None
    ]
    is_numeric = (
        dimension is not None and dimension.kind != "choice" and all(_is_real(v) for v, _, _ in found)
    )
    categories: tuple[str, ...] = ()
    if is_numeric:
        rows = sorted(found)
    else:
        choices = list(dimension.values) if dimension is not None and dimension.kind == "choice" else []
        order = list(dict.fromkeys(_choice(value) for value in [*choices, *(value for value, _, _ in found)]))
        used = {_choice(value) for value, _, _ in found}
        categories = tuple(text for text in order if text in used)
        rows = sorted(
            ((_choice(v), s, n) for v, s, n in found), key=lambda r: (order.index(r[0]), r[1], r[2])
        )
    is_log = (
        is_numeric
        and dimension is not None
        and dimension.kind == "log_uniform"
        and all(v > 0 for v, _, _ in found)
    )
    return Chart(
        "slice",
        short,
        "",
        (short, study.metric, "trial"),
        tuple(rows),
        study.metric,
        is_log,
        categories,
        _best(study),
    )


def curves_chart(study: Study) -> Chart:
    """Return the score of each trial at each evaluation."""
    trials = [trial for trial in study.trials if trial.evaluations]
    most = max((len(trial.evaluations) for trial in trials), default=0)
    rows = tuple(
        (
            trial.number,
            trial.state,
            *map(_finite, trial.evaluations),
            *[None] * (most - len(trial.evaluations)),
        )
        for trial in trials
    )
    return Chart(
        "curves",
        "Score while trials train",
        "A line is a trial, evaluation by evaluation. Pruned trials are grey and dashed; the best one is "
        "thick.",
        ("trial", "state", *(f"evaluation {i + 1}" for i in range(most))),
        rows,
        study.metric,
        best=_best(study),
    )


def _choice(value: Any) -> str:
    # choice_key makes text of lists: as JSON they read better
    return exact_text(value if isinstance(value, list | dict | tuple) else choice_key(value))


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _best(study: Study) -> int | None:
    return study.best.number if study.best is not None else None


def column(chart: Chart, name: str) -> Sequence[Any]:
    """Return the values of a column of a chart."""
    place = chart.header.index(name)
    return [row[place] for row in chart.rows]
