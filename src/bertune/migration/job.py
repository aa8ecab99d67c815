"""A command on its way: how it was started, its flags, the sheet that it fills, what to type here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bertune.migration.flag import Values
from bertune.migration.launcher import Launch
from bertune.migration.sheet import Sheet

RUN_FILE = "RUN.yaml"
"""Stands in commands for the file that they are written into."""


@dataclass
class Job:
    """What the conversion of one command has and makes."""

    launch: Launch
    values: Values
    sheet: Sheet = field(default_factory=Sheet)
    commands: list[str] = field(default_factory=list)
    """What to type here, in order."""
    silent: set[str] = field(default_factory=set)
    """Flags of which nothing need be said."""
    differences: list[str] = field(default_factory=list)
    """What behaves otherwise, for the top of the run file."""

    def copy(self, flag: str, words: Mapping[str, Any] | None = None, remark: str = "") -> None:
        """Put the value of a flag into its first setting; a value that is None is left out."""
        value = self.values[flag]
        if value is not None:
            self.sheet.put(self.values.flags[flag].settings[0], (words or {}).get(value, value), remark)

    def put_batch(self, per_process: int, accumulation: int = 1, what: str = "a process") -> None:
        """Put the rows of a step: those of a process, times processes, times accumulation."""
        processes = self.launch.processes
        factors = [f"{per_process} {what}"]
        factors += [f"{processes} processes"] * (processes > 1)
        factors += [f"{accumulation} accumulated"] * (accumulation > 1)
        remark = " x ".join(factors) if len(factors) > 1 else ""
        self.sheet.put("train.batch_size", per_process * processes * accumulation, remark)
        if accumulation > 1:
            self.sheet.put("train.micro_batches", accumulation, "cuts the batch, and does not multiply it")

    def put_rates(self, rate: float, head: float | None = None) -> None:
        """Put the rate of the encoder and that of the head."""
        self.sheet.put("train.learning_rate", rate)
        self.sheet.put("train.head_learning_rate", rate if head is None else head)

    def train_command(self, *more: str) -> None:
        """Add the command that trains."""
        self.commands.append(" ".join([self.launch.prefix, "train", RUN_FILE, *more]))

    def predict_command(self, model: str, file: str, output: str, *more: str) -> None:
        """Add a command that predicts; more words stand behind the file."""
        words = [self.launch.prefix, "predict", _word(model), _word(file), *more, "-o", _word(output)]
        self.commands.append(" ".join(words))

    def note_the_rest(self) -> None:
        """Say of every flag that was given and that decides nothing here why that is so."""
        for name in self.values.given:
            flag = self.values.flags[name]
            is_idle = flag.status in {"not needed", "not available"} and self.values[name] != flag.default
            if is_idle and self.values[name] is not None and name not in self.silent:
                self.sheet.note(f"--{name}: {flag.status}: {flag.note}")


def _word(text: str) -> str:
    return shlex.quote(text) if not text.startswith("~") else text


def quoted(text: str) -> str:
    """Return a setting as a word for a shell."""
    return f'"{text}"' if set(text) & set("[]{}() ") else shlex.quote(text)
