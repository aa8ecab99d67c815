"""The modules of sentence-transformers as a task's options and head."""

from __future__ import annotations

from pathlib import Path

import torch

from bertune.artifact.sentence_modules import Dense, SentenceModules
from bertune.errors import ArtifactError
from bertune.heads.sentence import SentenceHead
from bertune.types import JSON


def sentence_options(modules: SentenceModules, folder: Path) -> JSON:
    """Return the options of a task that computes the vectors of a folder; see `SentenceOptions`.

    Raises:
        ArtifactError: the folder has prompts whose tokens its pooling leaves out.
    """
    if any(modules.prompts.values()) and not modules.include_prompt:
        raise ArtifactError(
            f"{folder / '1_Pooling'}: include_prompt is false, "
            "and bertune pools over the tokens of a prompt too"
        )
    return {
        "pooling": modules.pooling,
        "dense": [(len(layer.weight), _option_name(layer.activation)) for layer in modules.dense],
        "normalize": modules.normalize,
        "similarity": modules.similarity_fn_name or "cosine",
        "prompts": modules.prompts,
        "default_prompt_name": modules.default_prompt_name,
        "do_lower_case": modules.do_lower_case,
        "truncate_dim": modules.truncate_dim,
    }


def copy_dense(head: SentenceHead, layers: tuple[Dense, ...]) -> list[str]:
    """Give a head the weights of layers, from the first on, as long as width and activation are the same.

    Returns:
        The names of the parameters that have been replaced.
    """
    replaced: list[str] = []
    for number, (own, activation) in enumerate(zip(head.dense, head.activations, strict=True)):
        layer = layers[number] if number < len(layers) else None
        weight = own.get_parameter("weight")
        if (
            layer is None
            or weight.shape != layer.weight.shape
            or activation != _option_name(layer.activation)
        ):
            break
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        with torch.no_grad():
            weight.copy_(layer.weight)
            own.get_parameter("bias").copy_(bias)
        replaced += [f"dense.{number}.weight", f"dense.{number}.bias"]
    return replaced


def _option_name(activation: str) -> str:
    return "none" if activation == "identity" else activation
