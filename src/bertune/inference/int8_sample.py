"""Texts that show an encoder in int8 the ranges of its values.

They are made of the vocabulary's words drawn at random, so that no data is needed and the same folder always gives the same numbers. In
MiniLM and m3e-small the ranges are those of sentences (LOG.md): large values belong to features and special tokens more than to meaning.
"""

from __future__ import annotations

import random

from bertune.data.dataset import EncodedDataset
from bertune.text.tokenizer import Tokenizer
from bertune.types import EncodedExample, Ragged

TEXT_LENGTHS = (2, 4, 8, 16, 32, 64)
"""Words of a text."""
TEXTS_PER_LENGTH = 5
"""Texts of each length alone, and as many in pairs."""
LONG_TEXT_LENGTH = 400
"""Words of one text that reaches the later positions."""
SUBWORD_MARKS = ("##", "▁", "Ġ", "</w>")
"""What vocabularies write at the edge of a piece."""


def sample_texts(tokenizer: Tokenizer) -> Ragged:
    """Return texts of random words."""
    drawn = random.Random(0)
    words = [
        plain
        for token in tokenizer.convert_ids_to_tokens(range(tokenizer.max_token_id + 1))
        if (plain := _plain(token))
    ]

    def text(length: int) -> str:
        return " ".join(drawn.choices(words, k=length))

    texts: list[tuple[str, ...]] = [(text(LONG_TEXT_LENGTH),)]
    for length in TEXT_LENGTHS * TEXTS_PER_LENGTH:
        texts += [(text(length),), (text(length // 2), text(length // 2))]
    rows = EncodedDataset([EncodedExample((piece,)) for piece in tokenizer.encode(texts)])
    return rows.gather_texts(range(len(rows)))


def _plain(token: str) -> str:
    for mark in SUBWORD_MARKS:
        token = token.replace(mark, "")
    return token.strip()
