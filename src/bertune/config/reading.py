"""How a file is read after training: as the training files, with overrides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertune.config.load import apply_override, resolve_config
from bertune.config.schema import DataConfig, Section
from bertune.errors import ConfigError
from bertune.files import is_remote, split_remote

READING_SETTINGS = (
    "columns",
    "format",
    "delimiter",
    "quoting",
    "sentence_ends",
    "encoding",
    "drop_labels",
    "label_delimiter",
    "convert",
    "bad_rows",
    "cache",
    "workers",
)
"""Settings of `data` that may change for a file to evaluate or predict; training has fixed the rest."""


def reading_config(data: DataConfig, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return how the training files were read, with overrides (`data.name=value`) applied.

    Standard input is read as lines of UTF-8 unless an override says otherwise: it may have another origin
    than the training files.

    Raises:
        ConfigError: an override names a setting that training has fixed, or a Hub data set comes without a
            split.
    """
    if is_remote(file) and not split_remote(file)[1]:
        raise ConfigError(f"{file}: say which split, such as {file}:test or {file}:validation")
    raw: dict[str, Any] = {"task": "any", "data": data.model_dump(exclude_unset=True)}
    if file == "-":
        raw["data"] |= {"encoding": "utf-8", "format": "auto"}
    for override in overrides:
        section, _, name = override.partition("=")[0].strip().partition(".")
        if section != "data" or name.split(".")[0] not in READING_SETTINGS:
            raise ConfigError(
                f"{override!r}: only these can be given here: "
                f"{', '.join(f'data.{name}' for name in READING_SETTINGS)}"
            )
        apply_override(raw, override)
    return resolve_config(raw, Section)[0].data
