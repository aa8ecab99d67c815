"""ChineseBERT: BERT whose tokens are also heard and seen.

    word     (T, W)      a row of a table
    pinyin   (T, W)      eight symbols -> a vector each -> a convolution over pairs of neighbours -> the maximum over the 7 pairs
    glyph    (T, W)      pixels of three fonts -> a linear layer
    token    (T, W)      a linear layer on word, pinyin and glyph side by side; then positions, segments, norm and layers as in BERT

What a token is does not depend on where it stands. So in training word and glyph are computed once for each different token of the
batch and pinyin once for each different syllable, and the linear layer on the three is cut into three. For inference both are kept
in tables from one call to the next, filled as tokens and syllables occur.
Letters: `T` packed tokens of a batch, `U` different tokens, `S` different syllables, `W` width, `V` vocabulary, `G` pixels.

Source: Sun et al. 2021, arXiv 2106.16038; names of weights as in ShannonAI/ChineseBert and junnyu/ChineseBERT-base.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertune.encoders.active_vocabulary import ActiveVocabulary, plain_table, with_whole_table
from bertune.encoders.bert import Bert, BertConfig, Embeddings
from bertune.encoders.families.glyphs import ActivePixels, Pixels
from bertune.errors import ConfigError
from bertune.kernels.linear import Linear, Table
from bertune.text.pinyin import BITS, LENGTH, NUM_SYMBOLS
from bertune.types import Numerics, Ragged

LETTER_WIDTH = 128
"""Width of the vector of a symbol."""
GLYPHS = "embeddings.glyphs"
_CHUNK = 4096  # tokens whose part of the table is computed together


class Pairs(nn.Module):
    """The weights of a convolution over pairs of neighbours: (W, 128, 2) and (W,), not drawn until `Bert.initialize`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 2))
        self.bias = nn.Parameter(torch.empty(outputs))


