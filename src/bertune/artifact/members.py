"""The members of an ensemble: what they must have in common, and how they become one model."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune.artifact.artifact import Artifact
from bertune.config.schema import RunConfig
from bertune.errors import ArtifactError, BertuneError, listed
from bertune.files import sha256_of_json
from bertune.heads.ensemble import EnsembleModel
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.types import JSON

MEMBERS = "members"
"""The folder of the models inside the folder of an ensemble."""
MIN_MEMBERS = 2
_IN_WORDS = {
    "num_texts": "texts of a row",
    "is_multi_label": "several labels a row",
    "entity_types": "types of entities",
    "scheme": "scheme of the tags",
    "unit": "units of a text",
    "is_binary": "scores that are labels 0 and 1",
    "related_label": "label of pairs that belong together",
}
"""Attributes of tasks in the words of users."""
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Member:
    """A model of an ensemble without its weights: what it must share with the others, and its settings."""

    name: str
    """For messages: its folder."""
    run: RunConfig
    task: Task
    tokenizer: str
    """Hash of what determines the token ids."""
    max_length: int
    truncation: tuple[str, str]
    is_ensemble: bool = False
    state: JSON = field(default_factory=dict)
    """What the task has learnt and chosen, as it was."""

    @classmethod
    def of(cls, artifact: Artifact, name: str) -> Member:
        """Return what is to be known about a model."""
        tokenizer = artifact.tokenizer
        return cls(
            name,
            artifact.run_config,
            artifact.task,
            sha256_of_json({"tokenizer": tokenizer.fingerprint()}),
            tokenizer.max_length,
            tokenizer.truncation_settings,
            len(artifact.model.members) > 1,
            copy.deepcopy(artifact.task.state()),
        )

    def faults(self) -> list[str]:
        """Return why it can be in no ensemble, a line each."""
        if self.is_ensemble:
            return [f"{self.name}: is an ensemble itself; give its members: {self.name}/{MEMBERS}/..."]
        return [f"{self.name}: {fault}" for fault in self.task.ensemble_faults()]

    def faults_beside(self, first: Member) -> list[str]:
        """Return why it cannot be in an ensemble with another model, a line each."""
        if type(self.task).__name__ != type(first.task).__name__:
            mine, other = (type(member.task).__name__.lower() for member in (self, first))
            return [f"{self.name}: is a model of task {mine}, and {first.name} is one of task {other}"]
        faults = [
            _difference(name, _attribute(self.task, name), _attribute(first.task, name), first.name)
            for name in self.task.shared_by_members
            if _attribute(self.task, name) != _attribute(first.task, name)
        ]
        if self.tokenizer != first.tokenizer:
            faults.append(f"has another tokenizer than {first.name}; all members must read the same tokens")
        if self.max_length != first.max_length:
            faults.append(
                f"reads at most {self.max_length} tokens of a row, and {first.name} {first.max_length}; "
                "train them with the same data.max_length"
            )
        if self.truncation != first.truncation:
            here, there = listed(self.truncation), listed(first.truncation)
            faults.append(f"cuts long rows by {here}, and {first.name} by {there}")
        return [f"{self.name}: {fault}" for fault in faults]


def _attribute(task: Task, name: str) -> Any:
    """Return an attribute of a task, or one of its options: `options.similarity`."""
    first, _, option = name.partition(".")
    value = getattr(task, first)
    return getattr(value, option) if option else value


def _difference(name: str, mine: Any, other: Any, whose: str) -> str:
    """Say how an attribute differs from that of another model.

    >>> _difference("labels", ("a", "b"), ("b", "c", "a"), "runs/x")
    "labels differ from runs/x: only there 'c'"
    >>> _difference("labels", ("a", "b"), ("b", "a"), "runs/x")
    "labels in another order than runs/x: 'a', 'b' here, 'b', 'a' there; train both with the same data.labels"
    >>> _difference("options.similarity", "dot", "cosine", "runs/x")
    "options.similarity: 'dot' here, 'cosine' in runs/x"
    >>> _difference("is_multi_label", True, False, "runs/x")
    'several labels a row: true here, false in runs/x'
    """
    name = _IN_WORDS.get(name, name)
    if not (isinstance(mine, tuple | list) and isinstance(other, tuple | list)):
        here, there = (str(v).lower() if isinstance(v, bool) else repr(v) for v in (mine, other))
        return f"{name}: {here} here, {there} in {whose}"
    if set(mine) == set(other):
        order = f"{listed(mine)} here, {listed(other)} there"
        return f"{name} in another order than {whose}: {order}; train both with the same data.labels"
    only = {"here": [v for v in mine if v not in other], "there": [v for v in other if v not in mine]}
    parts = (f"only {where} {listed(values)}" for where, values in only.items() if values)
    return f"{name} differ from {whose}: {', '.join(parts)}"


def is_ensemble(metadata: JSON) -> bool:
    """Tell whether bertune.json is that of an ensemble."""
    return "ensemble" in metadata


def member_folders(folder: Path, metadata: JSON) -> list[Path]:
    """Return the folders of the members of an ensemble, in order.

    Raises:
        ArtifactError: bertune.json does not name them.
    """
    names = metadata["ensemble"]
    is_list = isinstance(names, list) and all(isinstance(n, str) and _NAME.fullmatch(n) for n in names)
    if not is_list or len(set(names)) < max(MIN_MEMBERS, len(names)):
        raise ArtifactError(
            f"{folder / 'bertune.json'}: damaged: 'ensemble' must name {MIN_MEMBERS} or more folders inside "
            f"{MEMBERS}/, each once, got {names!r}; get the file again"
        )
    return [folder / MEMBERS / name for name in names]


def join_members(
    folder: Path, metadata: JSON, run: RunConfig, task: Task, read: Callable[[Path], Artifact]
) -> Artifact:
    """Read the members of an ensemble and return it as one model.

    Args:
        folder: the ensemble.
        metadata: its bertune.json.
        run: its run.yaml.
        task: its task, with the state for the mean.
        read: reads the folder of a member.

    Raises:
        ArtifactError: members are missing, damaged, or do not fit each other or the task; all are named.
    """
    artifacts: list[Artifact] = []
    faults: list[str] = []
    members = []
    for path in member_folders(folder, metadata):
        try:
            artifacts.append(read(path))
            members.append(Member.of(artifacts[-1], str(path)))
        except BertuneError as error:
            faults.append(str(error))
    if not faults:
        faults = check_members(members)
    if not faults:
        whole = Member.of(artifacts[0], str(folder))
        asked = Member(
            f"{folder}/bertune.json", run, task, whole.tokenizer, metadata["max_length"], whole.truncation
        )
        faults = asked.faults_beside(members[0])
    if faults:
        raise ArtifactError(
            f"{folder}: this ensemble cannot be opened: {_lines(faults)}; get the folder again, or make it "
            "anew: bertune ensemble OUT MODEL MODEL ..."
        )
    if isinstance(task, SentenceTask):  # widths of one model mean nothing for vectors side by side
        task.options = task.options.model_copy(update={"matryoshka": []})
    models = [artifact.model for artifact in artifacts]
    model = EnsembleModel(models, task.mean_output).eval()
    return Artifact(model, task, artifacts[0].tokenizer, run, metadata)


def check_members(members: Sequence[Member]) -> list[str]:
    """Return why models cannot be one ensemble, a line each."""
    faults = [fault for member in members for fault in member.faults()]
    for member in members[1:]:
        faults += member.faults_beside(members[0])
    return faults


def _lines(faults: Sequence[str]) -> str:
    return faults[0] if len(faults) == 1 else "".join(f"\n  {fault}" for fault in faults) + "\n"
