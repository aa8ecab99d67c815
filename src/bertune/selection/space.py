"""Which settings a search tries: the section `search` of a run file, checked as a whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bertune.config.load import resolve_config
from bertune.config.schema import DataConfig, RunConfig, Section
from bertune.errors import ConfigError, did_you_mean, listed
from bertune.types import JSON

KINDS = ("log_uniform", "uniform", "int", "choice")
SEARCHED_SECTIONS = ("train", "options", "data")
DIGITS = 4
"""Significant digits of a number that is drawn: settings that people read and type."""
NOT_SEARCHED = {"task", "out", "seed", "device", "log", "model_code", "tune", "search"}
SEARCHED_DATA = ("max_length", "truncation")
"""Settings of `data` that leave the rows as they are, so that trials can be compared."""
NO_EFFECT = {"train.eval_every", "train.patience", "train.checkpoint_every", "train.keep_checkpoints"}
"""Settings without effect in a trial, which is scored in equal parts and keeps its last step."""


class Suggests(Protocol):
    """What draws values: a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from `low` to `high`."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number from `low` to `high`, both included."""
        ...

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Return one of the choices."""
        ...


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        name: the setting, such as train.learning_rate.
        kind: one of `KINDS`.
        values: the bounds (low, high), or the choices.
        when: the settings and values with which it counts; without them always.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def is_active(self, settings: JSON) -> bool:
        """Tell whether it counts beside these values of other settings."""
        return all(settings.get(name) in values for name, values in self.when.items())

    def suggest(self, trial: Suggests) -> Any:
        """Return the value that a trial gets."""
        if self.kind == "choice":
            texts = {choice_key(value): value for value in self.values}
            return copy.deepcopy(texts[trial.suggest_categorical(self.name, list(texts))])
        low, high = self.values
        if self.kind == "int":
            return int(trial.suggest_int(self.name, low, high))
        drawn = trial.suggest_float(self.name, low, high, log=self.kind == "log_uniform")
        return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)

    def samples(self) -> tuple[Any, ...]:
        """Return values that must be allowed if all are: both bounds, or each choice."""
        return self.values

    def contains(self, value: Any) -> bool:
        """Tell whether a search could draw this value."""
        if self.kind == "choice":
            return choice_key(value) in {choice_key(choice) for choice in self.values}
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_whole = self.kind != "int" or (is_number and float(value).is_integer())
        return is_number and is_whole and self.values[0] <= value <= self.values[1]


def choice_key(value: Any) -> Any:
    """Return a choice as Optuna can store it: lists and mappings as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


@dataclass(frozen=True)
class SearchSpace:
    """The settings that are searched, in the order in which they are drawn: conditions come first."""

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: Suggests) -> JSON:
        """Return the settings of a trial, value by name; without those that do not count beside others."""
        settings: JSON = {}
        for dimension in self.dimensions:
            if dimension.is_active(settings):
                settings[dimension.name] = dimension.suggest(trial)
        return settings

    def values_of(self, run: RunConfig) -> JSON | None:
        """Return the run's own values of the settings that are searched; None where one lies outside."""
        settings: JSON = {}
        values = run.model_dump(mode="json")
        for dimension in self.dimensions:
            if dimension.is_active(settings):
                value = value_at(values, dimension.name)
                if not dimension.contains(value):
                    return None
                settings[dimension.name] = value
        return settings

    def describe(self) -> list[str]:
        """Return a line for each setting."""
        return [f"{d.name}: {_describe(d)}" for d in self.dimensions]

    def to_json(self) -> JSON:
        """Return the space as JSON values, as the section `search` writes it."""
        spaces: JSON = {}
        for d in self.dimensions:
            when = {"when": {name: list(values) for name, values in d.when.items()}} if d.when else {}
            spaces[d.name] = {d.kind: list(d.values), **when}
        return spaces


