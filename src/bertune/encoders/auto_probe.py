"""A trial of an encoder of transformers before anything depends on it: three short rows, alone and together.

It finds encoders that raise, that return no state a token, and those in which a row depends on the padding
beside it. The latter get rows of one length at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bertune.errors import ConfigError
from bertune.kernels.precision import FP32
from bertune.types import ComputePrecision, Numerics, Ragged

if TYPE_CHECKING:
    from bertune.encoders.auto import AutoEncoder

TOLERANCE = 1e-4
"""The largest difference of a state, relative to the largest state, that rounding explains."""
_LENGTHS = (5, 11, 8)
_SMALLEST = 4
"""Ids below are left out of the trial, since they are special tokens."""


def probe(encoder: AutoEncoder, *, gradients: bool = True) -> list[str]:
    """Try an encoder, set how its batches are made, and return notes for the user.

    Args:
        encoder: of transformers.
        gradients: also try gradients, which need as much memory as the weights.

    Raises:
        ConfigError: it cannot be run as an encoder of texts.
    """
    training = encoder.training
    encoder.train(False)
    try:
        with torch.no_grad():
            return _probe(encoder, gradients=gradients)
    finally:
        encoder.train(training)


def _probe(encoder: AutoEncoder, *, gradients: bool) -> list[str]:
    alone = [_try(encoder, [length]) for length in _LENGTHS]
    shapes = [tuple(states.shape) for states in alone]
    if any(len(shape) != 2 or shape[0] != n for shape, n in zip(shapes, _LENGTHS, strict=True)):
        raise _refusal(encoder, f"it returns no state for each token: {shapes[0]} for {_LENGTHS[0]} tokens")
    encoder.hidden_size = shapes[0][1]
    again = _try(encoder, [_LENGTHS[0]])
    notes = []
    if _differ(alone[0], again):
        notes.append(
            f"transformers' {encoder.model_type} draws random numbers in use too: two calls differ, "
            "and so will predictions"
        )
    if not encoder.one_length_at_a_time and not notes:
        try:
            together = _try(encoder, list(_LENGTHS))
        except ConfigError:
            encoder.one_length_at_a_time = True
        else:
            encoder.one_length_at_a_time = _differ(torch.cat(alone), together)
    if gradients and not computes_in(encoder, "fp32"):
        raise _refusal(encoder, "it has no gradient for a batch of short texts")
    if encoder.one_length_at_a_time:
        _try(encoder, list(_LENGTHS))
        notes.append(
            f"in transformers' {encoder.model_type} a row depends on the padding beside it, so only rows "
            "of one length are computed together: this is slower"
        )
    return notes


def try_longest_row(encoder: AutoEncoder) -> None:
    """Try a row of as many tokens as the encoder is said to take, 512 at most.

    Raises:
        ConfigError: it takes fewer.
    """
    with torch.no_grad():
        _try(encoder, [min(encoder.max_positions, 512)])


def computes_in(encoder: AutoEncoder, precision: ComputePrecision) -> bool:
    """Tell whether the encoder computes in a precision: states and gradients of two short rows."""
    before, training = encoder.numerics, encoder.training
    encoder.numerics = Numerics(precision, fast_dropout=False)
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            ragged = _ragged(encoder, [encoder.trial_length, 3])
            encoder.train()(ragged).float().square().mean().backward()
        return True
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return False
    finally:
        encoder.numerics = before
        encoder.zero_grad(set_to_none=True)
        encoder.train(training)


def _try(encoder: AutoEncoder, lengths: list[int]) -> Tensor:
    before, encoder.numerics = encoder.numerics, FP32
    try:
        states: Tensor = encoder(_ragged(encoder, lengths))
    except MemoryError:
        raise
    except Exception as error:
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        reason = (str(error).strip().splitlines() or [""])[0]
        trial = f"a trial with {max(lengths)} tokens fails"
        raise _refusal(encoder, f"{trial}: {type(error).__name__}: {reason}") from None
    finally:
        encoder.numerics = before
    return states


def _ragged(encoder: AutoEncoder, lengths: list[int]) -> Ragged:
    """Return rows of a trial: row of length n is the same in every batch."""
    size = max(encoder.num_vectors, _SMALLEST + 1)
    device = encoder.word_embeddings().device
    rows = [[_SMALLEST + (7 * n + 3 * i) % (min(size, 90) - _SMALLEST) for i in range(n)] for n in lengths]
    ids = torch.tensor([number for row in rows for number in row], device=device)
    offsets = torch.tensor(np.cumsum([0, *lengths]), device=device)
    return Ragged(ids, torch.zeros_like(ids), offsets, tuple(lengths))


def _differ(a: Tensor, b: Tensor) -> bool:
    scale = a.abs().max().item() or 1.0
    return bool((a - b).abs().max().item() > TOLERANCE * scale)


def _refusal(encoder: AutoEncoder, reason: str) -> ConfigError:
    return ConfigError(
        f"model: transformers' {encoder.hf_class} is no encoder that bertune can run: {reason}; give "
        "another: docs/encoders.md has the table"
    )
