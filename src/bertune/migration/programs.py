"""The scripts whose commands can be converted, by tool; and a command converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertune.errors import ConfigError, did_you_mean
from bertune.migration import (
    accelerate_scripts,
    bertorch,
    bertorch_flags,
    transformers_mlm,
    transformers_scripts,
)
from bertune.migration.accelerate_flags import RUN_BASE, TNEWS
from bertune.migration.flag import Flag, read_values
from bertune.migration.job import Job
from bertune.migration.launcher import read_launch
from bertune.migration.shell import Command, read_command
from bertune.migration.training_arguments import FIELDS
from bertune.migration.transformers_flags import GLUE, MLM, NER


@dataclass(frozen=True)
class Program:
    """A script of another tool."""

    tool: str
    script: str
    flags: tuple[Flag, ...]
    convert: Callable[[Job], None]
    task: str
    """The task whose settings its flags decide."""


PROGRAMS: tuple[Program, ...] = (
    *(
        Program("bertorch", script, bertorch_flags.FLAGS[script], convert, task)
        for (script, convert), task in zip(
            bertorch.CONVERT.items(), ("classify", "match", "embed", "embed", "tag", "match"), strict=True
        )
    ),
    Program("NLPer-Arsenal", "run_base.py", RUN_BASE, accelerate_scripts.run_base, "classify"),
    Program("ChineseBert_pytorch", "tnews.py", TNEWS, accelerate_scripts.tnews, "classify"),
    Program("transformers", "run_glue.py", GLUE, transformers_scripts.run_glue, "classify"),
    Program("transformers", "run_ner.py", NER, transformers_scripts.run_ner, "tag"),
    Program("transformers", "run_mlm.py", (*MLM, *FIELDS), transformers_mlm.run_mlm, "pretrain"),
)
SCRIPTS = tuple(dict.fromkeys(program.script for program in PROGRAMS))


def convert_text(text: str) -> tuple[Program, Job]:
    """Convert a command as a shell reads it.

    Raises:
        ConfigError: it is no command of a known script, a flag is unknown, or a value does not fit.
    """
    return convert_command(read_command(text))


def convert_command(command: Command, more: Mapping[str, Any] | None = None) -> tuple[Program, Job]:
    """Convert a command; `more` are values by the name of the flag.

    Raises:
        ConfigError: it is no command of a known script, a flag is unknown, or a value does not fit.
    """
    more = {name: value for name, value in (more or {}).items() if not name.startswith("_")}  # _n_gpu
    launch = read_launch(command)
    program = find_program(launch.script, launch.arguments, more)
    job = Job(launch, read_values(launch.arguments, program.flags, launch.script, more))
    for line in launch.notes:
        job.sheet.note(line)
    program.convert(job)
    job.note_the_rest()
    return program, job


def convert_values(values: Mapping[str, Any]) -> tuple[Program, Job]:
    """Convert a file of arguments, as transformers' scripts take them in JSON.

    Raises:
        ConfigError: see `convert_command`.
    """
    program = max(PROGRAMS, key=lambda program: _score(program, list(values)))
    return convert_command(Command(("python", program.script)), values)


def find_program(script: str, arguments: Sequence[str], more: Mapping[str, Any]) -> Program:
    """Return the program of a script; of two with one name the one that has more of the flags.

    Raises:
        ConfigError: no script of that name is known.
    """
    named = [program for program in PROGRAMS if program.script == script]
    if not named:
        known = ", ".join(SCRIPTS)
        raise ConfigError(f"{script}: its flags are not known{did_you_mean(script, SCRIPTS)}; known: {known}")
    names = [word.lstrip("-").partition("=")[0] for word in arguments if word.startswith("--")]
    return max(named, key=lambda program: _score(program, [*names, *more]))


def _score(program: Program, names: Sequence[str]) -> int:
    known = {flag.name for flag in program.flags}
    return sum(name.replace("-", "_") in known for name in names)