def _describe(dimension: Dimension) -> str:
    values = dimension.values
    text = listed([str(v) for v in values]) if dimension.kind == "choice" else f"{values[0]} to {values[1]}"
    conditions = [
        f"{name} is {listed([str(v) for v in allowed])}" for name, allowed in dimension.when.items()
    ]
    log = " (log)" if dimension.kind == "log_uniform" else ""
    return text + log + (f", where {' and '.join(conditions)}" if conditions else "")


def apply_settings(raw: JSON, settings: JSON) -> JSON:
    """Return nested settings with values by full name put in."""
    raw = copy.deepcopy(raw)
    for name, value in settings.items():
        *sections, last = name.split(".")
        at = raw
        for section in sections:
            if not isinstance(at.get(section), dict):
                at[section] = {}
            at = at[section]
        at[last] = copy.deepcopy(value)
    return raw


def value_at(values: JSON, name: str) -> Any:
    """Return the value of a setting by its full name; None where there is none."""
    at: Any = values
    for part in name.split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return at


def read_space(search: JSON, raw: JSON, options: type[Section]) -> SearchSpace:
    """Read the section `search`, and check that every value of it is allowed in this run.

    Args:
        search: the section; names are nested as in a run file, or written with dots.
        raw: the settings of the run.
        options: the options of its task.

    Raises:
        ConfigError: names every fault at once.
    """
    faults: list[str] = []
    dimensions = []
    for name, given in _leaves(search, ""):
        try:
            dimensions.append(_read_dimension(name, given))
        except ConfigError as error:
            faults.append(str(error))
    if not search:
        faults.append(
            "search: names no setting; write search: {train.learning_rate: {log_uniform: [1e-5, 1e-4]}}"
        )
    faults += _check_conditions(dimensions)
    faults += _check_values(dimensions, raw, options)
    if faults:
        faults = list(dict.fromkeys(faults))
        head = [] if len(faults) == 1 else [f"{len(faults)} things are wrong in search:"]
        raise ConfigError("\n".join([*head, *faults]))
    return SearchSpace(tuple(_ordered(dimensions)))


