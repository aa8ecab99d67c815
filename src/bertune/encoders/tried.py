"""Types of transformers' models that run; `scripts/encoder_table.py --write` wrote this."""

from __future__ import annotations

TRIED: frozenset[str] = frozenset()
