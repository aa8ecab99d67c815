"""ChineseBERT: BERT whose tokens also have a sound and a picture.

    word     (T, W)      a row of a table
    pinyin   (T, W)      8 symbols -> a vector each -> a convolution over 7 pairs of neighbours -> the maximum
    glyph    (T, W)      pixels of three fonts -> a linear layer
    token    (T, W)      a linear layer on word, pinyin and glyph side by side
    Then positions, segments, norm and layers as in BERT.

The embedding of a token does not depend on its position. So in training, word and glyph are computed once
for each different token of the batch, pinyin once for each different syllable, and the linear layer on the
three is split into three. For inference, tables keep both from one call to the next; they fill as tokens and
syllables occur.
Letters: `T` packed tokens of a batch, `U` different tokens, `S` different syllables, `W` hidden size,
`V` vocabulary, `G` pixels.

Source: Sun et al. 2021, arXiv 2106.16038; names of weights as in ShannonAI/ChineseBert and
junnyu/ChineseBERT-base.
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
"""Size of the vector of a symbol."""
GLYPH_TABLE = "embeddings.glyph_embeddings"
_CHUNK_SIZE = 4096  # rows of a table that are computed together


class PinyinConv(nn.Module):
    """The weights of a convolution over pairs of neighbours: (W, 128, 2) and (W,), not initialized."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 2))
        self.bias = nn.Parameter(torch.empty(out_channels))


