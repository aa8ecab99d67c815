"""A finished masked-LM model as a function from texts with gaps to the tokens that fill them.

Letters: `M` masked tokens, `V` vocabulary, `K` tokens that are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from bertune.data.batching import length_sorted_batches
from bertune.data.dataset import EncodedDataset
from bertune.data.labels import check_surrogates
from bertune.errors import ConfigError, DataError, did_you_mean
from bertune.heads.masked_lm import MaskedLMOutput
from bertune.inference.pipeline import Pipeline
from bertune.inference.predict import MAX_BATCH_TOKENS
from bertune.kernels.linear_cross_entropy import MAX_LOGITS
from bertune.types import EncodedExample, Encoding, Location, Row

MASKS = ("[MASK]", "<mask>")
"""What a user may write for the mask token, whatever the tokenizer calls it."""
CHUNK_TEXTS = 1024
"""Texts that are sorted by length together."""


class Filling(TypedDict):
    """A token in the place of a mask, with the keys of transformers' fill-mask pipeline."""

    score: float
    """Its probability, among all tokens of the vocabulary."""
    token: int
    """Its id."""
    token_str: str
    sequence: str
    """The text with the token in it, as the tokenizer writes it; other masks stay."""


class TextWithMasks(NamedTuple):
    """A text to fill."""

    text: str
    location: Location


