"""What tasks with one vector a row share: texts, head, its options, and how transformers opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bertune.config.schema import Section
from bertune.config.tuning import TRAIN_SPACE
from bertune.data.labels import get_text
from bertune.errors import DataError
from bertune.tasks.base.task import Note, Task
from bertune.types import JSON, Encoder, Example, Location, Row

if TYPE_CHECKING:
    from torch import Tensor, nn

CROSS_ENCODER_SETTINGS = ("sbert_ce_default_activation_function", "sentence_transformers")
"""Where sentence-transformers' CrossEncoder looks for its activation in config.json: version 3, and later."""
_TEXTS_OF_A_ROW = {1: "a single text", 2: "a pair of texts"}


class PooledOptions(Section):
    """Settings of the head."""

    pooling: Literal["pooler", "cls", "mean", "max"] = "pooler"
    """How a row becomes one vector. `pooler`: first token and a hidden layer, as transformers does for the
    architecture, so that its tools open the result; `cls`, `mean`, `max`: without a hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in the head; without it what the encoder's config.json says."""


class PooledTask(Task):
    """A task whose head has `num_outputs` outputs a row."""

    cross_encoder_activation: str = "linear.Identity"
    """What sentence-transformers' CrossEncoder computes of the outputs: a class of `torch.nn.modules`."""
    search_space: ClassVar[JSON] = {**TRAIN_SPACE, "options.pooling": {"choice": ["pooler", "cls", "mean"]}}
    num_outputs: int
    num_texts: int | None = None
    """1 for single texts, 2 for pairs; None before `fit` or `load_state`."""

    def read_texts(self, row: Row) -> tuple[str, ...]:
        """Return the text of a row, or both texts of a pair.

        Raises:
            DataError: a text is missing or empty, or the row is a pair where the training rows are single
                texts, or the other way round.
        """
        first = get_text(row, "text")
        texts = (first, get_text(row, "text_b")) if "text_b" in row.fields else (first,)
        self._check_num_texts(texts, row.location)
        return texts

    def _check_num_texts(self, texts: tuple[str, ...], location: Location) -> None:
        if self.num_texts not in {None, len(texts)}:
            raise DataError(
                f"{location}: {_TEXTS_OF_A_ROW[len(texts)]}, "
                f"where the training rows have {_TEXTS_OF_A_ROW[self.num_texts or 1]}"
            )

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn whether rows are single texts or pairs."""
        self.num_texts = len(examples[0].texts)
        for example in examples:
            self._check_num_texts(example.texts, example.location)

    def check(self, example: Example) -> None:
        """Check that the example is a single text or a pair, as the training rows are."""
        self._check_num_texts(example.texts, example.location)

    def state(self) -> JSON:
        """Return the number of texts a row."""
        return {"num_texts": self.num_texts}

    def load_state(self, state: JSON) -> None:
        """Restore the number of texts a row."""
        self.num_texts = state["num_texts"]

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return the head that transformers gives the architecture, or a linear layer on pooled states."""
        import torch

        from bertune.encoders.architectures import DEFAULT_HEAD, get_head_spec
        from bertune.heads.pooled import PooledHead

        native_head = get_head_spec(encoder.model_type) or DEFAULT_HEAD
        spec = native_head if self.options.pooling == "pooler" else DEFAULT_HEAD
        dropout = self.options.dropout
        if dropout is None:
            config = encoder.hf_config()
            rates = (config.get(name) for name in native_head.dropout_keys)
            dropout = next((rate for rate in rates if rate is not None), 0.1)
        head = PooledHead(encoder.hidden_size, self.num_outputs, self.options.pooling, spec, dropout)
        if head.dense is not None and pretrained:
            with torch.no_grad():
                head.dense.weight.copy_(pretrained["weight"])
                head.dense.bias.copy_(pretrained["bias"])
        return head

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json."""
        if not head.form.hf_class:
            return {"architectures": None}
        return {
            "architectures": [head.form.hf_class],
            head.form.dropout_keys[0]: head.dropout.p,
            **cross_encoder_config(self.cross_encoder_activation),
        }

    def hf_incompatibility(self, head: Any) -> str:
        """Return why transformers cannot open the head, or ""."""
        if head.form.hf_class:
            return ""
        if self.options.pooling != "pooler":
            return f"with options.pooling={self.options.pooling} the head is bertune's own"
        return "the head of this architecture is bertune's own"


def cross_encoder_config(activation: str) -> JSON:
    """Return the part of config.json that tells sentence-transformers' CrossEncoder its activation.

    Without it a single output goes through a sigmoid.

    Args:
        activation: the class, inside `torch.nn.modules`.
    """
    path = f"torch.nn.modules.{activation}"
    values = (path, {"activation_fn": path, "version": "4.0.0"})
    return dict(zip(CROSS_ENCODER_SETTINGS, values, strict=True))