def _leaves(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield each setting by its full name with what is written for it."""
    for key, value in section.items():
        name = f"{prefix}{key}"
        is_leaf = not isinstance(value, dict) or not value or set(value) & {*KINDS, "when"}
        if is_leaf or name.count(".") or name not in SEARCHED_SECTIONS:
            yield name, value
        else:
            yield from _leaves(value, f"{name}.")


def _read_dimension(name: str, given: Any) -> Dimension:
    section, _, rest = name.partition(".")
    if section in NOT_SEARCHED:
        raise ConfigError(f"search.{name}: says nothing of how good a model is, so it is not searched")
    if section == "data" and rest not in SEARCHED_DATA and rest in DataConfig.model_fields:
        raise ConfigError(
            f"search.{name}: changes which rows there are, so trials could not be compared; of data "
            f"{listed(SEARCHED_DATA)} can be searched"
        )
    if name == "options.metric":
        raise ConfigError(f"search.{name}: trials are compared by one metric; set it in the run")
    if name in NO_EFFECT:
        raise ConfigError(
            f"search.{name}: has no effect on a trial, whose score is that of its last step; search "
            "train.epochs"
        )
    kinds = [kind for kind in KINDS if isinstance(given, dict) and kind in given]
    unknown = (
        [] if not isinstance(given, dict) else [str(key) for key in given if key not in {*KINDS, "when"}]
    )
    if unknown and not kinds:
        raise ConfigError(
            f"search.{name}: {unknown[0]!r} is not a way to draw values{did_you_mean(unknown[0], KINDS)}; "
            f"allowed: {', '.join(KINDS)}"
        )
    if len(kinds) != 1 or unknown:
        raise ConfigError(
            f"search.{name}: must be one of {', '.join(KINDS)}, such as {{log_uniform: [1e-5, 1e-4]}} or "
            f"{{choice: [16, 32]}}, and perhaps when; got {given!r}"
        )
    kind = kinds[0]
    values = given[kind]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"search.{name}.{kind}: must be a list, got {values!r}")
    if kind != "choice":
        _check_bounds(f"search.{name}.{kind}", kind, values)
        convert: Callable[[Any], Any] = int if kind == "int" else float
        values = [convert(value) for value in values]
    keys = [(type(value), choice_key(value)) for value in values]
    if kind == "choice" and len(set(keys)) < len(keys):
        raise ConfigError(f"search.{name}.choice: names a value twice: {values!r}")
    return Dimension(name, kind, tuple(values), _read_when(name, given.get("when")))


def _check_bounds(where: str, kind: str, values: list[Any]) -> None:
    if len(values) != 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise ConfigError(f"{where}: must be two numbers, [lowest, highest]; got {values!r}")
    low, high = values
    if not math.isfinite(low) or not math.isfinite(high):
        raise ConfigError(f"{where}: must be finite, got {values!r}")
    if low > high:
        raise ConfigError(f"{where}: the lowest comes first, got {values!r}; write [{high}, {low}]")
    if low == high:
        raise ConfigError(f"{where}: both bounds are {low}, so there is nothing to search; set the value")
    if kind == "log_uniform" and low <= 0:
        raise ConfigError(
            f"{where}: the lowest is {low}, and the logarithm needs more than 0; use uniform, or such as 1e-6"
        )
    if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(f"{where}: must be whole numbers, got {values!r}; use uniform for others")


def _read_when(name: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if when is None:
        return {}
    if not isinstance(when, dict) or not when:
        raise ConfigError(
            f"search.{name}.when: must name another setting and its values, such as "
            f"{{options.loss: focal}}; got {when!r}"
        )
    return {
        str(other): tuple(values) if isinstance(values, list) else (values,) for other, values in when.items()
    }


def _check_conditions(dimensions: list[Dimension]) -> list[str]:
    """Return what is wrong with `when`: it must name settings that are searched, with values they may get."""
    by_name = {dimension.name: dimension for dimension in dimensions}
    faults = []
    for dimension in dimensions:
        for other, values in dimension.when.items():
            where = f"search.{dimension.name}.when"
            if other not in by_name:
                faults.append(
                    f"{where}: {other!r} is not searched{did_you_mean(other, by_name)}; "
                    f"searched: {listed(list(by_name))}"
                )
                continue
            never = [value for value in values if not by_name[other].contains(value)]
            if never:
                faults.append(f"{where}: {other} never is {listed(never)}")
            if _depends_on(by_name, other, dimension.name):
                faults.append(f"{where}: {dimension.name} and {other} wait for each other")
    return faults


def _depends_on(by_name: Mapping[str, Dimension], name: str, target: str) -> bool:
    seen: set[str] = set()
    names = [name]
    while names:
        current = names.pop()
        if current == target:
            return True
        if current not in seen and current in by_name:
            seen.add(current)
            names += by_name[current].when
    return False


def _ordered(dimensions: list[Dimension]) -> list[Dimension]:
    """Return the dimensions so that each comes after those that it depends on."""
    ordered: list[Dimension] = []
    waiting = list(dimensions)
    while waiting:
        done = {dimension.name for dimension in ordered}
        ready = [dimension for dimension in waiting if done >= dimension.when.keys()]
        ordered += ready
        waiting = [dimension for dimension in waiting if dimension not in ready]
    return ordered


def _check_values(dimensions: list[Dimension], raw: JSON, options: type[Section]) -> list[str]:
    """Return what the settings themselves say of the bounds and choices, each put into the run alone."""
    faults = []
    for dimension in dimensions:
        for value in dimension.samples():
            needed = {name: values[0] for name, values in dimension.when.items()}
            try:
                resolve_config(apply_settings(raw, {**needed, dimension.name: value}), options)
            except ConfigError as error:
                faults += [f"search: {line}" for line in str(error).splitlines() if dimension.name in line]
                if dimension.name not in str(error):
                    faults.append(f"search.{dimension.name}: with the value {value!r}: {error}")
                break
    return faults
