"""The settings of sequence labelling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bertune.config.schema import Section


class TagOptions(Section):
    """Settings of sequence labelling."""

    decoder: Literal["linear", "crf"] = "linear"
    """`linear`: labels of words are scored one by one. `crf`: labels of neighbouring words are scored
    together, by learned scores. Both predict the best legal sequence of tags."""
    crf_learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Peak learning rate of the scores of a CRF. They begin at 0 and must grow to several units in one run,
    so it is far above the encoder's."""
    scheme: Literal["auto", "BIO", "BIOS", "BIOES", "BMES", "io", "none"] = "auto"
    """The tags that the model works with; files may have any scheme. `auto`: as in the training file, BIO for
    IOB1 and for spans. `io`: the type alone, without a prefix, as in Few-NERD. `none`: one tag a word, such
    as its part of speech, scored by accuracy."""
    units: Literal["auto", "words", "characters"] = "auto"
    """How a plain text is cut. `characters`: one by one; `words`: runs of letters and digits are words, other
    characters are words one by one; `auto`: characters where the training rows are cut into characters, else
    words."""
    window_overlap: Annotated[int, Field(ge=0)] = 128
    """Tokens that two windows of a text longer than `data.max_length` share, at most half a window."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in the head; without it what the encoder's config.json says."""
    metric: Literal["f1", "f1_macro", "boundary_f1", "type_f1", "accuracy"] = "f1"
    """The metric that decides which checkpoint is best. With one tag a word (`scheme: none`) `f1` is the
    accuracy over words."""

    @field_validator("scheme", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        names = {name.lower(): name for name in ("BIO", "BIOS", "BIOES", "BMES")}
        return names.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _metric_fits(self) -> TagOptions:
        is_tagging = self.scheme == "none"
        if self.metric in (("boundary_f1", "type_f1") if is_tagging else ("accuracy",)):
            allowed = "accuracy, f1_macro" if is_tagging else "f1, f1_macro, boundary_f1, type_f1"
            raise ValueError(f"metric {self.metric} does not fit scheme {self.scheme}; use one of {allowed}")
        return self
