"""How much each setting matters in a search: fANOVA or PED-ANOVA of Optuna.

Sources: Hutter, Hoos, Leyton-Brown 2014 (fANOVA); Watanabe, Bansal, Hutter 2023 (PED-ANOVA).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bertune.selection.space import SearchSpace
from bertune.selection.trial_text import is_number, setting_names
from bertune.selection.trials import Study, Trial

MIN_TRIALS = 4
"""With fewer complete trials nothing can be said."""
FEW_TRIALS = 20
"""With fewer, it is a rough guide."""
FANOVA, PED_ANOVA = "fANOVA", "PED-ANOVA"
_SEED = 0


@dataclass(frozen=True)
class Importance:
    """How much each setting matters.

    Attributes:
        shares: share of the differences between scores by full name, the largest first; they add up to 1.
            Empty where nothing can be said.
        method: fANOVA or PED-ANOVA.
        num_trials: complete trials that it was computed from.
        reason: why `shares` is empty.
    """

    shares: dict[str, float] = field(default_factory=dict)
    method: str = ""
    num_trials: int = 0
    reason: str = ""

    @property
    def is_rough(self) -> bool:
        """Whether it rests on few trials."""
        return self.num_trials < FEW_TRIALS


def setting_importance(study: Study, space: SearchSpace) -> Importance:
    """Say how much each setting matters to the score, from the complete trials.

    fANOVA explains the differences between the scores by a random forest (scikit-learn). A setting that a
    trial does not have, since its condition did not hold, counts there with its middle value. Without
    scikit-learn, PED-ANOVA says which settings tell the best trials from the others; it leaves out settings
    that some trials do not have. The same trials give the same numbers.
    """
    trials = [trial for trial in study.complete if is_number(trial.score)]
    if len(trials) < MIN_TRIALS:
        return Importance(
            num_trials=len(trials), reason=f"{len(trials)} complete trials; {MIN_TRIALS} are needed"
        )
    if len({trial.score for trial in trials}) < 2:
        return Importance(num_trials=len(trials), reason="all complete trials have the same score")
    columns = {name: _column(name, trials, space) for name in setting_names(study, space)}
    method = _method()
    if method == PED_ANOVA:  # a filled-in value would pass for a preference
        columns = {n: c for n, c in columns.items() if all(n in trial.settings for trial in trials)}
    varied = {name: column for name, column in columns.items() if len(set(column.values)) > 1}
    if not varied:
        return Importance(num_trials=len(trials), reason="all complete trials have the same settings")
    if not method:
        reason = "needs the package 'optuna'; install it with: pip install 'bertune[tune]'"
        return Importance(num_trials=len(trials), reason=reason)
    with _quiet_optuna():
        found = _assess(trials, varied, method, study.higher_is_better)
    total = sum(found.values())
    if not math.isfinite(total) or total <= 0:
        return Importance(num_trials=len(trials), reason="no setting explains the differences between scores")
    shares = {name: found.get(name, 0.0) / total for name in columns}
    ranked = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return Importance(ranked, method, len(trials))


@dataclass(frozen=True)
class _Column:
    """The values of one setting in all trials, as Optuna takes them: all numbers, or all texts."""

    values: tuple[Any, ...]
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None


def _column(name: str, trials: list[Trial], space: SearchSpace) -> _Column:
    dimension = next((d for d in space.dimensions if d.name == name), None)
    given = [trial.settings[name] for trial in trials if name in trial.settings]
    is_numeric = dimension is not None and dimension.kind != "choice" and all(map(_is_real, given))
    if not is_numeric or dimension is None:
        # Texts with their type: Optuna takes 1, 1.0 and True for one choice.
        values = [_as_choice(trial.settings[name]) if name in trial.settings else None for trial in trials]
        used = [value for value in values if value is not None]
        middle = max(dict.fromkeys(used), key=used.count, default="")
        filled = tuple(middle if value is None else value for value in values)
        return _Column(filled, choices=tuple(dict.fromkeys(filled)))
    is_log = dimension.kind == "log_uniform" and all(value > 0 for value in given)

    def place(value: float) -> float:
        # fANOVA averages over the space as it is drawn from: a log-uniform one over the logarithm.
        return math.log10(value) if is_log else float(value)

    places = sorted(map(place, given))
    middle_place = places[len(places) // 2] if places else 0.0
    filled_places = tuple(
        place(trial.settings[name]) if name in trial.settings else middle_place for trial in trials
    )
    drawn = [place(bound) for bound in dimension.values]
    return _Column(filled_places, bounds=(min([*drawn, *filled_places]), max([*drawn, *filled_places])))


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_choice(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"


def _assess(
    trials: list[Trial], columns: dict[str, _Column], method: str, higher_is_better: bool
) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {
        name: FloatDistribution(*column.bounds) if column.bounds else CategoricalDistribution(column.choices)
        for name, column in columns.items()
    }
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: column.values[i] for name, column in columns.items()},
                distributions=space,
                value=trial.score,
            )
            for i, trial in enumerate(trials)
        ]
    )
    evaluator = (
        optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
        if method == FANOVA
        else optuna.importance.PedAnovaImportanceEvaluator()
    )
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: float(value) for name, value in found.items()}


def _method() -> str:
    """Return the method for which the packages are there; none without Optuna."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        return ""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return PED_ANOVA
    return FANOVA


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's lines and warnings off the screen."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
