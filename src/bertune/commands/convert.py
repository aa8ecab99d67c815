"""`bertune convert`: a command of another tool as a run file."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune.config.load import resolve_config
from bertune.errors import ConfigError
from bertune.files import expand_user, write_text
from bertune.migration.job import RUN_FILE, Job
from bertune.migration.programs import Program, convert_command, convert_values
from bertune.migration.sheet import command_lines, comment
from bertune.migration.shell import Command, read_command
from bertune.tasks import load_task
from bertune.types import JSON


@dataclass(frozen=True)
class Conversion:
    """A command of another tool, as bertune does it."""

    tool: str
    """bertorch, NLPer-Arsenal, ChineseBert_pytorch or transformers."""
    script: str
    settings: JSON
    """The settings of the run, as `bertune.train` takes them; empty for a command that only predicts."""
    commands: tuple[str, ...]
    """What to type, in order."""
    notes: tuple[str, ...]
    """What has no meaning here, and why; what must be known."""
    text: str
    """The run file; for a command that only predicts, the commands."""

    def to_json(self) -> JSON:
        """Return all but the text."""
        return {
            "tool": self.tool, "script": self.script, "settings": self.settings,
            "commands": list(self.commands), "notes": list(self.notes),
        }  # fmt: skip


def convert(
    command: str | Sequence[str] | Mapping[str, Any], *, output: str | Path | None = None
) -> Conversion:
    r"""Return the run of a command of bertorch, run_base.py, tnews.py, or run_glue, run_ner or run_mlm.py.

    Every setting that the command or a default of its script decides is written out, so that the run does not
    change where a default of bertune does.

    Args:
        command: the command, as a text for a shell or as words; a file that holds it; or values by the name
            of the flag, or a JSON file of them, as transformers' scripts take them.
        output: the file to write.

    Raises:
        ConfigError: the script or a flag is unknown, a value does not fit, or `output` exists with other
            content.

    Examples:
        >>> found = convert("python run_classifier.py --train_data_file a.tsv --label_file l.txt --epochs 1")
        >>> found.settings["train"]["warmup_ratio"], found.settings["data"]["columns"]
        (0.0, ['text', 'label'])
    """
    program, job = _convert(command)
    settings = job.sheet.settings()
    if settings:
        resolve_config(settings, load_task(settings["task"]).Options)
    where = RUN_FILE if output is None else shlex.quote(str(output))
    commands = tuple(line.replace(RUN_FILE, where) for line in job.commands)
    text = _run_file(program, job, commands) if settings else "".join(f"{line}\n" for line in commands)
    if output is not None:
        _write(Path(expand_user(output)), text)
    return Conversion(program.tool, program.script, settings, commands, tuple(job.sheet.notes), text)


def _convert(command: str | Sequence[str] | Mapping[str, Any]) -> tuple[Program, Job]:
    if isinstance(command, Mapping):
        return convert_values(command)
    if not isinstance(command, str) and len(command) == 1:
        command = command[0]
    if isinstance(command, str):
        if command.endswith(".json") and not command.strip().count(" "):
            return convert_values(_read_values(command))
        found = read_command(_text(command))
    else:
        found = read_command(shlex.join(command).replace("$", "\\$"))
    at = next(n for n, word in enumerate(found.words) if word.endswith(".py"))
    arguments = found.words[at + 1 :]
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        return convert_command(
            Command(found.words[: at + 1], found.environment, found.notes), _read_values(arguments[0])
        )
    return convert_command(found)


def _text(command: str) -> str:
    """Return a command, or what the file of this name holds."""
    if not os.path.isfile(expand_user(command)):  # noqa: PTH113  (Path raises where a name is too long)
        if command.strip() and len(command.split()) == 1 and not command.endswith(".py"):
            raise ConfigError(f"{command.strip()}: no such file, and no command; put the command in quotes")
        return command
    try:
        return Path(expand_user(command)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{command}: cannot be read: {reason}") from None


def _read_values(file: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(expand_user(file)).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f'{file}: must be an object of arguments, such as {{"task_name": "cola"}}')
    return values


def _run_file(program: Program, job: Job, commands: tuple[str, ...]) -> str:
    lines = [f"{program.script} of {program.tool}, with its own defaults.", ""]
    lines += [line for command in commands for line in command_lines(command)]
    if job.differences:
        lines += ["", *job.differences]
    return comment(lines) + job.sheet.text()


def _write(path: Path, text: str) -> None:
    try:
        if path.exists() and path.read_bytes() != text.encode():
            raise ConfigError(f"{path} exists already with other content; give another file: -o FILE")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
