"""Draws the top layers of an encoder anew, as before pretraining.

On small data the top layers of a pretrained encoder may be too much its own pretraining's. Source: Zhang et
al. 2021, "Revisiting Few-sample BERT Fine-tuning", arXiv 2006.05987.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from bertune.encoders.auto import AutoEncoder, layer_number
from bertune.encoders.bert import Bert
from bertune.errors import ConfigError
from bertune.types import Encoder

_SETTING = "train.reinit_layers"


def reinit_top_layers(encoder: Encoder, count: int) -> list[int]:
    """Draw the top layers of an encoder from torch's generator.

    Matrices are normal with the standard deviation `initializer_range` of config.json, norms are 1 and
    biases 0; an encoder of transformers has its own rules.

    Args:
        encoder: gets the new weights.
        count: how many layers.

    Returns:
        The numbers of the layers, from 0, as their parameters are named.

    Raises:
        ConfigError: the encoder has fewer layers, or they cannot be told apart.
    """
    depth = _num_own_layers(encoder)
    if count > depth:
        raise ConfigError(
            f"{_SETTING}: {count} is more than the {depth} layers of the encoder; give {depth} at most"
        )
    layers = range(depth - count, depth)
    if isinstance(encoder, Bert):
        beginnings = tuple(f"layers.{number}." for number in layers)
        encoder.init_weights([name for name, _ in encoder.named_parameters() if name.startswith(beginnings)])
    else:
        _reinit_foreign(cast(AutoEncoder, encoder), layers)
    return list(layers)


def _num_own_layers(encoder: Encoder) -> int:
    """Return how many layers an encoder has.

    Raises:
        ConfigError: they share weights, as in ALBERT, or their parameters have unknown names.
    """
    if isinstance(encoder, Bert):
        return encoder.num_layers
    config = encoder.hf_config()
    names = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
    said = next((config[name] for name in names if isinstance(config.get(name), int)), encoder.num_layers)
    if encoder.num_layers == 0 or said != encoder.num_layers:
        why = (
            "all layers share their weights"
            if encoder.model_type == "albert"
            else "the layers of this encoder cannot be told apart"
        )
        raise ConfigError(f"{_SETTING}: {encoder.model_type}: {why}; leave it out")
    return encoder.num_layers


@torch.no_grad()
def _reinit_foreign(encoder: AutoEncoder, layers: range) -> None:
    """Draw layers of a model of transformers by the model's own rules, and by BERT's where it has none."""
    hf: Any = encoder.hf
    before = {n: p.detach().clone() for n, p in hf.named_parameters() if layer_number(n) in layers}
    for name, module in hf.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if own and all(layer_number(f"{name}.{parameter}") in layers for parameter in own):
            _forget_loading(module)
            hf._init_weights(module)
    deviation = getattr(hf.config, "initializer_range", None) or 0.02
    for name, old in before.items():
        parameter = hf.get_parameter(name)
        if not torch.equal(parameter, old):
            continue
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=deviation)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)


def _forget_loading(module: nn.Module) -> None:
    """Take off the marks by which transformers leaves loaded weights alone."""
    marked: list[Any] = [module, *module.parameters(recurse=False)]
    for thing in marked:
        if getattr(thing, "_is_hf_initialized", False):
            thing._is_hf_initialized = False
