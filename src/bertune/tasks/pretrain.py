"""Masked-language-model pretraining: the model learns to predict tokens that are hidden from it.

Source: Devlin et al. 2018, arXiv 1810.04805.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from bertune.config.new_encoder import NewEncoder
from bertune.config.schema import DataConfig
from bertune.data.labels import get_text
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.tasks.base.head_outputs import MASKED_TOKENS, HeadOutputs
from bertune.tasks.base.masking import (
    MaskOptions,
    MaskVocabulary,
    default_pinyin,
    hidden_word_begins,
    mask_tokens,
)
from bertune.tasks.base.packing import (
    Frame,
    Pieces,
    frame_windows,
    pack_joined,
    pack_separate,
    split_pieces,
    unframe,
)
from bertune.tasks.base.pretrain_options import PretrainOptions
from bertune.tasks.base.task import Note, Task
from bertune.text.segment import chinese_share, load_segmenter, segmenter_name, word_starts
from bertune.text.tokenizer import Tokenizer as TextTokenizer
from bertune.types import (
    JSON,
    Batch,
    Columns,
    EncodedExample,
    Encoder,
    Example,
    Prediction,
    Row,
    Scores,
    Tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertune.heads.masked_lm import MaskedLMOutput

SAMPLE_SIZE = 1000
"""The number of rows that are looked at to tell whether texts are Chinese."""
EVALUATION_SEED = 0
"""Evaluations mask the same tokens of a text in every call, every run and every process."""


class Pretrain(Task):
    """Predict hidden tokens of texts."""

    Options = PretrainOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b",), "label", target_required=False)
    example_row: ClassVar[str] = '{"text": "The museum opens at nine, and closes at five."}'
    hf_auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pipeline_tag: ClassVar[str] = "fill-mask"
    row_options: ClassVar[frozenset[str] | None] = frozenset({"masking", "packing"})
    options: PretrainOptions

    def __init__(self, options: PretrainOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self._frame: Frame | None = None
        self._vocabulary: MaskVocabulary | None = None
        self._segmenter_name: str | None = None  # what found the words of Chinese texts
        self._readings: npt.NDArray[np.int64] | None = None  # (V,), for ChineseBERT
        self._packed = (0, 0, 0)  # texts, rows, texts without tokens since the last report

    def read(self, row: Row) -> Example:
        """Return the text of a row, or both texts of a pair, which stay apart."""
        texts = [get_text(row, "text")]
        if "text_b" in row.fields:
            texts.append(get_text(row, "text_b"))
        return Example(tuple(texts), None, row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Check the settings: nothing is learnt from texts before training.

        Raises:
            ConfigError: a setting is for labels.
            MissingExtra: there is no segmenter for Chinese words.
        """
        for name in ("labels", "label_delimiter", "drop_labels"):
            if getattr(self.data, name):
                raise ConfigError(f"data.{name} is for labels, and pretrain learns from texts; leave it out")
        if self.options.masking == "chinese_words":
            load_segmenter()
        sample = (text for example in itertools.islice(examples, SAMPLE_SIZE) for text in example.texts)
        if self.options.masking == "whole_words" and (share := chinese_share(sample)) > 0.1:
            note(
                f"{share:.0%} of the characters are Chinese, and whole_words takes each of their tokens for "
                "a word; options.masking=chinese_words finds the words of Chinese texts"
            )

    def describe(self) -> str:
        """Return one line about the problem."""
        options = self.options
        what = {
            "tokens": "tokens",
            "whole_words": "tokens, whole words together",
            "chinese_words": "tokens, whole words together, Chinese ones too",
        }[options.masking]
        return f"pretraining: predict {options.fraction:.0%} of the {what}"

    def own_encoder(self) -> NewEncoder:
        """Return the encoder that `model: new` makes."""
        return self.options.new or NewEncoder()

    def see_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Learn the special tokens, and which tokens may be masked.

        Raises:
            ConfigError: the tokenizer has no mask token.
        """
        before, after, token_type = tokenizer.special_tokens
        self._frame = Frame(before, after, token_type, tokenizer.max_length)
        if self._frame.room < 1:
            raise ConfigError(
                f"data.max_length={tokenizer.max_length} leaves no room for a token of the text beside "
                f"{len(before) + len(after)} special ones"
            )
        if self.options.masking == "chinese_words":
            self._segmenter_name = segmenter_name()
        asked = self.options.mask_token
        self._vocabulary = MaskVocabulary.from_tokenizer(tokenizer, asked)
        own = cast(TextTokenizer, tokenizer)
        if asked is not None and asked != own.mask_token:
            own.use_mask_token(asked)
        self._readings = default_pinyin(tokenizer)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return each text as windows of at most `max_length` tokens, in one row."""
        before, after, token_type = tokenizer.special_tokens
        frame = Frame(before, after, token_type, tokenizer.max_length)
        texts = [text for example in examples for text in example.texts]
        starts = self._word_starts(texts, tokenizer)
        encodings = tokenizer.encode_whole(texts)
        pieces = iter(
            Pieces(
                np.asarray(encoding.input_ids, np.int64),
                None if starts is None else starts[number],
                None if encoding.pinyin_ids is None else np.asarray(encoding.pinyin_ids, np.int64),
            )
            for number, encoding in enumerate(encodings)
        )
        rows = []
        for example in examples:
            windows = [split_pieces(next(pieces), frame.room) for _ in example.texts]
            flat = [window for text in windows for window in text]
            rows.append(frame_windows(flat, frame, [len(text) for text in windows]))
        return rows

    def _word_starts(self, texts: Sequence[str], tokenizer: Tokenizer) -> list[npt.NDArray[np.bool_]] | None:
        """Return for each text which of its tokens begin a word, where a segmenter finds the words."""
        if self.options.masking != "chinese_words":
            return None
        return word_starts(texts, tokenizer)

    def state(self) -> JSON:
        """Return the segmenter that found words, so that tokens of another one are not taken from a cache."""
        return {} if self._segmenter_name is None else {"segmenter": self._segmenter_name}

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        self._segmenter_name = state.get("segmenter")

    def pack(self, rows: list[EncodedExample]) -> list[EncodedExample]:
        """Return the texts in rows of up to `max_length` tokens, as `options.packing` says."""
        frame = self._known_frame
        documents = [text for row in rows for text in self._texts_of(row, frame)]
        full = [[window for window in text if self._has_ordinary_token(window)] for text in documents]
        full = [text for text in full if text]
        if self.options.packing == "joined":
            packed = pack_joined(full, frame)
        elif self.options.packing == "separate":
            packed = pack_separate([window for text in full for window in text], frame)
        else:
            packed = [frame_windows(text, frame) for text in full]
        before = self._packed
        counts = len(documents), len(packed), len(documents) - len(full)
        self._packed = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
        return packed

    @staticmethod
    def _texts_of(row: EncodedExample, frame: Frame) -> list[list[Pieces]]:
        windows = iter(unframe(row, frame))
        return [[next(windows) for _ in range(count)] for count in row.context]

    def _has_ordinary_token(self, window: Pieces) -> bool:
        return bool(self._known_vocabulary.is_ordinary[window.ids].any())

    def report(self) -> list[str]:
        """Return what became of the texts, once rows were packed."""
        (texts, rows, empty), self._packed = self._packed, (0, 0, 0)
        if not texts:
            return []
        if not rows:
            raise DataError(
                f"none of the {texts} texts has a token that could be predicted: all are special, or unknown "
                "to this encoder's vocabulary"
            )
        lines = [] if self.options.packing == "none" else [f"{texts} texts packed into {rows} rows"]
        if empty:
            lines.append(f"{empty} texts left out: they have no token that could be predicted")
        return lines

    def prepare(self, batch: Batch, seed: int | None) -> Batch:
        """Hide some tokens of each window; what stood there becomes the target (2, M)."""
        ragged, target = mask_tokens(
            batch.ragged,
            EVALUATION_SEED if seed is None else seed,
            self._known_vocabulary,
            self._mask_options,
            self._readings,
        )
        return replace(batch, ragged=ragged, target=target)

    @property
    def _mask_options(self) -> MaskOptions:
        options = self.options
        return MaskOptions(
            options.fraction,
            options.replace_by_mask,
            options.replace_by_random,
            whole_words=options.masking != "tokens",
            ngrams=tuple(options.ngrams),
        )

    @property
    def _known_vocabulary(self) -> MaskVocabulary:
        if self._vocabulary is None:
            raise ConfigError("pretrain: `see_tokenizer` must be called first")
        return self._vocabulary

    @property
    def _known_frame(self) -> Frame:
        if self._frame is None:
            raise ConfigError("pretrain: `see_tokenizer` must be called first")
        return self._frame

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of masked tokens."""
        return 0.0 if batch.target is None else float(batch.target.shape[1])

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return the head of the architecture, whose last layer is the table of word vectors."""
        from bertune.heads.masked_lm import masked_lm_head

        return masked_lm_head(encoder)

    def loss(self, out: MaskedLMOutput, batch: Batch) -> Tensor:
        """Return the cross-entropy, summed over masked tokens."""
        import torch

        from bertune.kernels.linear_cross_entropy import linear_cross_entropy

        target = _masked(batch)
        if not torch.is_grad_enabled():
            return out.token_losses(target)[0].sum()
        return linear_cross_entropy(out.features, out.word_table, out.bias, target[1])

    def decode(self, out: MaskedLMOutput, batch: Batch) -> list[Prediction]:
        """Return the mean loss of each row; `vectors` has the sums of which scores are made."""
        target = _masked(batch)
        losses, hits = (values.float().cpu().numpy() for values in out.token_losses(target))
        sums = self._row_sums(losses, hits, target.cpu().numpy(), batch)
        return [Prediction(float(row[0] / row[1]) if row[1] else 0.0, vectors=(row,)) for row in sums]

    def _row_sums(
        self, losses: npt.NDArray[Any], hits: npt.NDArray[Any], target: npt.NDArray[Any], batch: Batch
    ) -> npt.NDArray[np.float64]:
        """Return for each row (B, 5) its loss, its masked tokens and those that are right, and words alike.

        A word is masked tokens side by side that belong to one word; it is right if all of them are.
        """
        positions = target[0]
        windows_of_row = [sum(context) for context in batch.contexts]
        lengths = np.add.reduceat(np.array(batch.ragged.lengths), np.cumsum([0, *windows_of_row[:-1]]))
        row_of_token = np.searchsorted(np.cumsum(lengths), positions, side="right")
        starts = np.flatnonzero(hidden_word_begins(batch.ragged, target, self._known_vocabulary))
        word_hits = np.minimum.reduceat(hits, starts) if len(starts) else np.zeros(0)
        sums = np.zeros((len(windows_of_row), 5))
        for column, values in ((0, losses), (1, np.ones(len(losses))), (2, hits)):
            np.add.at(sums[:, column], row_of_token, values)
        for column, values in ((3, np.ones(len(starts))), (4, word_hits)):
            np.add.at(sums[:, column], row_of_token[starts], values)
        return sums

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return perplexity and accuracy of the masked tokens, and the share of words that are right."""
        sums = np.array([p.vectors[0] for p in predictions if p.vectors], np.float64)
        main = self.options.metric
        interval = bootstrap_interval(lambda rows: _metrics(rows)[main], sums) if intervals else None
        return Scores(
            main,
            main != "perplexity",
            _metrics(sums),
            {main: interval} if interval else {},
        )

    def has_untrained_baseline(self) -> bool:
        """Tell that the model before its first step is what training must beat."""
        return True

    def head_outputs(self) -> HeadOutputs:
        """Return that the outputs are tokens."""
        return HeadOutputs(MASKED_TOKENS)

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json."""
        config: JSON = head.hf_config()
        return config

    def hf_incompatibility(self, head: Any) -> str:
        """Return why transformers cannot open the head, or ""."""
        reason: str = head.hf_incompatibility()
        return reason


def _masked(batch: Batch) -> Tensor:
    """Return the masked positions of a batch, and the ids that stood there: (2, M)."""
    if batch.target is None:
        raise ConfigError("pretrain: nothing is masked in this batch; `prepare` must be called first")
    return batch.target


def _metrics(sums: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the metrics of rows (B, 5); see `Pretrain._row_sums`."""
    loss, tokens, hits, words, word_hits = sums.sum(0).tolist()
    return {
        "perplexity": math.exp(min(loss / max(tokens, 1), 700)),
        "accuracy": hits / max(tokens, 1),
        "word_accuracy": word_hits / max(words, 1),
    }
