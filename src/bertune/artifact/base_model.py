"""What training takes over from the folder of its pretrained model, where that makes sentence vectors.

Such a folder says how a text becomes a vector. Training goes on from that: what the user has not set has the
value of the folder, and the layers after pooling have its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune.artifact.file_hashes import WEIGHTS
from bertune.artifact.read import build_task, read_metadata, read_run, read_weights
from bertune.artifact.sentence_head import sentence_options
from bertune.artifact.sentence_modules import Dense, SentenceModules
from bertune.artifact.sentence_transformers import (
    is_cross_encoder_folder,
    is_sentence_transformers_folder,
    read_modules,
)
from bertune.config.schema import RunConfig
from bertune.encoders.pretrained import PretrainedFolder, locate_model
from bertune.errors import ArtifactError, BertuneError, ConfigError
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.types import JSON

Note = Callable[[str], None]
_HEAD_FORMS = ("pooling", "decoder")
"""The options that say what a head is made of, besides those of sentence vectors."""
_SAYS_NOTHING: tuple[Any, ...] = ([], {}, False, None, "cosine")
"""Values that are bertune's own defaults too."""


def take_over(run: RunConfig, task: Task, note: Note) -> RunConfig:
    """Return a run with those settings of the model's folder that the user has not given.

    A task of sentence vectors takes over how the folder makes them, and the longest text. Other tasks take
    over what the head of a run of the same task is, such as its pooling, where they go on with that head.

    Args:
        run: the settings, which still tell what was given.
        task: built from them; it gets the new settings too.
        note: called with a line that says what was taken over, and one that says what was not.

    Raises:
        ConfigError: the folder asks for something that bertune does not compute, or does not fit the options.
    """
    trusts_code = run.model_code == "trusted"
    try:
        folder = locate_model(run.model, with_code=trusts_code)
    except BertuneError:
        return run  # building the model says more
    if (folder / "bertune.json").is_file() and (folder / "checkpoints").is_dir():
        note(f"model {run.model}: its run is not finished; the best model that it has saved so far is taken")
    if not isinstance(task, SentenceTask):
        return _with_head_form(run, task, folder, note)
    try:
        modules = read_base_modules(folder)
        if modules is None:
            return run
        known = type(task.options).model_fields  # a task of your own may have others
        offered = {n: v for n, v in sentence_options(modules, folder).items() if n in known}
    except ArtifactError as error:
        raise ConfigError(
            f"model: {error}; to train its encoder alone, give a copy of the folder without modules.json"
        ) from None
    settings = _Settings()
    run = _with_options(run, task, offered, settings)
    pretrained = PretrainedFolder(folder, trusts_code=trusts_code)
    run = _with_max_length(run, _fitting_length(pretrained, modules.max_length), settings)
    task.data = run.data
    settings.say(run.model, note)
    return run


def warn_of_seen_rows(run: RunConfig, note: Note) -> None:
    """Say that rows held out are only new to a model that was not trained on them before."""
    if (Path(run.model) / "bertune.json").is_file():
        note(
            f"model {run.model}: the result of a run; if that was trained on rows of this file, the scores "
            "of folds flatter it, since it has seen the rows that they hold out"
        )


def _with_head_form(run: RunConfig, task: Task, folder: Path, note: Note) -> RunConfig:
    """Return a run whose head has the form of the folder's, where both are runs of the same task."""
    if not (folder / "bertune.json").is_file() or run.train.head == "new" or run.train.reinit_layers:
        return run
    try:
        before, metadata = read_run(folder), read_metadata(folder)
    except ArtifactError:
        return run  # building the model says more
    _say_left_out(run, before, note)
    if metadata["task"] != run.task:
        return run
    known, given = type(task.options).model_fields, task.options.model_fields_set
    chosen = {
        name: before.options[name]
        for name in _HEAD_FORMS
        if name in known and name in before.options and name not in given
    }
    if all(getattr(task.options, name) == value for name, value in chosen.items()):
        return run
    settings = _Settings()
    for name, value in chosen.items():
        if getattr(task.options, name) != value:
            settings.add(f"options.{name}", value, value)
    values = {name: getattr(task.options, name) for name in given}
    task.options = type(task.options).model_validate({**values, **chosen})
    settings.say(run.model, note)
    return run.model_copy(update={"options": task.options.model_dump()})


def _say_left_out(run: RunConfig, before: RunConfig, note: Note) -> None:
    """Say which settings about texts the folder was made with, and this run does not have."""
    options = before.options
    left_out = []
    if before.data.max_length is not None and "max_length" not in run.data.model_fields_set:
        left_out.append(f"data.max_length={before.data.max_length}")
    if options.get("do_lower_case"):
        left_out.append("options.do_lower_case=true")
    if any((options.get("prompts") or {}).values()):
        left_out.append("options.prompts")
    if left_out:
        note(f"model {run.model}: of the folder's settings not taken over: {', '.join(left_out)}")


