"""What sentence-transformers computes after the encoder, as plain data, and what bertune supports of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import get_args

import torch
from torch import Tensor

from bertune.errors import ArtifactError, listed
from bertune.metrics.similarity import Similarity

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Poolings, and their names in the legacy layout."""

SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)

ACTIVATIONS = {
    "tanh": "torch.nn.modules.activation.Tanh",
    "identity": "torch.nn.modules.linear.Identity",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
}
"""Activations of a dense layer, and their classes. These get no arguments, so gelu is the exact one."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer on the sentence vector: `activation(weight @ vector + bias)`.

    Layers with equal numbers are equal.
    """

    weight: Tensor
    """(out, in), fp32."""
    bias: Tensor | None = None
    """(out,), fp32."""
    activation: str = "tanh"
    """A key of `ACTIVATIONS`."""

    def __eq__(self, other: object) -> bool:
        """Compare names and numbers."""
        if (
            not isinstance(other, Dense)
            or self.activation != other.activation
            or not torch.equal(self.weight, other.weight)
        ):
            return False
        if self.bias is None or other.bias is None:
            return self.bias is other.bias
        return torch.equal(self.bias, other.bias)


@dataclass(frozen=True)
class SentenceModules:
    """A folder of sentence-transformers without encoder and tokenizer, in the order of the computation."""

    transformer_path: str = ""
    """Sub folder of the encoder, "" for the folder itself; very old folders have "0_Transformer"."""
    max_length: int | None = None
    """Most tokens of a text, special ones included; None where the folder names no limit."""
    do_lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer reads them."""
    pooling: str = "mean"
    """A key of `POOLINGS`."""
    include_prompt: bool = True
    """Whether the pooling counts the tokens of a prompt. If not, [CLS] is left out with them."""
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    """Whether the vector is brought to length 1, after all dense layers."""
    truncate_dim: int | None = None
    """How many numbers of a vector are kept, after `normalize`; they are not normalized again."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Texts to put before a text, by name."""
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    """One of `SIMILARITIES`; None where the folder names none, which means cosine."""


def unsupported(file: Path, reason: str) -> ArtifactError:
    """Return the error for a folder whose vectors bertune would compute differently."""
    return ArtifactError(f"{file}: {reason}; open this folder with sentence-transformers itself")


def check_path(path: object, file: Path) -> None:
    """Refuse the path of a module that leads out of the folder.

    Raises:
        ArtifactError: names `file`.
    """
    parsed = PureWindowsPath(path) if isinstance(path, str) else None  # parses POSIX paths too
    if parsed is None or parsed.anchor or ".." in parsed.parts or "\0" in str(path):
        raise ArtifactError(
            f"{file}: the path of a module is {path!r}, must be that of a folder inside this one; "
            "mend the file"
        )


def check_pooling(mode: object, file: Path) -> str:
    """Return the pooling if bertune has it.

    Raises:
        ArtifactError: names `file`.
    """
    if not isinstance(mode, str) or mode not in POOLINGS:
        raise unsupported(file, f"has the pooling {mode!r}, bertune has {listed(POOLINGS)}, one at a time")
    return mode


def check_dense(layers: tuple[Dense, ...], dim: int, file: Path) -> None:
    """Refuse dense layers that do not fit one upon the other, the first upon vectors (dim,).

    Raises:
        ArtifactError: names `file` and the layer.
    """
    for number, layer in enumerate(layers, 2):
        subject, shape = f"{file}: the layer {number}_Dense has", tuple(layer.weight.shape)
        if layer.activation not in ACTIVATIONS:
            raise ArtifactError(
                f"{subject} the activation {layer.activation!r}; choose one of {listed(ACTIVATIONS)}"
            )
        if len(shape) != 2 or shape[1] != dim:
            raise ArtifactError(
                f"{subject} weights of shape {shape}, must be (out, {dim}) for what stands before it; mend it"
            )
        dim = shape[0]
        if layer.bias is not None and tuple(layer.bias.shape) != (dim,):
            raise ArtifactError(
                f"{subject} a bias of shape {tuple(layer.bias.shape)}, must be ({dim},); mend it"
            )


def check_usage(
    prompts: dict[str, str], default_prompt_name: str | None, similarity: str | None, file: Path
) -> None:
    """Refuse prompts and a similarity that sentence-transformers does not understand.

    Raises:
        ArtifactError: names `file`.
    """
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ArtifactError(f"{file}: prompts are {prompts!r}, must be texts by name; mend them")
    if default_prompt_name is not None and default_prompt_name not in prompts:
        raise ArtifactError(
            f"{file}: default_prompt_name is {default_prompt_name!r}, must be one of {listed(prompts)}; "
            "mend it"
        )
    if similarity is not None and similarity not in SIMILARITIES:
        raise ArtifactError(
            f"{file}: similarity_fn_name is {similarity!r}, must be one of {listed(SIMILARITIES)}; mend it"
        )


def check_positive(name: str, value: int | None, file: Path) -> None:
    """Refuse a number below 1; None is fine.

    Raises:
        ArtifactError: names `file` and the setting.
    """
    if value is not None and value < 1:
        raise ArtifactError(f"{file}: {name} is {value}, must be at least 1; mend it")
