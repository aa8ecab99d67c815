"""The weights of a head for masked tokens, from a checkpoint that has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bertune.encoders.architectures import get_masked_lm_spec
from bertune.encoders.families.family import modern_name
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ConfigError
from bertune.heads.masked_lm import MaskedLMHead


@dataclass(frozen=True)
class HeadWeights:
    """What a checkpoint had for a head."""

    parameters: frozenset[str]
    """The parameters of the head that now have the checkpoint's weights."""
    names: frozenset[str]
    """The names in the checkpoint that are used, the decoder's included: it is the word table."""


def has_masked_lm_head(folder: PretrainedFolder) -> bool:
    """Tell by names whether a checkpoint has a head for masked tokens; one that cannot be read has none."""
    try:
        spec = get_masked_lm_spec(folder.config.get("model_type", ""))
        return any(modern_name(name) == f"{spec.dense}.weight" for name in folder.renamed_shapes)
    except ConfigError:
        return False


@torch.no_grad()
def load_masked_lm_head(head: MaskedLMHead, folder: PretrainedFolder, word_table: Tensor) -> HeadWeights:
    """Give a head the weights of a checkpoint, as far as it has any; others keep those that were drawn.

    Args:
        head: of the folder's encoder.
        folder: of the checkpoint.
        word_table: (V, E), as it was read.

    Raises:
        ConfigError: weights have other shapes, or the decoder is not the word table.
    """
    weights = {modern_name(folder.renaming(name)): tensor for name, tensor in folder.weights.items()}
    _check_decoder(head, weights, word_table, folder)
    used = {f"{head.form.decoder}.{kind}" for kind in ("weight", "bias")} & weights.keys()
    loaded = set()
    for name, parameter in head.named_parameters():
        for there in _names_of(head, name):
            if there not in weights:
                continue
            if weights[there].shape != parameter.shape:
                raise ConfigError(
                    f"model: the head for masked tokens in {str(folder.path)!r} does not fit its encoder: "
                    f"{there} is {_shape(weights[there])}, and {_shape(parameter)} is needed"
                )
            parameter.copy_(weights[there])
            loaded.add(name)
            used.add(there)
            break
    return HeadWeights(frozenset(loaded), frozenset(used))


def _names_of(head: MaskedLMHead, name: str) -> tuple[str, ...]:
    """Return the names of a parameter in checkpoints; where there are two, the decoder's own computes."""
    return (f"{head.form.decoder}.bias", head.form.bias) if name == "bias" else (head.hf_name(name),)


def _check_decoder(
    head: MaskedLMHead, weights: Mapping[str, Tensor], word_table: Tensor, folder: PretrainedFolder
) -> None:
    """Refuse a decoder with numbers of its own: the head's is the word table."""
    name = f"{head.form.decoder}.weight"
    decoder = weights.get(name)
    if decoder is None or torch.equal(decoder.to(word_table), word_table):
        return
    is_said = folder.config.get("tie_word_embeddings") is False
    raise ConfigError(
        f"model: the head for masked tokens in {str(folder.path)!r} has a decoder of its own: {name} "
        f"({_shape(decoder)}) is not the word table ({_shape(word_table)})"
        f"{', as tie_word_embeddings: false says' if is_said else ''}, and bertune's decoder is"
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
