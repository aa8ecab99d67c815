"""Texts that show an encoder in int8 the ranges of its values.

Their words are drawn at random from the vocabulary. So no data is needed, and the same folder always gives
the same numbers. In MiniLM and m3e-small the ranges are those of real sentences (LOG.md): large values belong
to features and special tokens more than to meaning.
"""

from __future__ import annotations

import random

from bertune.data.dataset import EncodedDataset
from bertune.text.tokenizer import Tokenizer
from bertune.types import EncodedExample, Ragged

TEXT_LENGTHS = (2, 4, 8, 16, 32, 64)
"""Words of a text."""
TEXTS_PER_LENGTH = 5
"""Single texts of each length; there are as many pairs."""
LONG_TEXT_LENGTH = 400
"""Words of one text that reaches the later positions."""
SUBWORD_MARKS = ("##", "▁", "Ġ", "</w>")
"""What vocabularies write at the edge of a word piece."""


def sample_texts(tokenizer: Tokenizer) -> Ragged:
    """Return texts of random words, encoded."""
    rng = random.Random(0)
    words = [
        word
        for token in tokenizer.convert_ids_to_tokens(range(tokenizer.max_token_id + 1))
        if (word := _strip_marks(token))
    ]

    def random_text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    texts: list[tuple[str, ...]] = [(random_text(LONG_TEXT_LENGTH),)]
    for length in TEXT_LENGTHS * TEXTS_PER_LENGTH:
        texts += [(random_text(length),), (random_text(length // 2), random_text(length // 2))]
    dataset = EncodedDataset([EncodedExample((encoding,)) for encoding in tokenizer.encode(texts)])
    return dataset.gather_texts(range(len(dataset)))


def _strip_marks(token: str) -> str:
    for mark in SUBWORD_MARKS:
        token = token.replace(mark, "")
    return token.strip()
