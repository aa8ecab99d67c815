"""Pretrained folders to encoders: our own BERT where it computes the architecture, else transformers'."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bertune.errors import ConfigError, listed
from bertune.model.bert import Bert, is_ours
from bertune.model.names import FAMILIES, HEADS
from bertune.types import JSON, Encoder

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold weights, the first found wins; an index names the files of a checkpoint that was cut."""

_BUFFERS = ("position_ids", "token_type_ids")  # numbers from 0 on, which older checkpoints carry along


@dataclass
class LoadReport:
    """What a checkpoint had and had not, by name."""

    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    pooler: dict[str, Tensor] = field(default_factory=dict)
    """A pretrained hidden layer for the head: `weight` and `bias`, where the checkpoint has one."""


def read_encoder(folder: Path) -> tuple[Encoder, LoadReport]:
    """Read a pretrained encoder, weights in fp32: safetensors or pytorch_model.bin, gamma/beta names too.

    Raises:
        ConfigError: the folder's architecture or its weights cannot be read.
    """
    config = _config(folder)
    if is_ours(config):
        state = _without_prefix(_read_weights(folder), config["model_type"])
        if state:
            return _filled(config, state, folder)
    from bertune.model.auto import read_auto

    encoder, new, unused, pooler = read_auto(folder)
    return encoder, LoadReport(new, unused, pooler)


def build_encoder(folder: Path) -> Encoder:
    """Build an encoder without weights, to be filled from a saved model in `folder`.

    Raises:
        ConfigError: the folder's architecture cannot be read.
    """
    config = _config(folder)
    if is_ours(config):
        return _empty(config, folder)
    from bertune.model.auto import build_auto

    return build_auto(folder)


def _config(folder: Path) -> JSON:
    """Read config.json; what is none is left to transformers, whose message says more."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _empty(config: JSON, folder: Path) -> Bert:
    try:
        encoder = Bert(config)
        if encoder.shape.width % encoder.shape.heads:
            raise ValueError(f"width {encoder.shape.width} cannot be shared among {encoder.shape.heads} heads")
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"model: config.json in {str(folder)!r} describes no {config['model_type']} encoder: {error}") from None
    return encoder


def _filled(config: JSON, state: dict[str, Tensor], folder: Path) -> tuple[Bert, LoadReport]:
    """Put a checkpoint's weights into an encoder; draw what it lacks."""
    encoder = _empty(config, folder)
    theirs = {name: encoder.their_name(name) for name in encoder.state_dict()}
    parameters = dict(encoder.named_parameters())
    wrong = [
        f"{theirs[n]} {tuple(state[theirs[n]].shape)}"
        for n, p in parameters.items()
        if theirs[n] in state and state[theirs[n]].shape != p.shape
    ]
    if wrong:
        raise ConfigError(f"model: weights in {str(folder)!r} have other shapes than its config.json says: {listed(wrong, 3)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if theirs[name] in state:
                parameter.copy_(state[theirs[name]])
    new = [name for name in parameters if theirs[name] not in state]
    encoder.initialize(new)
    form = HEADS[encoder.kind]
    pooler = {}
    if form.pretrained_pooler:
        names = {kind: f"{form.pretrained_pooler}.{kind}" for kind in ("weight", "bias")}
        if all(name in state and state[name].shape[0] == encoder.width for name in names.values()):
            pooler = {kind: state[name].float().clone() for kind, name in names.items()}  # a clone, or the whole file stays mapped
    taken = {*theirs.values(), *(f"{form.pretrained_pooler}.{kind}" for kind in pooler)}
    unused = sorted(name for name in state if name not in taken and name.rpartition(".")[2] not in _BUFFERS)
    return encoder, LoadReport(sorted(theirs[name] for name in new), unused, pooler)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a folder by name.

    Raises:
        ConfigError: there are none, or a file is damaged.
    """
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ConfigError(f"model: cannot read the weights in {str(folder)!r}: it holds none of {', '.join(WEIGHTS)}")
    try:
        if found.suffix != ".json":
            return _read_file(found)
        parts = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
        return {name: tensor for part in parts for name, tensor in _read_file(folder / part).items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"model: cannot read the weights in {str(folder)!r}: {found.name}: {reason}") from None


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    return {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _is_zip(path: Path) -> bool:
    """Tell whether torch can map the file instead of reading it: files before torch 1.6 are no zip archives."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _without_prefix(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the encoder's weights and what else there is, under the names inside the encoder; nothing if its words are missing."""
    family = FAMILIES[kind]
    words = f"{family.embeddings['words']}.weight"
    prefix = f"{family.prefix}." if f"{family.prefix}.{words}" in state else ""
    if f"{prefix}{words}" not in state:
        return {}
    return {_modern(name.removeprefix(prefix)): tensor for name, tensor in state.items()}


def _modern(name: str) -> str:
    """Translate the names that TensorFlow's checkpoints gave LayerNorm."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
