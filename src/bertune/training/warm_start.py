"""How a run begins from the head of another run: kept, kept in part, or replaced by a new one.

Weights of a head mean something for the labels and the vectors that they were trained with. So they are
taken over by the names of the labels, and only where the rest of the head is the same. What is done is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune.artifact.base_head import BaseHead, read_base_head
from bertune.config.schema import RunConfig
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError, listed
from bertune.files import read_json_object
from bertune.heads.model import Model
from bertune.heads.transfer import copy_rows, find_misfit
from bertune.tasks.base.head_outputs import (
    MASKED_TOKENS,
    NUMBER,
    PAIR_LABEL,
    TAGS,
    VECTORS,
    HeadOutputs,
    LabelMatch,
    has_no_names,
    match_labels,
)
from bertune.tasks.base.task import Task
from bertune.types import JSON

_MOST = 8
"""How many labels a line names."""
_KEEP = "train.head=keep"
_LOADED_BY_NAME = (HeadOutputs(VECTORS), HeadOutputs(MASKED_TOKENS))
"""Outputs without labels, whose heads `build_model` fills whatever has written the folder."""
_OF_VECTORS = ("options.pooling", "options.dense")
"""The settings that say what a vector is."""


@dataclass(frozen=True)
class WarmStart:
    """What a run has taken over from the head of its model's folder."""

    kept: frozenset[str] = frozenset()
    """The parameters that have been replaced, wholly or in part."""
    partly_new: frozenset[str] = frozenset()
    """Those of them in which some labels are new."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


def take_over_head(
    run: RunConfig, task: Task, model: Model, folder: PretrainedFolder, kept_layers: frozenset[str]
) -> WarmStart:
    """Give a new head the weights of the folder's head, as `train.head` says and as far as they fit.

    Args:
        run: the settings.
        task: knows its labels: `task.fit` has run.
        model: the encoder of the folder, and a new head.
        folder: of the encoder.
        kept_layers: parameters of the head that have the folder's weights already.

    Raises:
        ConfigError: `train.head=keep`, and the head cannot be kept whole; or the folder is damaged.
    """
    if run.train.head == "new":
        return WarmStart()
    base = read_base_head(folder, run.task, model.encoder, model.head)
    if base is None or (base.outputs == task.head_outputs() and base.outputs in _LOADED_BY_NAME):
        return _without_outputs(run, model, kept_layers)
    there, here = base.outputs, task.head_outputs()
    if there is None or here is None:
        unknown_here = f"task {run.task} does not say what its outputs mean (head_outputs)"
        return _replaced(run, base, base.why_unknown if there is None else unknown_here)
    if there.kind != here.kind:
        reason = f"it gives {there.kind}, and task {run.task} here needs {here.kind}"
        is_same_vector = not _other_input(base, model, _OF_VECTORS)
        said = _vectors_go_on(there, here) if is_same_vector else ""
        return _replaced(run, base, reason, said or _after_masked_tokens(run, model, there, kept_layers))
    found = match_labels(here, there)
    if reason := _other_input(base, model) or _other_labels(found, here, there):
        return _replaced(run, base, reason)
    if reason := find_misfit(model.head, base.weights, max(1, len(there.labels))):
        return _replaced(run, base, reason)
    if run.train.head == "keep" and (lost := _lost_parts(base, here, there, found, model)):
        raise _refusal(run, lost)
    lines = [
        _describe_kept(base, here, there, found, task) + _crf_words(base, here, task),
        *base.notes,
        *_not_taken_over(base),
    ]
    kept = copy_rows(model.head, base.weights, found.places)
    partly = kept & model.head.label_axes.keys() if None in found.places else frozenset()
    return WarmStart(kept, frozenset(partly), _with_name(run, lines))


def _replaced(run: RunConfig, base: BaseHead, reason: str, said: str = "") -> WarmStart:
    """Return that the head stays new.

    Raises:
        ConfigError: `train.head=keep`.
    """
    if run.train.head == "keep":
        raise _refusal(run, reason)
    return WarmStart(notes=_with_name(run, [said or f"head replaced by a new one: {reason}", *base.notes]))


def _with_name(run: RunConfig, lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{run.model}: {line}" for line in lines)


def describe_known_rows(model: str, fingerprint: JSON) -> list[str]:
    """Say which rows to score are just those that the model of a run was trained on.

    Args:
        model: the folder, or the name, of a run's encoder.
        fingerprint: hashes of the splits of this run; see `Splits`.
    """
    data = read_json_object(Path(model) / "bertune.json").get("data")
    trained_on = data.get("train") if isinstance(data, dict) else None
    return [
        f"{model} was trained on the {split} rows of this run, so their scores flatter it"
        for split in ("dev", "test")
        if trained_on is not None and fingerprint.get(split) == trained_on
    ]


def _without_outputs(run: RunConfig, model: Model, kept_layers: frozenset[str]) -> WarmStart:
    """Check `train.head=keep` where there are no labels to compare: an encoder alone, or vectors."""
    new = [name for name, _ in model.head.named_parameters() if name not in kept_layers]
    if run.train.head == "keep" and new:
        raise ConfigError(
            f"{_KEEP}: the folder {run.model!r} has no {listed(new, 3)} for the head of task {run.task}; "
            "leave it out for a new head, or give the folder of a run of this task"
        )
    return WarmStart()


def _vectors_go_on(there: HeadOutputs, here: HeadOutputs) -> str:
    """Return what is said where both make vectors, and one of them predicts labels from these; else ""."""
    if (there.kind, here.kind) == (VECTORS, PAIR_LABEL):
        return "its vectors go on as they are; the layer that predicts labels is new"
    if (there.kind, here.kind) == (PAIR_LABEL, VECTORS):
        return "its vectors go on as they are; the layer that predicts labels is left out"
    return ""


def _after_masked_tokens(
    run: RunConfig, model: Model, there: HeadOutputs, kept_layers: frozenset[str]
) -> str:
    """Return what is said of a pretrained masked-LM model, whose head no other task uses; "" of others."""
    if there.kind != MASKED_TOKENS:
        return ""
    new = {name for name, _ in model.head.named_parameters()} - kept_layers
    lacks_dense = any(name.startswith("dense") for name in new)
    hidden = ", its hidden layer too, since masked-LM models have no pooler" if lacks_dense else ""
    here = f"; that of task {run.task} is new{hidden}" if new else ""
    return f"the head for masked tokens is left out{here}"


def _other_labels(found: LabelMatch, here: HeadOutputs, there: HeadOutputs) -> str:
    """Return why no label of a folder is one of the run's; "" where some are. `O` alone says nothing."""
    common = {label for label, place in zip(here.labels, found.places, strict=False) if place is not None}
    if not found.is_empty and not (here.kind == TAGS and common == {"O"} != set(here.labels)):
        return ""
    if has_no_names(there.labels):
        return (
            f"its {there.noun} have no names (LABEL_0 ...), so nothing says which of the {here.noun} here "
            "is which"
        )
    return _both(here, there)


