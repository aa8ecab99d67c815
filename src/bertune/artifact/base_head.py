"""The head that the folder of a run's encoder has: what its outputs mean, and its weights.

Such a folder was written by bertune, or by transformers from a model with a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertune.artifact.file_hashes import WEIGHTS, changed_files
from bertune.artifact.read import build_task, read_metadata, read_run
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ArtifactError, ConfigError
from bertune.heads.head import Head, as_head
from bertune.tasks.base.head_outputs import (
    NUMBER,
    ONE_LABEL,
    SEVERAL_LABELS,
    TAGS,
    HeadOutputs,
)
from bertune.tasks.base.task import Task
from bertune.types import JSON, Encoder

_KINDS = {"regression": NUMBER, "multi_label_classification": SEVERAL_LABELS}
"""transformers' `problem_type` to the kind of outputs."""


@dataclass(frozen=True)
class BaseHead:
    """The head of a folder."""

    outputs: HeadOutputs | None
    """What its outputs mean; None where its task does not say."""
    input_form: Mapping[str, Any]
    """What they are computed from; see `Head.input_form`."""
    read_weights: Callable[[], dict[str, Tensor]]
    """Returns its weights by the names that bertune's head gives them."""
    task: Task | None = None
    """The task that the folder was made with, where bertune wrote it."""
    state: JSON = field(default_factory=dict)
    """What that task has learnt."""
    why_unknown: str = "its task does not say what its outputs mean (head_outputs)"
    """Why nobody knows what its outputs mean, where `outputs` is None; as the end of a sentence."""
    notes: tuple[str, ...] = ()
    """What a user should know of the folder."""

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Return `read_weights`, once."""
        return self.read_weights()


def read_base_head(folder: PretrainedFolder, task_name: str, encoder: Encoder, head: Head) -> BaseHead | None:
    """Read the head of a folder; None where it is an encoder alone, or a folder of sentence vectors.

    Args:
        folder: of the run's encoder.
        task_name: the task of the run: a file of one's own is run for a folder of the same file only.
        encoder: what has been read from the folder.
        head: the run's own head, whose names of weights hold for the heads of transformers too.

    Raises:
        ConfigError: bertune.json or the files beside it are damaged.
    """
    if (folder.root / "bertune.json").is_file():
        return _read_own(folder, task_name, encoder)
    return _read_foreign(folder, head)


def _read_own(folder: PretrainedFolder, task_name: str, encoder: Encoder) -> BaseHead:
    path = folder.root
    try:
        metadata = read_metadata(path)
        name = str(metadata["task"])
        is_own_file = name.endswith(".py")
        if is_own_file and Path(name).name != Path(task_name).name:
            return BaseHead(None, {}, dict, why_unknown=f"it was made with the task file {name!r}")
        task = build_task(path, metadata, read_run(path), task_name if is_own_file else None)
    except ArtifactError as error:
        raise ConfigError(
            f"model: {error}; to train its encoder alone, give a copy of the folder without bertune.json"
        ) from None
    with torch.random.fork_rng(devices=[]):  # its first weights must not change the run's own
        head = as_head(task.head(encoder, {}))
    names = {name: head.hf_name(name) for name, _ in head.named_parameters()}
    notes: tuple[str, ...] = ()
    if WEIGHTS in changed_files(path, metadata):
        notes = ("its weights have changed since bertune wrote it; labels are still those of bertune.json",)
    return BaseHead(
        task.head_outputs(),
        head.input_form,
        lambda: _named_weights(folder, names),
        task=task,
        state=metadata["state"],
        notes=notes,
    )


def _read_foreign(folder: PretrainedFolder, head: Head) -> BaseHead | None:
    config = folder.config
    name = next(iter(config.get("architectures") or [""]))
    names = {name: head.hf_name(name) for name, _ in head.named_parameters()}

    def read() -> dict[str, Tensor]:
        return _named_weights(folder, names)

    if name.endswith("ForTokenClassification"):
        outputs = HeadOutputs(TAGS, _label_names(folder))
        return BaseHead(outputs, {}, read)
    if not name.endswith("ForSequenceClassification"):
        return None
    labels = _label_names(folder)
    kind = _KINDS.get(config.get("problem_type") or "", ONE_LABEL)
    if kind == NUMBER or (len(labels) == 1 and config.get("problem_type") is None):
        return BaseHead(HeadOutputs(NUMBER), {"options.pooling": "pooler"}, read)
    return BaseHead(HeadOutputs(kind, labels), {"options.pooling": "pooler"}, read)


def _label_names(folder: PretrainedFolder) -> tuple[str, ...]:
    """Return the labels of config.json, in the order of their ids; LABEL_0 and so on where it has none."""
    names = folder.config.get("id2label")
    if isinstance(names, dict) and names:
        try:
            return tuple(str(names[key]) for key in sorted(names, key=int))
        except (TypeError, ValueError):
            pass
    number = folder.config.get("num_labels")
    return tuple(f"LABEL_{n}" for n in range(number if isinstance(number, int) else 2))


def _named_weights(folder: PretrainedFolder, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return weights by bertune's names, as far as the folder has them."""
    weights = {folder.renaming(name): tensor for name, tensor in folder.weights.items()}
    return {name: weights[there] for name, there in names.items() if there in weights}
