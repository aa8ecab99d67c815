"""`bertune init`: a run file with every setting explained, and example data to run it on."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from bertune.config.schema import RunConfig, Section, is_section
from bertune.errors import ConfigError
from bertune.tasks import load_task

EXAMPLES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "classify": (
        {
            "data": {"train": "data/intents.en.train.csv", "dev": "data/intents.en.dev.csv"},
            "options": {"pooling": "mean"},
            "train": {"epochs": 5, "batch_size": 32, "learning_rate": 3e-4},
        },
        ("intents.en.train.csv", "intents.en.dev.csv"),
    ),
    "regress": (
        {
            "data": {
                "train": "data/intents.en.train.csv",
                "dev": "data/intents.en.dev.csv",
                "columns": {"text": "text", "label": "urgency"},
            },
            "options": {"pooling": "mean"},
            "train": {"epochs": 5, "batch_size": 32, "learning_rate": 3e-4},
        },
        ("intents.en.train.csv", "intents.en.dev.csv"),
    ),
    "tag": (
        {
            "data": {"train": "data/entities.en.train.jsonl", "dev": "data/entities.en.dev.jsonl"},
            "train": {"epochs": 10, "batch_size": 16, "learning_rate": 3e-4},
        },
        ("entities.en.train.jsonl", "entities.en.dev.jsonl"),
    ),
    "match": (
        {
            "data": {"train": "data/pairs.en.train.csv", "dev": "data/pairs.en.dev.csv"},
            "train": {"epochs": 3, "batch_size": 16, "learning_rate": 5e-5},
        },
        ("pairs.en.train.csv", "pairs.en.dev.csv"),
    ),
    "embed": (
        {
            "data": {
                "train": "data/pairs.en.train.csv",
                "dev": "data/pairs.en.dev.csv",
                "drop_labels": ["0"],
            },
            "train": {"epochs": 3, "batch_size": 16, "learning_rate": 5e-5},
        },
        ("pairs.en.train.csv", "pairs.en.dev.csv"),
    ),
}
"""By task: the settings of a new run file, and the example files that it reads."""


def examples_folder() -> Path:
    """Return the folder of example files: inside the installed package, or beside its source."""
    package = Path(__file__).parents[1]
    inside, beside = package / "examples", package.parents[1] / "examples"
    return inside if inside.is_dir() else beside


def init(task: str, folder: str | Path = ".") -> list[Path]:
    """Write TASK.yaml and its example data into a folder; return the files.

    A file that exists with other content is never overwritten.

    Raises:
        TaskNotFound: there is no such task.
        ConfigError: a file exists with other content, or cannot be written.
    """
    task_class = load_task(task)
    name = Path(task).stem
    settings, files = EXAMPLES.get(name, ({"data": {"train": "train.csv"}}, ()))
    folder = Path(folder)
    contents = {folder / f"{name}.yaml": run_file_text(task, settings, task_class.Options)}
    for file in files:
        contents[folder / "data" / file] = (examples_folder() / "data" / file).read_text(encoding="utf-8")
    for path, text in contents.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise ConfigError(f"{path} exists already; give another folder: bertune init {task} FOLDER")
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}"
        ) from None
    return list(contents)


def run_file_text(task: str, settings: dict[str, Any], options: type[Section]) -> str:
    """Return a run file: the given settings, and every other setting as a comment with its default."""
    lines = [
        f"# bertune train {Path(task).stem}.yaml",
        "# A setting after # has the value shown. Paths are relative to the folder where you run bertune.",
        "",
    ]
    lines += _section_lines(RunConfig, {"task": task, **settings}, options, "")
    return "\n".join(lines) + "\n"


def _section_lines(
    model: type[BaseModel], settings: dict[str, Any], options: type[Section], indent: str
) -> list[str]:
    """Return the lines of a section, each setting below its description."""
    lines: list[str] = []
    for name, field in model.model_fields.items():
        section = options if name == "options" else field.annotation
        lines += textwrap.wrap(
            " ".join((field.description or "").split()),
            110,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
        )
        if is_section(section):
            lines += [
                f"{indent}{name}:",
                *_section_lines(section, settings.get(name, {}), options, indent + "  "),
            ]
        elif name in settings:
            lines += [f"{indent}{name}: {_to_yaml(settings[name])}"]
        else:
            lines += [f"{indent}# {name}: {_to_yaml(field.get_default(call_default_factory=True))}"]
        lines += [""] if is_section(section) or not indent else []
    return lines


def _to_yaml(value: Any) -> str:
    return (
        str(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000))
        .removesuffix("...\n")
        .strip()
    )
