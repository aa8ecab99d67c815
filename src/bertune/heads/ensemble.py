"""Several models of one task as one model, which gives the mean of their outputs.

Letters: `U` texts, `E` width of all members' vectors together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from bertune.heads.model import Model
from bertune.heads.sentence import SentenceOutput
from bertune.types import Batch, Encoder, Numerics, PairIndex, Ragged

MeanOutput = Callable[[Sequence[Any]], Any]
"""Outputs of models for the same rows to one output; see `bertune.tasks.base.task.Task.mean_output`."""


class EnsembleModel(Model):
    """Models that read the same tokens, as one model for prediction. It is not trained.

    Args:
        members: the models, each with encoder and head.
        mean_output: what the mean of their outputs is.
    """

    def __init__(self, members: Sequence[Model], mean_output: MeanOutput) -> None:
        nn.Module.__init__(self)
        self.models = nn.ModuleList(members)
        self.mean_output = mean_output
        self.encoder = cast(Encoder, EnsembleEncoder([member.encoder for member in members]))

    @property
    def members(self) -> tuple[Model, ...]:
        """Return the models."""
        return tuple(cast(Model, model) for model in self.models)

    def forward(self, batch: Batch) -> Any:
        """Return the mean of the members' outputs for a batch."""
        return self.mean_output([member(batch) for member in self.members])

    def vectors(self, ragged: Ragged) -> Tensor:
        """Return the vectors of all members, one beside the other, for `compare` and `finish`: (U, E)."""
        return torch.cat([member.vectors(ragged) for member in self.members], -1)

    def compare(self, vectors: Tensor, pair_index: PairIndex) -> Any:
        """Return the mean output of rows whose texts have the given vectors (U, E) of `vectors`."""
        parts = zip(self.members, self._split(vectors), strict=True)
        return self.mean_output([member.compare(part, pair_index) for member, part in parts])

    def finish(self, vectors: Tensor) -> Tensor:
        """Return vectors (U, E) of `vectors` as users get them: their similarity is the members' mean."""
        no_rows = PairIndex((), torch.empty(0, dtype=torch.int64, device=vectors.device))
        parts = zip(self.members, self._split(vectors), strict=True)
        outputs = [SentenceOutput(member.finish(part), no_rows) for member, part in parts]
        return cast(SentenceOutput, self.mean_output(outputs)).vectors

    @property
    def embedding_dim(self) -> int:
        """Return the width E of all members' vectors together; 0 where the heads make none."""
        return sum(member.embedding_dim for member in self.members)

    def _split(self, vectors: Tensor) -> tuple[Tensor, ...]:
        return torch.split(vectors, [member.embedding_dim for member in self.members], -1)


class EnsembleEncoder:
    """The encoders of an ensemble, as far as prediction asks for one: precision, preparation, positions."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders = tuple(encoders)

    @property
    def model_type(self) -> str:
        """Return the architecture, or the architectures."""
        return ", ".join(dict.fromkeys(encoder.model_type for encoder in self.encoders))

    @property
    def max_positions(self) -> int:
        """Return the largest number of tokens of a row that every encoder reads."""
        return min(encoder.max_positions for encoder in self.encoders)

    @property
    def numerics(self) -> Numerics:
        """Return how the encoders compute; that of the first one that does not in fp32, where they differ."""
        every = [encoder.numerics for encoder in self.encoders]
        return next((numerics for numerics in every if numerics.precision != "fp32"), every[0])

    def set_numerics(self, numerics: Numerics) -> None:
        """Set the precision of every encoder."""
        for encoder in self.encoders:
            encoder.set_numerics(numerics)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Prepare the weights of every encoder once, while the block runs."""
        with ExitStack() as stack:
            for encoder in self.encoders:
                stack.enter_context(encoder.inference())
            yield

    def prepare_inference(self) -> None:
        """Prepare the weights of every encoder once and for all."""
        for encoder in self.encoders:
            encoder.prepare_inference()
