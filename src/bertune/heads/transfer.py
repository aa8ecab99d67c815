"""Gives a head the weights of another one, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bertune.heads.head import Head


def find_misfit(head: Head, weights: Mapping[str, Tensor], num_labels: int) -> str:
    """Return why a head cannot take over another one's weights, as the end of a sentence; "" where it can.

    Args:
        head: the head.
        weights: the other one's, by the names of their parameters. Scores of a CRF may be missing.
        num_labels: how many labels the other one has; 1 for a number.
    """
    for name, parameter in head.named_parameters():
        axes = head.label_axes.get(name, ())
        if name not in weights:
            if name.startswith("crf."):
                continue
            return f"it has no {name}"
        wanted = tuple(num_labels if axis in axes else size for axis, size in enumerate(parameter.shape))
        found = tuple(weights[name].shape)
        if found != wanted:
            return f"its {name} has the shape {_shape(found)}, where {_shape(wanted)} is needed"
    return ""


@torch.no_grad()
def copy_rows(head: Head, weights: Mapping[str, Tensor], places: Sequence[int | None]) -> frozenset[str]:
    """Give a head the weights of another one, for those of its labels that the other one has.

    Args:
        head: gets the weights; `find_misfit` has found nothing.
        weights: the other one's.
        places: for each label its place in the other head; None where it has none.

    Returns:
        The names of the parameters that have been replaced, wholly or in part.
    """
    to = torch.tensor([row for row, place in enumerate(places) if place is not None])
    source = torch.tensor([place for place in places if place is not None])
    replaced = set()
    for name, parameter in head.named_parameters():
        if name not in weights:
            continue
        old = weights[name].to(parameter)
        axes = head.label_axes.get(name, ())
        if not axes:
            parameter.copy_(old)
        elif len(axes) == 1:
            parameter[to] = old[source]
        else:
            parameter[to[:, None], to] = old[source[:, None], source]
        replaced.add(name)
    return frozenset(replaced)


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "1"
