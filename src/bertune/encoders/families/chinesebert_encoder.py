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

from bertune.encoders.active_vocabulary import ActiveVocabulary, make_embedding, with_full_table
from bertune.encoders.bert import Bert, BertConfig, Embeddings
from bertune.encoders.families.glyphs import ActiveGlyphs, FrozenGlyphs
from bertune.errors import ConfigError
from bertune.kernels.linear import Embedding, Linear
from bertune.text.pinyin import NUM_SYMBOLS, SYLLABLE_LENGTH, SYMBOL_BITS
from bertune.types import Numerics, Ragged

PINYIN_EMBEDDING_SIZE = 128
"""Width of the vector of a symbol."""
GLYPH_TABLE = "embeddings.glyph_embeddings"
_CHUNK = 4096  # tokens whose part of the table is computed together


class PinyinConv(nn.Module):
    """The weights of a convolution over pairs of neighbours: (W, 128, 2) and (W,), not drawn until `Bert.init_weights`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 2))
        self.bias = nn.Parameter(torch.empty(out_channels))


class ChineseBertEmbeddings(Embeddings):
    """A token's first vector: word, sound and shape, where it stands, and in which segment."""

    def __init__(self, config: BertConfig, num_pixels: int) -> None:
        super().__init__(config)
        self.pinyin_embeddings = Embedding(NUM_SYMBOLS, PINYIN_EMBEDDING_SIZE)
        self.pinyin_conv = PinyinConv(PINYIN_EMBEDDING_SIZE, config.hidden_size)
        self.glyph_embeddings: nn.Module = FrozenGlyphs(torch.empty(config.vocab_size, num_pixels))
        self.glyph_map = Linear(num_pixels, config.hidden_size)
        self.fusion = Linear(3 * config.hidden_size, config.hidden_size)
        self.cache: EmbeddingCache | None = None
        """What is kept between calls that change no weight."""

    def embed_tokens(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return what each token is (T, W), in fp32; products of training are in the precision of the layers.

        Raises:
            ConfigError: the batch does not say how tokens are read.
        """
        if ragged.pinyin_ids is None:
            raise ConfigError(
                "a ChineseBERT needs the syllables of its tokens: encode texts with the tokenizer of its own folder"
            )
        fold = self.cache  # read once: another thread may release it
        if fold is not None and not torch.is_grad_enabled():
            return fold.embed_tokens(ragged.input_ids, ragged.pinyin_ids)
        ids, which = torch.unique(ragged.input_ids, return_inverse=True)
        syllables, said = torch.unique(ragged.pinyin_ids, return_inverse=True)
        of_words, of_pinyin, of_glyphs = self.split_fusion()
        seen = self.embed_words_and_glyphs(ids, of_words, of_glyphs, numerics.dtype)
        return F.embedding(which, seen) + F.embedding(
            said, self.embed_pinyin(syllables, of_pinyin, numerics.dtype)
        )

    def split_fusion(self) -> list[Tensor]:
        """Return what the last layer does to word, pinyin and glyph."""
        return list(torch.split(self.fusion.weight, self.config.hidden_size, 1))  # (W, W) each

    def embed_words_and_glyphs(
        self, ids: Tensor, of_words: Tensor, of_glyphs: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return the part of tokens that word and glyph decide, with the bias of the layer: (U,) to (U, W), products in `dtype`."""
        glyphs = self.glyph_map(self.glyph_embeddings(ids).to(dtype))
        both = F.linear(self.word_embeddings(ids).to(dtype), of_words.to(dtype)) + F.linear(
            glyphs, of_glyphs.to(dtype)
        )
        return both.to(of_words.dtype) + self.fusion.bias

    def embed_pinyin(self, syllables: Tensor, of_pinyin: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of tokens that pinyin decides: packed syllables (S,) to (S, W), the last product in `dtype`."""
        shifts = torch.arange(SYLLABLE_LENGTH, device=syllables.device) * SYMBOL_BITS
        symbols = syllables[:, None] >> shifts & NUM_SYMBOLS - 1  # (S, 8)
        # There are but 32 symbols, so both ends of the convolution are tables of 32 rows, and a pair is a sum of two rows.
        left, right = (
            self.pinyin_embeddings.weight @ end.T for end in self.pinyin_conv.weight.unbind(2)
        )  # (32, W) each
        with torch.no_grad():
            best = _loudest(symbols, left, right)
        # Taken again from the two tables: a gradient for the winners alone, a seventh of the work.
        loudest = (
            left.gather(0, symbols.gather(1, best))
            + right.gather(0, symbols.gather(1, best + 1))
            + self.pinyin_conv.bias
        )
        return F.linear(loudest.to(dtype), of_pinyin.to(dtype)).to(of_pinyin.dtype)


def _loudest(symbols: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return which of the 7 pairs of symbols (S, 8) is the greatest, the first of several: (S, W). Argmax over 7 is slow in torch."""
    greatest = F.embedding(symbols[:, 0], left) + F.embedding(symbols[:, 1], right)  # (S, W)
    best = torch.zeros(greatest.shape, dtype=torch.int64, device=greatest.device)
    for place in range(1, SYLLABLE_LENGTH - 1):
        pair = F.embedding(symbols[:, place], left) + F.embedding(symbols[:, place + 1], right)
        best.masked_fill_(pair > greatest, place)
        greatest = torch.maximum(greatest, pair)
    return best


class EmbeddingCache:
    """The parts of tokens as tables: a row a token id, a row a syllable. Weights that change are noticed, and all begins anew."""

    def __init__(self, embeddings: ChineseBertEmbeddings) -> None:
        self._embeddings = [embeddings]  # in a list, or it would be a module of its own module
        self._of: tuple[object, _Tables] | None = None

    def embed_tokens(self, ids: Tensor, syllables: Tensor) -> Tensor:
        """Return (T, W)."""
        held = (*self._embeddings[0].parameters(), *self._embeddings[0].buffers())
        identity = [
            (tensor.data_ptr(), tensor._version) for tensor in held
        ]  # where they lie, and how often they were written
        of = self._of  # read once, and never changed in place: another thread may ask or begin anew meanwhile
        if of is None or of[0] != identity:
            of = self._of = identity, _Tables(self._embeddings[0])
        return of[1].heard(syllables).add_(of[1].seen(ids))


class _Tables:
    """The tables for one state of the weights, filled as tokens and syllables occur, and whole rows at a time."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, embeddings: ChineseBertEmbeddings) -> None:
        self._embeddings = embeddings
        self._words, self._pinyin, self._glyphs = embeddings.split_fusion()
        shape, like = embeddings.config, self._words
        self._rows = like.new_empty(shape.vocab_size, shape.hidden_size)
        self._filled = torch.zeros(shape.vocab_size, dtype=torch.bool, device=like.device)
        self._syllables = (
            torch.empty(0, dtype=torch.int64, device=like.device),
            like.new_empty(0, shape.hidden_size),
        )

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
            self._rows[some] = self._embeddings.embed_words_and_glyphs(
                some, self._words, self._glyphs, self._rows.dtype
            )
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
        self._syllables = known, self._embeddings.embed_pinyin(known, self._pinyin, self._rows.dtype)
        return self._syllables


class ChineseBert(Bert):
    """The encoder: ChineseBERT's embeddings, then BERT's layers. The glyph table is frozen; see `train_glyphs`."""

    embeddings: ChineseBertEmbeddings

    def _new_embeddings(self) -> ChineseBertEmbeddings:
        pixels, symbols = (self.hf_config()[name] for name in ("glyph_embedding_dim", "pinyin_map_len"))
        if symbols != NUM_SYMBOLS:
            raise ValueError(f"pinyin_map_len is {symbols}, and a ChineseBERT has {NUM_SYMBOLS} symbols")
        return ChineseBertEmbeddings(self.config, pixels)

    def train_glyphs(self) -> None:
        """Make the pixels parameters like all others."""
        if isinstance(self.embeddings.glyph_embeddings, FrozenGlyphs):
            self.embeddings.glyph_embeddings = make_embedding(self.embeddings.glyph_embeddings.weight)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Keep tables of tokens and syllables, and cast weights once, while the block runs and nobody changes them."""
        new = self.embeddings.cache is None
        if new:
            self.embeddings.cache = EmbeddingCache(self.embeddings)
        try:
            with super().inference():
                yield
        finally:
            if new:
                self.embeddings.cache = None

    def prepare_inference(self) -> None:
        """Do the same for good: the encoder is finished."""
        super().prepare_inference()
        self.embeddings.cache = EmbeddingCache(self.embeddings)

    def _linears(self) -> list[Linear]:
        return [
            module for module in self.layers.modules() if isinstance(module, Linear)
        ]  # the embeddings' own are folded

    def use_active_vocabulary(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows of the word table that `ids` names, and keep or train only these of the glyph table."""
        active = super().use_active_vocabulary(ids)
        if active is not None:
            glyphs = cast(Any, self.embeddings.glyph_embeddings)
            kind = ActiveGlyphs if isinstance(glyphs, FrozenGlyphs) else ActiveVocabulary
            self.embeddings.glyph_embeddings = kind(glyphs.weight.detach(), active.active_ids)
        return active

    def use_full_vocabulary(self) -> None:
        """Go back to whole tables."""
        super().use_full_vocabulary()
        glyphs = self.embeddings.glyph_embeddings
        if isinstance(glyphs, ActiveGlyphs):
            self.embeddings.glyph_embeddings = FrozenGlyphs(
                glyphs.full_weight().to(glyphs.active_rows.device)
            )
        elif isinstance(glyphs, ActiveVocabulary):
            self.embeddings.glyph_embeddings = make_embedding(glyphs.full_weight())

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Return every weight under the name that the authors' release gives it."""
        state = super().hf_state_dict()
        glyphs, name = self.embeddings.glyph_embeddings, self.hf_name(f"{GLYPH_TABLE}.weight")
        return {**state, name: glyphs.full_weight()} if isinstance(glyphs, ActiveGlyphs) else state

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return the state with whole tables of words and glyphs."""
        return with_full_table(super().full_state_dict(), GLYPH_TABLE, self.embeddings.glyph_embeddings)

    def load_hf_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `hf_state_dict` gave.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        glyphs = self.embeddings.glyph_embeddings
        if isinstance(glyphs, ActiveGlyphs):
            self.embeddings.glyph_embeddings = FrozenGlyphs(
                glyphs.full_weight().to(glyphs.active_rows.device)
            )
        elif isinstance(glyphs, ActiveVocabulary):
            self.embeddings.glyph_embeddings = make_embedding(glyphs.pretrained_weight)
        super().load_hf_state_dict(state)

    def init_weights(self, names: list[str]) -> None:
        """Give first values to weights that a checkpoint lacks; pixels are drawn as any table."""
        if f"{GLYPH_TABLE}.weight" in names:
            nn.init.normal_(
                cast(Tensor, self.embeddings.glyph_embeddings.weight), std=self.config.initializer_range
            )
        super().init_weights([name for name in names if name != f"{GLYPH_TABLE}.weight"])
