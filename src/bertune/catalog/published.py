"""Figures that others have published for the named sets."""

from __future__ import annotations

from bertune.catalog.named_set import Published

GLUE_FIGURES: dict[str, tuple[Published, ...]] = {"stsb": ()}
CLUE_FIGURES: dict[str, tuple[Published, ...]] = {"chnsenticorp": (), "lcqmc": ()}
NER_FIGURES: dict[str, tuple[Published, ...]] = {"cluener": ()}
STS_FIGURES: dict[str, tuple[Published, ...]] = {"stsb": (), "stsb-zh": ()}
