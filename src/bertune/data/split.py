"""Dev sets and subsets, drawn by label and by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np


def draw(keys: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Draw `count` places so that each key keeps its share, as nearly as whole rows allow.

    Args:
        keys: one key a row, such as its label.
        count: how many rows to draw, at most all.
        seed: the same seed draws the same rows.

    Returns:
        The places drawn, ascending.

    >>> keys = ["a"] * 6 + ["b"] * 3
    >>> [keys[i] for i in draw(keys, 3, seed=0)]
    ['a', 'a', 'b']
    """
    if count >= len(keys):
        return list(range(len(keys)))
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        groups[key].append(place)
    random = np.random.default_rng(seed)
    members = [random.permutation(group) for group in groups.values()]
    # Largest remainder: whole parts first, then one more row where most was lost; ties are broken by chance.
    exact = np.array([len(m) * count / len(keys) for m in members])
    taken = np.floor(exact).astype(int)
    order = np.lexsort((random.random(len(members)), -(exact - taken)))
    taken[order[: count - int(taken.sum())]] += 1
    return sorted(int(i) for m, k in zip(members, taken, strict=True) for i in m[:k])


def split(texts: Sequence[Hashable], keys: Sequence[Hashable], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide rows into (train, dev). Rows of equal text stay on one side, or dev would ask what train has told.

    Args:
        texts: one text a row.
        keys: one key a row, such as its label; each keeps its share on both sides.
        share: the part of the texts that goes to dev; at least one text stays on each side.
        seed: the same seed divides alike.

    Returns:
        Two lists of places, ascending; together they hold every row once.
    """
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[text].append(row)
    units = list(rows_of.values())
    count = min(max(1, round(len(units) * share)), max(1, len(units) - 1))
    chosen = set(draw([keys[unit[0]] for unit in units], count, seed))
    dev = sorted(row for n, unit in enumerate(units) if n in chosen for row in unit)
    held = set(dev)
    return [row for row in range(len(texts)) if row not in held], dev