class ChineseBertEmbeddings(Embeddings):
    """The first vector of a token: word, pinyin and glyph, position and segment."""

    def __init__(self, config: BertConfig, num_pixels: int) -> None:
        super().__init__(config)
        self.pinyin_embeddings = Embedding(NUM_SYMBOLS, PINYIN_EMBEDDING_SIZE)
        self.pinyin_conv = PinyinConv(PINYIN_EMBEDDING_SIZE, config.hidden_size)
        self.glyph_embeddings: nn.Module = FrozenGlyphs(torch.empty(config.vocab_size, num_pixels))
        self.glyph_map = Linear(num_pixels, config.hidden_size)
        self.fusion = Linear(3 * config.hidden_size, config.hidden_size)
        self.cache: EmbeddingCache | None = None
        """Tables for calls that change no weight."""

    def embed_tokens(self, ragged: Ragged, numerics: Numerics) -> Tensor:
        """Return the fusion of word, pinyin and glyph (T, W), in fp32; training computes it as the layers.

        Raises:
            ConfigError: the batch has no syllables.
        """
        if ragged.pinyin_ids is None:
            raise ConfigError(
                "a ChineseBERT needs the syllables of its tokens: encode texts with the tokenizer of its own "
                "folder"
            )
        cache = self.cache  # read once: another thread may release it
        if cache is not None and not torch.is_grad_enabled():
            return cache.embed_tokens(ragged.input_ids, ragged.pinyin_ids)
        ids, token_index = torch.unique(ragged.input_ids, return_inverse=True)
        syllables, syllable_index = torch.unique(ragged.pinyin_ids, return_inverse=True)
        word_fusion, pinyin_fusion, glyph_fusion = self.split_fusion()
        tokens = self.embed_words_and_glyphs(ids, word_fusion, glyph_fusion, numerics.dtype)
        pinyin = self.embed_pinyin(syllables, pinyin_fusion, numerics.dtype)
        return F.embedding(token_index, tokens) + F.embedding(syllable_index, pinyin)

    def split_fusion(self) -> list[Tensor]:
        """Return the parts of the last layer's weight for word, pinyin and glyph."""
        return list(torch.split(self.fusion.weight, self.config.hidden_size, 1))  # (W, W) each

    def embed_words_and_glyphs(
        self, ids: Tensor, word_fusion: Tensor, glyph_fusion: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return the part of word, glyph and bias in the fusion: (U,) to (U, W), products in `dtype`."""
        words = self.word_embeddings(ids).to(dtype)
        glyphs = self.glyph_map(self.glyph_embeddings(ids).to(dtype))
        fused = F.linear(words, word_fusion.to(dtype)) + F.linear(glyphs, glyph_fusion.to(dtype))
        return fused.to(word_fusion.dtype) + self.fusion.bias

    def embed_pinyin(self, syllables: Tensor, pinyin_fusion: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the part of pinyin in the fusion: syllables (S,) to (S, W), the last product in `dtype`."""
        shifts = torch.arange(SYLLABLE_LENGTH, device=syllables.device) * SYMBOL_BITS
        symbols = syllables[:, None] >> shifts & NUM_SYMBOLS - 1  # (S, 8)
        # There are only 32 symbols, so each side of the convolution is a table of 32 rows: (32, W).
        left, right = (self.pinyin_embeddings.weight @ side.T for side in self.pinyin_conv.weight.unbind(2))
        with torch.no_grad():
            best = _argmax_of_pairs(symbols, left, right)
        # Only the greatest pairs are computed again with a gradient: a seventh of the work.
        maximum = (
            left.gather(0, symbols.gather(1, best))
            + right.gather(0, symbols.gather(1, best + 1))
            + self.pinyin_conv.bias
        )
        return F.linear(maximum.to(dtype), pinyin_fusion.to(dtype)).to(pinyin_fusion.dtype)


def _argmax_of_pairs(symbols: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return which of the 7 pairs of symbols (S, 8) is the greatest, the first one among equals: (S, W).

    torch's own argmax over 7 is slow.
    """
    greatest = F.embedding(symbols[:, 0], left) + F.embedding(symbols[:, 1], right)  # (S, W)
    best = torch.zeros(greatest.shape, dtype=torch.int64, device=greatest.device)
    for number in range(1, SYLLABLE_LENGTH - 1):
        pair = F.embedding(symbols[:, number], left) + F.embedding(symbols[:, number + 1], right)
        best.masked_fill_(pair > greatest, number)
        greatest = torch.maximum(greatest, pair)
    return best


class EmbeddingCache:
    """Two tables, a row per token and a row per syllable; they start again when a weight changes."""

    def __init__(self, embeddings: ChineseBertEmbeddings) -> None:
        self._embeddings = [embeddings]  # in a list, or it would be a module of its own module
        self._state: tuple[object, _Tables] | None = None

    def embed_tokens(self, ids: Tensor, syllables: Tensor) -> Tensor:
        """Return (T, W)."""
        tensors = (*self._embeddings[0].parameters(), *self._embeddings[0].buffers())
        version = [(tensor.data_ptr(), tensor._version) for tensor in tensors]  # address, number of writes
        state = self._state  # read once and never changed in place: another thread may start again meanwhile
        if state is None or state[0] != version:
            state = self._state = version, _Tables(self._embeddings[0])
        return state[1].pinyin(syllables).add_(state[1].tokens(ids))


class _Tables:
    """The tables for one state of the weights; rows are filled as tokens and syllables occur."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, embeddings: ChineseBertEmbeddings) -> None:
        self._embeddings = embeddings
        self._word_fusion, self._pinyin_fusion, self._glyph_fusion = embeddings.split_fusion()
        config, like = embeddings.config, self._word_fusion
        self._rows = like.new_empty(config.vocab_size, config.hidden_size)
        self._filled = torch.zeros(config.vocab_size, dtype=torch.bool, device=like.device)
        self._syllables = (
            torch.empty(0, dtype=torch.int64, device=like.device),
            like.new_empty(0, config.hidden_size),
        )

    def tokens(self, ids: Tensor) -> Tensor:
        """Return rows of tokens (T, W)."""
        filled = self._filled[ids]
        if not bool(filled.all()):
            self._fill(torch.unique(ids[~filled]))
        return F.embedding(ids, self._rows)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _fill(self, ids: Tensor) -> None:
        for chunk in torch.split(ids, _CHUNK_SIZE):
            self._rows[chunk] = self._embeddings.embed_words_and_glyphs(
                chunk, self._word_fusion, self._glyph_fusion, self._rows.dtype
            )
            self._filled[chunk] = True  # last, since another thread may look

    def pinyin(self, syllables: Tensor) -> Tensor:
        """Return rows of syllables (T, W), a new tensor."""
        keys, rows = self._syllables
        index = torch.searchsorted(keys, syllables).clamp_(max=max(len(keys) - 1, 0))
        if not len(keys) or not bool((keys[index] == syllables).all()):
            keys, rows = self._add_syllables(torch.cat([keys, syllables]))
            index = torch.searchsorted(keys, syllables)
        return F.embedding(index, rows)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _add_syllables(self, syllables: Tensor) -> tuple[Tensor, Tensor]:
        keys = torch.unique(syllables)
        self._syllables = keys, self._embeddings.embed_pinyin(keys, self._pinyin_fusion, self._rows.dtype)
        return self._syllables


class ChineseBert(Bert):
    """The encoder: ChineseBERT's embeddings, then BERT's layers.

    The glyph table is frozen; see `train_glyphs`.
    """

    embeddings: ChineseBertEmbeddings

    def _new_embeddings(self) -> ChineseBertEmbeddings:
        pixels, symbols = (self.hf_config()[name] for name in ("glyph_embedding_dim", "pinyin_map_len"))
        if symbols != NUM_SYMBOLS:
            raise ValueError(f"pinyin_map_len is {symbols}, and a ChineseBERT has {NUM_SYMBOLS} symbols")
        return ChineseBertEmbeddings(self.config, pixels)

    def train_glyphs(self) -> None:
        """Make the glyph table a parameter like all others."""
        if isinstance(self.embeddings.glyph_embeddings, FrozenGlyphs):
            self.embeddings.glyph_embeddings = make_embedding(self.embeddings.glyph_embeddings.weight)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Keep tables of tokens and syllables, and cast the weights once, while nobody changes them."""
        is_outermost = self.embeddings.cache is None
        if is_outermost:
            self.embeddings.cache = EmbeddingCache(self.embeddings)
        try:
            with super().inference():
                yield
        finally:
            if is_outermost:
                self.embeddings.cache = None

    def prepare_inference(self) -> None:
        """Keep tables and cast the weights once for good, since training is over."""
        super().prepare_inference()
        self.embeddings.cache = EmbeddingCache(self.embeddings)

    def _linears(self) -> list[Linear]:
        # those of the embeddings are in the tables
        return [module for module in self.layers.modules() if isinstance(module, Linear)]

    def use_active_vocabulary(self, ids: Tensor) -> ActiveVocabulary | None:
        """Train only the rows `ids` of the word table, and of the glyph table where that is trained."""
        active = super().use_active_vocabulary(ids)
        if active is not None:
            glyphs = cast(Any, self.embeddings.glyph_embeddings)
            table_class = ActiveGlyphs if isinstance(glyphs, FrozenGlyphs) else ActiveVocabulary
            self.embeddings.glyph_embeddings = table_class(glyphs.weight.detach(), active.active_ids)
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
        """Load what `hf_state_dict` returned.

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
        """Initialize weights that a checkpoint lacks; the glyph table is initialized as any table."""
        if f"{GLYPH_TABLE}.weight" in names:
            nn.init.normal_(
                cast(Tensor, self.embeddings.glyph_embeddings.weight), std=self.config.initializer_range
            )
        super().init_weights([name for name in names if name != f"{GLYPH_TABLE}.weight"])
