"""What a head is: the layers between an encoder's states and a task's output.

Letters: `T` packed tokens, `B` rows, `U` texts, `W` width of the encoder, `E` width of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from bertune.types import Batch, EncoderOutput, PairIndex, Ragged

OUTPUT_AXES: Mapping[str, tuple[int, ...]] = {"out.weight": (0,), "out.bias": (0,)}
"""The axes of labels in a last layer called `out`."""


class Head(nn.Module):
    """Base class of heads. A subclass writes `forward` and overrides other defaults where they do not fit."""

    reads: EncoderOutput = "last"
    """The states that `forward` receives."""
    reads_word_table: bool = False
    """Whether `forward` also receives the encoder's word table (V, E), in fp32, and the states in the
    precision of the encoder."""
    learning_rates: Mapping[str, float] = {}
    """Learning rates of parameters that do not use the head's rate, by the first part of their name."""
    label_axes: Mapping[str, tuple[int, ...]] = {}
    """The axes of parameters that have a place for each label, by name."""
    input_form: Mapping[str, Any] = {}
    """What the outputs are computed from, by the settings that say so: weights of another head mean the same
    only where these are the same."""

    def forward(self, states: Tensor, batch: Batch) -> Any:
        """Return the output of a batch, which the task's `loss` and `decode` read.

        Args:
            states: (T, W) of all tokens, or (B, W) of first tokens, in fp32; see `reads`.
            batch: the rows.
        """
        raise NotImplementedError

    def hf_name(self, name: str) -> str:
        """Return the name of a parameter in a saved folder: transformers' own where it has this parameter."""
        return f"bertune_head.{name}"


@runtime_checkable
class EmbeddingHead(Protocol):
    """A head that first makes one vector a text, and then an output from the vectors of the texts of a row.

    `isinstance` tells whether a head is one: it has these attributes.
    """

    embedding_dim: int  # E

    def vectors(self, states: Tensor, ragged: Ragged) -> Tensor:
        """Return the vector of each text, for `compare`: (T, W), or (U, W) of first tokens, to (U, E)."""
        ...

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> Any:
        """Return the output of rows whose texts have the given vectors (U, E)."""
        ...


def as_head(module: nn.Module) -> Head:
    """Return the module itself as a `Head`; a module of another class gets the defaults that it lacks.

    So a task may use any module whose `forward` takes states and a batch.
    """
    if not isinstance(module, Head):
        defaults = Head()
        for name in ("reads", "reads_word_table", "learning_rates", "label_axes", "input_form", "hf_name"):
            if not hasattr(module, name):
                setattr(module, name, getattr(defaults, name))
    return cast(Head, module)
