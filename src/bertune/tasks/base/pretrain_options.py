"""Settings of pretraining."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bertune.config.new_encoder import NewEncoder
from bertune.config.schema import Section


class PretrainOptions(Section):
    """Settings of masked-language-model pretraining."""

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens of a text that are to be predicted."""
    replace_by_mask: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of these that the model sees as the mask token."""
    replace_by_random: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of these that the model sees as another token, drawn at random; it sees the rest as they are."""
    masking: Literal["tokens", "whole_words", "chinese_words"] = "tokens"
    """What is masked together. `tokens`: each token alone; `whole_words`: all pieces of a word;
    `chinese_words`: also all characters of a Chinese word, which a segmenter finds (extra
    `chinese-words`)."""
    ngrams: list[Annotated[float, Field(ge=0)]] = Field(default=[1.0], min_length=1, max_length=10)
    """Weights of masking 1, 2, 3, ... neighbours together, tokens or words. MacBERT has [0.4, 0.3, 0.2,
    0.1]."""
    packing: Literal["separate", "joined", "none"] = "separate"
    """How texts become training rows of up to `data.max_length` tokens. `separate`: several short texts share
    a row, and none sees another one; `joined`: texts are written one after the other and cut into full rows,
    as run_mlm.py does; `none`: a row for each text. Long texts are cut into pieces, nothing is dropped."""
    mask_token: str | None = None
    """The token that hides others; without it the one that the tokenizer calls its mask token."""
    new: NewEncoder | None = None
    """With `model: new`: the encoder and the tokenizer that are made from nothing."""
    metric: Literal["perplexity", "accuracy", "word_accuracy"] = "perplexity"
    """The metric that decides which checkpoint is best."""

    @field_validator("mask_token", mode="before")
    @classmethod
    def _keep_brackets(cls, value: Any) -> Any:
        """Read `options.mask_token=[unused1]`, which is a list in YAML, as the token that it means."""
        is_name = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
        return f"[{value[0]}]" if is_name else value

    @model_validator(mode="after")
    def _check_shares(self) -> PretrainOptions:
        if self.replace_by_mask + self.replace_by_random > 1:
            raise ValueError(
                f"replace_by_mask {self.replace_by_mask} and replace_by_random {self.replace_by_random} are "
                "more than 1 together"
            )
        if not sum(self.ngrams):
            raise ValueError("ngrams: all weights are 0; give [1.0] to mask one at a time")
        return self