class ChineseEmbeddings(Embeddings):
    """A token's first vector: word, sound and shape, where it stands, and in which segment."""

    def __init__(self, shape: BertConfig, pixels: int) -> None:
        super().__init__(shape)
        self.letters = Table(NUM_SYMBOLS, LETTER_WIDTH)
        self.conv = Pairs(LETTER_WIDTH, shape.width)
        self.glyphs: nn.Module = Pixels(torch.empty(shape.vocabulary, pixels))
        self.glyph_map = Linear(pixels, shape.width)
        self.fuse = Linear(3 * shape.width, shape.width)
        self.fold: Fold | None = None
        """What is kept between calls that change no weight."""

    def tokens(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return what each token is (T, W), in fp32; products of training are in the precision of the layers.

        Raises:
            ConfigError: the batch does not say how tokens are read.
        """
        if ragged.syllables is None:
            raise ConfigError("a ChineseBERT needs the syllables of its tokens: encode texts with the tokenizer of its own folder")
        fold = self.fold  # read once: another thread may release it
        if fold is not None and not torch.is_grad_enabled():
            return fold.tokens(ragged.ids, ragged.syllables)
        ids, which = torch.unique(ragged.ids, return_inverse=True)
        syllables, said = torch.unique(ragged.syllables, return_inverse=True)
        of_words, of_pinyin, of_glyphs = self.thirds()
        seen = self.seen(ids, of_words, of_glyphs, numerics.dtype)
        return F.embedding(which, seen) + F.embedding(said, self.heard(syllables, of_pinyin, numerics.dtype))

    def thirds(self) -> list[Tensor]:
        """Return what the last layer does to word, pinyin and glyph."""
        return list(torch.split(self.fuse.weight, self.shape.width, 1))  # (W, W) each

    def seen(self, ids: Tensor, of_words: Tensor, of_glyphs: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of tokens that word and glyph decide, with the bias of the layer: (U,) to (U, W), products in `dtype`."""
        glyphs = self.glyph_map(self.glyphs(ids).to(dtype))
        both = F.linear(self.words(ids).to(dtype), of_words.to(dtype)) + F.linear(glyphs, of_glyphs.to(dtype))
        return both.to(of_words.dtype) + self.fuse.bias

    def heard(self, syllables: Tensor, of_pinyin: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of tokens that pinyin decides: packed syllables (S,) to (S, W), the last product in `dtype`."""
        shifts = torch.arange(LENGTH, device=syllables.device) * BITS
        symbols = syllables[:, None] >> shifts & NUM_SYMBOLS - 1  # (S, 8)
        # There are but 32 symbols, so both ends of the convolution are tables of 32 rows, and a pair is a sum of two rows.
        left, right = (self.letters.weight @ end.T for end in self.conv.weight.unbind(2))  # (32, W) each
        with torch.no_grad():
            best = _loudest(symbols, left, right)
        # Taken again from the two tables: a gradient for the winners alone, a seventh of the work.
        loudest = left.gather(0, symbols.gather(1, best)) + right.gather(0, symbols.gather(1, best + 1)) + self.conv.bias
        return F.linear(loudest.to(dtype), of_pinyin.to(dtype)).to(of_pinyin.dtype)


def _loudest(symbols: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return which of the 7 pairs of symbols (S, 8) is the greatest, the first of several: (S, W). Argmax over 7 is slow in torch."""
    greatest = F.embedding(symbols[:, 0], left) + F.embedding(symbols[:, 1], right)  # (S, W)
    best = torch.zeros(greatest.shape, dtype=torch.int64, device=greatest.device)
    for place in range(1, LENGTH - 1):
        pair = F.embedding(symbols[:, place], left) + F.embedding(symbols[:, place + 1], right)
        best.masked_fill_(pair > greatest, place)
        greatest = torch.maximum(greatest, pair)
    return best


class Fold:
    """The parts of tokens as tables: a row a token id, a row a syllable. Weights that change are noticed, and all begins anew."""

    def __init__(self, embeddings: ChineseEmbeddings) -> None:
        self._embeddings = [embeddings]  # in a list, or it would be a module of its own module
        self._of: tuple[object, _Tables] | None = None

    def tokens(self, ids: Tensor, syllables: Tensor) -> Tensor:
        """Return (T, W)."""
        held = (*self._embeddings[0].parameters(), *self._embeddings[0].buffers())
        identity = [(tensor.data_ptr(), tensor._version) for tensor in held]  # where they lie, and how often they were written
        of = self._of  # read once, and never changed in place: another thread may ask or begin anew meanwhile
        if of is None or of[0] != identity:
            of = self._of = identity, _Tables(self._embeddings[0])
        return of[1].heard(syllables).add_(of[1].seen(ids))


class _Tables:
    """The tables for one state of the weights, filled as tokens and syllables occur, and whole rows at a time."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, embeddings: ChineseEmbeddings) -> None:
        self._embeddings = embeddings
        self._words, self._pinyin, self._glyphs = embeddings.thirds()
        shape, like = embeddings.shape, self._words
        self._rows = like.new_empty(shape.vocabulary, shape.width)
        self._filled = torch.zeros(shape.vocabulary, dtype=torch.bool, device=like.device)
        self._syllables = torch.empty(0, dtype=torch.int64, device=like.device), like.new_empty(0, shape.width)

    def seen(self, ids: Tensor) -> Tensor:
        """Return rows of tokens (T, W)."""
        filled = self._filled[ids]
        if not bool(filled.all()):
            self._fill(torch.unique(ids[~filled]))
        return F.embedding(ids, self._rows)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _fill(self, ids: Tensor) -> None:
        for some in torch.split(ids, _CHUNK):
            self._rows[some] = self._embeddings.seen(some, self._words, self._glyphs, self._rows.dtype)
            self._filled[some] = True  # last, for the sake of another thread

    def heard(self, syllables: Tensor) -> Tensor:
        """Return rows of syllables (T, W), a new tensor."""
        known, rows = self._syllables
        places = torch.searchsorted(known, syllables).clamp_(max=max(len(known) - 1, 0))
        if not len(known) or not bool((known[places] == syllables).all()):
            known, rows = self._learn(torch.cat([known, syllables]))
            places = torch.searchsorted(known, syllables)
        return F.embedding(places, rows)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _learn(self, syllables: Tensor) -> tuple[Tensor, Tensor]:
        known = torch.unique(syllables)
        self._syllables = known, self._embeddings.heard(known, self._pinyin, self._rows.dtype)
        return self._syllables


class ChineseBert(Bert):
    """The encoder: ChineseBERT's embeddings, then BERT's layers. The glyph table is frozen; see `train_glyphs`."""

    embeddings: ChineseEmbeddings

    def _new_embeddings(self) -> ChineseEmbeddings:
        pixels, symbols = (self.config()[name] for name in ("glyph_embedding_dim", "pinyin_map_len"))
        if symbols != NUM_SYMBOLS:
            raise ValueError(f"pinyin_map_len is {symbols}, and a ChineseBERT has {NUM_SYMBOLS} symbols")
        return ChineseEmbeddings(self.shape, pixels)

    def train_glyphs(self) -> None:
        """Make the pixels parameters like all others."""
        if isinstance(self.embeddings.glyphs, Pixels):
            self.embeddings.glyphs = plain_table(self.embeddings.glyphs.weight)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Keep tables of tokens and syllables, and cast weights once, while the block runs and nobody changes them."""
        new = self.embeddings.fold is None
        if new:
            self.embeddings.fold = Fold(self.embeddings)
        try:
            with super().inference():
                yield
        finally:
            if new:
                self.embeddings.fold = None

    def prepare(self) -> None:
        """Do the same for good: the encoder is finished."""
        super().prepare()
        self.embeddings.fold = Fold(self.embeddings)

    def _linears(self) -> list[Linear]:
        return [module for module in self.layers.modules() if isinstance(module, Linear)]  # the embeddings' own are folded

    def activate(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows of the word table that `ids` names, and keep or train only these of the glyph table."""
        active = super().activate(ids)
        if active is not None:
            glyphs = cast(Any, self.embeddings.glyphs)
            kind = ActivePixels if isinstance(glyphs, Pixels) else ActiveVocabulary
            self.embeddings.glyphs = kind(glyphs.weight.detach(), active.active)
        return active

    def deactivate(self) -> None:
        """Go back to whole tables."""
        super().deactivate()
        glyphs = self.embeddings.glyphs
        if isinstance(glyphs, ActivePixels):
            self.embeddings.glyphs = Pixels(glyphs.whole().to(glyphs.rows.device))
        elif isinstance(glyphs, ActiveVocabulary):
            self.embeddings.glyphs = plain_table(glyphs.whole())

    def checkpoint(self) -> dict[str, Tensor]:
        """Return every weight under the name that the authors' release gives it."""
        state = super().checkpoint()
        glyphs, name = self.embeddings.glyphs, self.their_name(f"{GLYPHS}.weight")
        return {**state, name: glyphs.whole()} if isinstance(glyphs, ActivePixels) else state

    def state_of(self) -> dict[str, Tensor]:
        """Return the state with whole tables of words and glyphs."""
        return with_whole_table(super().state_of(), GLYPHS, self.embeddings.glyphs)

    def load_checkpoint(self, state: dict[str, Tensor]) -> None:
        """Take back what `checkpoint` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        glyphs = self.embeddings.glyphs
        if isinstance(glyphs, ActivePixels):
            self.embeddings.glyphs = Pixels(glyphs.whole().to(glyphs.rows.device))
        elif isinstance(glyphs, ActiveVocabulary):
            self.embeddings.glyphs = plain_table(glyphs.frozen)
        super().load_checkpoint(state)

    def initialize(self, names: list[str]) -> None:
        """Give first values to weights that a checkpoint lacks; pixels are drawn as any table."""
        if f"{GLYPHS}.weight" in names:
            nn.init.normal_(cast(Tensor, self.embeddings.glyphs.weight), std=self.shape.initializer_range)
        super().initialize([name for name in names if name != f"{GLYPHS}.weight"])