def read_base_modules(folder: Path) -> SentenceModules | None:
    """Read how a folder makes sentence vectors; None where it does not.

    Raises:
        ArtifactError: the folder is damaged, or asks for something that bertune does not compute.
    """
    if is_sentence_transformers_folder(folder):
        return None if is_cross_encoder_folder(folder) else read_modules(folder)
    return _read_own_modules(folder) if (folder / "bertune.json").is_file() else None


@dataclass
class _Settings:
    """Settings of a folder that are used, and those in whose place others are given."""

    used: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    def add(self, name: str, offered: Any, chosen: Any) -> None:
        """Note a setting of the folder, and what is used."""
        short = name.rpartition(".")[2]
        if short not in {"pooling", "max_length"} and offered in _SAYS_NOTHING:
            return
        if offered == chosen:
            self.used.append(f"{short}={_text(offered)}")
        else:
            self.replaced.append(f"{name}={_text(chosen)} instead of {_text(offered)}")

    def say(self, model: str, note: Note) -> None:
        """Say both, a line each."""
        if self.used:
            note(f"model {model}: {', '.join(self.used)} taken over from the folder")
        if self.replaced:
            note(f"model {model}: given, unlike the folder: {', '.join(self.replaced)}")


def _text(value: Any) -> str:
    """Write a value in a line.

    >>> _text({"query": "q: ", "document": ""}), _text([(8, "tanh")]), _text(True), _text(None)
    ("{query: 'q: '}", '[[8, tanh]]', 'true', 'null')
    """
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {text!r}' for name, text in value.items() if text)}}}"
    if isinstance(value, list):
        return f"[{', '.join(f'[{width}, {activation}]' for width, activation in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _with_options(run: RunConfig, task: SentenceTask, offered: JSON, settings: _Settings) -> RunConfig:
    """Return a run whose options are those given, and else those of the folder; the task gets them too."""
    given = task.options.model_dump(include=task.options.model_fields_set)
    if "prompts" in given and offered.get("default_prompt_name") not in given["prompts"]:
        offered = {**offered, "default_prompt_name": None}
    task.options = type(task.options).model_validate({**offered, **given})
    for name, value in offered.items():
        if name != "prompts" or any(value.values()):
            settings.add(f"options.{name}", value, getattr(task.options, name))
    return run.model_copy(update={"options": task.options.model_dump()})


def _with_max_length(run: RunConfig, length: int | None, settings: _Settings) -> RunConfig:
    if length is None:
        return run
    if "max_length" not in run.data.model_fields_set:
        run = run.model_copy(update={"data": run.data.model_copy(update={"max_length": length})})
    settings.add("data.max_length", length, run.data.max_length)
    return run


def _fitting_length(folder: PretrainedFolder, length: int | None) -> int | None:
    """Return a length, or the encoder's positions where they are fewer."""
    try:
        return None if length is None else min(length, folder.max_positions)
    except BertuneError:
        return None  # building the model says more


def _read_own_modules(folder: Path) -> SentenceModules | None:
    """Read a folder of bertune that sentence-transformers cannot open, such as one of ChineseBERT."""
    run, metadata = read_run(folder), read_metadata(folder)
    if run.task.endswith(".py"):
        return None
    task = build_task(folder, metadata, run)
    if not isinstance(task, SentenceTask):
        return None
    hidden_size = PretrainedFolder(folder).config.get("hidden_size", 0)
    activations = [activation for _, activation in task.dense_layers(hidden_size)]
    dense = tuple(_read_own_dense(folder, activations))
    options = task.options
    return SentenceModules(
        max_length=metadata["max_length"],
        do_lower_case=options.do_lower_case,
        pooling="cls" if options.pooling == "pooler" else options.pooling,
        dense=dense,
        normalize=options.normalize,
        truncate_dim=options.truncate_dim,
        prompts=options.prompts,
        default_prompt_name=options.default_prompt_name,
        similarity_fn_name=options.similarity,
    )


def _read_own_dense(folder: Path, activations: Sequence[str]) -> Iterator[Dense]:
    weights = read_weights(folder) if activations else {}
    for number, activation in enumerate(activations):
        weight, bias = (f"bertune_head.dense.{number}.{part}" for part in ("weight", "bias"))
        if not {weight, bias} <= weights.keys():
            raise ArtifactError(f"{folder / WEIGHTS}: damaged: holds no {weight}; get the file again")
        yield Dense(weights[weight], weights[bias], "identity" if activation == "none" else activation)