def _both(here: HeadOutputs, there: HeadOutputs) -> str:
    return f"its {there.noun} are {_names(there.labels)}, the {here.noun} here are {_names(here.labels)}"


def _other_input(base: BaseHead, model: Model, names: Iterable[str] = ()) -> str:
    """Return which setting makes the outputs read something else than in the folder; "" where none does.

    Args:
        base: the head of the folder.
        model: has the run's own.
        names: the settings to compare; without it all.
    """
    here = model.head.input_form
    for name in names or sorted(here.keys() | base.input_form.keys()):
        a, b = here.get(name), base.input_form.get(name)
        if a != b:
            return f"{name} is {_value(b)} there and {_value(a)} here"
    return ""


def _describe_kept(
    base: BaseHead, here: HeadOutputs, there: HeadOutputs, found: LabelMatch, task: Task
) -> str:
    """Return the line that says what is kept, but for a CRF."""
    if here.kind == NUMBER:
        return f"head kept (a number{_ranges(base.task, task)})"
    pairs = list(zip(here.labels, found.places, strict=True))
    new = [label for label, place in pairs if place is None]
    kept = [label for label, place in pairs if place is not None]
    left_out = [label for n, label in enumerate(there.labels) if n not in found.places]
    if new or left_out:
        parts = [f"head kept for {_names(kept)}"]
        parts += [f"new: {_names(new)}"] if new else []
        parts += [f"left out: {_names(left_out)}"] if left_out else []
        return "; ".join(parts)
    if found.by_position:
        order = ", ".join(f"{there.labels[place or 0]} is {label}" for label, place in pairs[:_MOST])
        return f"head kept ({here.noun}, which have no names there and are taken in their order: {order})"
    is_same_order = list(found.places) == list(range(len(pairs)))
    order = "" if is_same_order else ", put into the order of this run"
    return f"head kept ({here.noun}{order}){_doubt(here)}"


def _doubt(here: HeadOutputs) -> str:
    """Say that labels which are numbers may mean something else in other data."""
    if not here.labels or not all(label.lstrip("-").isdecimal() for label in here.labels):
        return ""
    return f"; if {_names(here.labels)} mean something else here, set train.head=new"


def _lost_parts(
    base: BaseHead, here: HeadOutputs, there: HeadOutputs, found: LabelMatch, model: Model
) -> str:
    """Return what keeps a head from being kept whole; "" where nothing does."""
    if None in found.places or len(there.labels) != len(here.labels):
        return _both(here, there)
    names = {name for name, _ in model.head.named_parameters()}
    other = sorted(names ^ base.weights.keys())
    return f"only one of both heads has {listed(other, 3)}" if other else ""


def _crf_words(base: BaseHead, here: HeadOutputs, task: Task) -> str:
    """Say what becomes of the scores of a CRF that only one of both heads has."""
    if here.kind != TAGS:
        return ""
    there = any(name.startswith("crf.") for name in base.weights)
    is_crf = getattr(task.options, "decoder", "linear") == "crf"
    if is_crf == there:
        return ""
    return f"; the CRF's scores of pairs are {'new' if is_crf else 'left out'}"


def _ranges(before: Task | None, task: Task) -> str:
    """Say that targets have another range than those that the head was trained on."""
    old, new = (
        [getattr(t, name, None) for name in ("target_min", "target_max")] if t is not None else [None, None]
        for t in (before, task)
    )
    if None in old or None in new or old == new:
        return ""
    return f", trained on targets from {old[0]:g} to {old[1]:g}; here they go from {new[0]:g} to {new[1]:g}"


def _not_taken_over(base: BaseHead) -> list[str]:
    """Say what else the folder has learnt, which a run learns anew."""
    learnt = []
    if base.state.get("calibration"):
        learnt.append("calibration")
    thresholds = base.state.get("thresholds") or []
    if len(set(thresholds)) > 1:
        learnt.append("thresholds")
    return [f"{' and '.join(learnt)} of the folder: not taken over"] if learnt else []


def _refusal(run: RunConfig, reason: str) -> ConfigError:
    return ConfigError(
        f"{_KEEP}: the head of {run.model!r} cannot be kept whole: {reason}; leave {_KEEP} out to keep what "
        "fits, or make both the same"
    )


def _names(labels: Sequence[str]) -> str:
    return listed(labels, _MOST)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)
