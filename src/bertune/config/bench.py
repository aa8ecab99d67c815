"""A file with a suite: which sets, models and seeds `bertune bench` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from bertune.config.load import LABEL_SETTINGS, validation_messages
from bertune.config.schema import LocalPath, Section
from bertune.config.yaml import parse_yaml
from bertune.errors import ConfigError, listed

SEEDS = (1, 2, 3)
"""The seeds of a bench where none are given."""
SUITE_ENDINGS = {".yaml", ".yml"}
Seed = Annotated[int, Field(ge=0, lt=2**32)]
SetSource = str | dict[str, Any]
"""The name of a set, such as glue:cola; or settings of a run, which may begin with a named set (`set`)."""


class BenchFile(Section):
    """A suite of one's own."""

    sets: dict[str, SetSource]
    """The sets by name. Each is the name of a set, such as `glue:cola`, or the settings of a run: task, data,
    options, train. Beside settings, `set: glue:cola` takes those of a named set first."""
    settings: dict[str, Any] = {}
    """Settings of the runs of all sets. What a set says itself counts more."""
    seeds: list[Seed] = list(SEEDS)
    """Each set is trained with each of these."""
    models: list[LocalPath] = []
    """The encoders: folders or Hub ids. Two or more are compared."""
    root: LocalPath | None = None
    """The folder that named sets are read from. Without it they come from the Hub."""

    @field_validator("models", mode="before")
    @classmethod
    def _one_model(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("sets", mode="before")
    @classmethod
    def _names_are_text(cls, value: Any) -> Any:
        return {str(name): settings for name, settings in value.items()} if isinstance(value, dict) else value

    @field_validator("sets")
    @classmethod
    def _has_sets(cls, value: dict[str, SetSource]) -> dict[str, SetSource]:
        if not value:
            raise ValueError("must name a set at least, such as {cola: glue:cola}")
        return value

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: list[int]) -> list[int]:
        if fault := seed_fault(value):
            raise ValueError(fault)
        return value


def seed_fault(seeds: list[int]) -> str:
    """Return what is wrong with the seeds of a bench; empty if nothing is.

    >>> seed_fault([1, 2]), seed_fault([]), seed_fault([1, 1])
    ('', 'must name one seed at least, such as 1,2,3', 'names 1 twice')
    """
    if not seeds:
        return "must name one seed at least, such as 1,2,3"
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    return f"names {listed(twice)} twice" if twice else ""


def read_bench_file(path: str) -> BenchFile:
    """Read a suite file.

    Raises:
        ConfigError: it is missing or broken; every wrong setting is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read this suite: {reason}") from None
    raw = parse_yaml(text, path)
    if not isinstance(raw, dict):
        got = "nothing" if raw is None else type(raw).__name__
        raise ConfigError(f"{path}: a suite is a mapping such as 'sets: {{cola: glue:cola}}', got {got}")
    if "sets" not in raw and "task" in raw:
        raise ConfigError(
            f"{path}: is a run file; a suite names its sets: 'sets: {{mine: {{task: {raw['task']}, ...}}}}'. "
            "For one run use bertune train, for several seeds bertune crossval --seeds"
        )
    sets = raw.get("sets")
    names = [str(name) for name in sets] if isinstance(sets, dict) else []
    labels = [
        [*before, *rest]
        for before in [["settings"], *(["sets", n] for n in names)]
        for rest in LABEL_SETTINGS
    ]
    try:
        return BenchFile.model_validate(parse_yaml(text, path, labels))
    except ValidationError as error:
        messages = [f"{path}: {line}" for line in validation_messages(error, BenchFile, ())]
        raise ConfigError("\n".join(messages)) from None