@dataclass
class FillPipeline(Pipeline):
    """A finished masked-LM model: `fill` says which tokens stand where a text has a mask."""

    def fill(
        self, texts: str | Sequence[str], k: int = 5, *, targets: str | Sequence[str] | None = None
    ) -> Any:
        """Return the most probable tokens for each mask, the most probable first.

        Args:
            texts: one text, or several. A mask is written [MASK] or <mask>.
            k: how many tokens.
            targets: choose among these tokens only; probabilities stay those among all tokens.

        Returns:
            For one text with one mask a list of dicts: `score`, `token`, `token_str` and `sequence`, as in
            transformers' fill-mask pipeline. For one with several masks a list of such lists, one a mask,
            each as if the other masks stayed. For several texts a list of what each of them alone gives.

        Raises:
            DataError: a text has no mask, or its mask is cut off at `max_length`; or it is no text.
            ConfigError: `k` is no number of tokens, or a target is no single token.
        """
        self.check_k(k)
        ids = None if targets is None else self.target_ids([targets] if isinstance(targets, str) else targets)
        if not isinstance(texts, Iterable):
            raise DataError(f"fill takes a text or a list of texts, got {type(texts).__name__} ({texts!r})")
        every = [texts] if isinstance(texts, str) else texts
        items = [TextWithMasks(text, Location("texts", number)) for number, text in enumerate(every, 1)]
        filled = [_as_transformers(masks) for masks in self.fill_stream(items, k, ids)]
        return filled[0] if isinstance(texts, str) else filled

    def fill_stream(
        self,
        texts: Iterable[TextWithMasks],
        k: int = 5,
        target_ids: list[int] | None = None,
    ) -> Iterator[list[list[Filling]]]:
        """Yield the tokens for each mask of each text, in their order; see `fill`.

        Args:
            texts: the texts.
            k: how many tokens; see `check_k`.
            target_ids: choose among these tokens only; see `target_ids`.
        """
        self.num_truncated_rows = 0
        every = iter(texts)
        while chunk := list(itertools.islice(every, CHUNK_TEXTS)):
            yield from self._fill_chunk(chunk, k, target_ids)

    @cached_property
    def mask_id(self) -> int:
        """Return the id of the mask token.

        Raises:
            ConfigError: the tokenizer has none.
        """
        number = self.tokenizer.vocabulary.get(self.mask_token)
        if number is None:
            raise ConfigError(f"the tokenizer of this model has no mask token {self.mask_token!r}")
        if list(self.tokenizer.encode_whole([self.mask_token])[0].input_ids) != [number]:
            self.tokenizer.keep_whole(self.mask_token)  # a word of the vocabulary, such as [unused1]
        return number

    @cached_property
    def mask_token(self) -> str:
        """Return the token that stands for a hidden one.

        Raises:
            ConfigError: the tokenizer has none.
        """
        asked = getattr(self.task.options, "mask_token", None)
        token = asked or self.tokenizer.mask_token
        if token is None:
            raise ConfigError("the tokenizer of this model has no mask token, so no text has a gap to fill")
        return str(token)

    def target_ids(self, targets: Sequence[str]) -> list[int]:
        """Return the ids of tokens that a user names, each once.

        Raises:
            ConfigError: there are none, or one is no token of the vocabulary, nor a text of one token.
        """
        vocabulary = self.tokenizer.vocabulary
        ids: dict[int, None] = {}
        for target in targets:
            number = vocabulary.get(target)
            if number is None:
                number = self._single_token(target, vocabulary)
            ids[number] = None
        if not ids:
            raise ConfigError("targets: there are none; name a token, or leave targets out")
        return list(ids)

    def _single_token(self, target: Any, vocabulary: dict[str, int]) -> int:
        """Return the token of a text that is one token although it is not written like one."""
        if not isinstance(target, str):
            raise ConfigError(f"targets: expected texts, got {target!r}")
        found = self.tokenizer.encode_whole([target])[0].input_ids
        if len(found) == 1 and found[0] != self.tokenizer.unk_token_id:
            return int(found[0])
        tokens = " ".join(self.tokenizer.convert_ids_to_tokens(found))
        what = f"is {len(found)} tokens: {tokens}" if len(found) > 1 else "is not in the vocabulary"
        raise ConfigError(
            f"targets: {target!r} {what}; a mask stands for one token{did_you_mean(target, vocabulary)}"
        )

    def check_k(self, k: int) -> None:
        """Refuse a number of tokens that the vocabulary does not have.

        Raises:
            ConfigError: it is not from 1 to the size of the vocabulary.
        """
        vocab_size = len(self.model.encoder.word_embeddings())
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= vocab_size:
            raise ConfigError(f"k: {k!r} is not from 1 to {vocab_size}, the tokens of the vocabulary")

    def _fill_chunk(
        self, items: Sequence[TextWithMasks], k: int, target_ids: list[int] | None
    ) -> list[list[list[Filling]]]:
        """Return the tokens for each mask of each text."""
        self.mask_id  # noqa: B018  (says what is wrong with the tokenizer, before anything about texts)
        texts = [self._with_own_mask(item) for item in items]
        encodings = self.tokenizer.encode([(text,) for text in texts])
        places = [
            self._find_masks(item, text, encoding)
            for item, text, encoding in zip(items, texts, encodings, strict=True)
        ]
        dataset = EncodedDataset([EncodedExample((encoding,)) for encoding in encodings])
        self.num_truncated_rows += dataset.num_truncated_rows
        filled: dict[int, list[list[Filling]]] = {}
        for rows in length_sorted_batches(dataset.lengths, MAX_BATCH_TOKENS):
            scores, ids = self._most_probable(dataset, rows, k, target_ids)
            best = iter(zip(scores.tolist(), ids.tolist(), strict=True))
            for row in rows:
                filled[row] = [
                    self._fillings(encodings[row], place, *next(best), is_only=len(places[row]) == 1)
                    for place in places[row]
                ]
        return [filled[row] for row in range(len(items))]

    def _with_own_mask(self, item: TextWithMasks) -> str:
        """Return a text with masks as the tokenizer writes them."""
        text = item.text
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{item.location}: expected a text that is not empty, got {text!r}")
        check_surrogates(text, Row({}, item.location), "text")
        if self.mask_token in text:
            return text
        for mask in MASKS:
            text = text.replace(mask, self.mask_token)
        return text

    def _find_masks(self, item: TextWithMasks, text: str, encoding: Encoding) -> list[int]:
        """Return the places of the masks of a text among its tokens.

        Raises:
            DataError: there is none, or one is cut off.
        """
        places = [place for place, number in enumerate(encoding.input_ids) if number == self.mask_id]
        if encoding.num_truncated and len(places) < text.count(self.mask_token):
            length = len(encoding.input_ids) + encoding.num_truncated
            raise DataError(
                f"{item.location}: a mask is cut off: the text has {length} tokens, and the model reads "
                f"{self.tokenizer.max_length}; give the sentence with the mask alone"
            )
        if not places:
            raise DataError(
                f"{item.location}: no mask in {_shown(item.text)}; write {self.mask_token} in the place of "
                "the token to be found"
            )
        return places

    @torch.inference_mode()
    def _most_probable(
        self, dataset: EncodedDataset, rows: list[int], k: int, target_ids: list[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return probabilities and ids of the best tokens for the masks of a batch, (M, K) each."""
        batch = dataset.get_batch(rows, list)
        places = torch.nonzero(batch.ragged.input_ids == self.mask_id).flatten()
        batch = replace(batch, target=torch.stack([places, torch.zeros_like(places)])).to(self.device)
        with self.model.encoder.inference():
            out: MaskedLMOutput = self.model.eval()(batch)
        allowed = None if target_ids is None else torch.tensor(target_ids, device=self.device)
        best: list[tuple[Tensor, Tensor]] = []
        for features in torch.split(out.features, max(1, MAX_LOGITS // len(out.word_table))):
            scores = replace(out, features=features).logits().softmax(-1)
            if allowed is None:
                values, index = scores.topk(k)
                best.append((values, index))
            else:
                values, index = scores[:, allowed].topk(min(k, len(allowed)))
                best.append((values, allowed[index]))
        scores, ids = (torch.cat(parts).cpu() for parts in zip(*best, strict=True))
        return scores, ids

    def _fillings(
        self, encoding: Encoding, place: int, scores: list[float], ids: list[int], *, is_only: bool
    ) -> list[Filling]:
        """Return tokens for a mask as dicts; without other masks special tokens are left out of the text."""
        fillings = []
        pad = self.tokenizer.pad_token_id
        before, after = encoding.input_ids[:place], encoding.input_ids[place + 1 :]
        for score, number in zip(scores, ids, strict=True):
            tokens = [n for n in (*before, number, *after) if n != pad]
            sequence = self.tokenizer.decode(tokens, skip_special_tokens=is_only)
            fillings.append(
                Filling(
                    score=score, token=number, token_str=self.tokenizer.decode([number]), sequence=sequence
                )
            )
        return fillings


def _as_transformers(masks: list[list[Filling]]) -> Any:
    """Return the tokens of a text as transformers does: without a list around a single mask."""
    return masks[0] if len(masks) == 1 else masks


def _shown(text: str, most: int = 60) -> str:
    """Return a text in quotes, in one short line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= most else f"{line[:most]}...")
