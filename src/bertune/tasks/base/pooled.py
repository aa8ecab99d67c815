"""What tasks with one vector a row share: their texts, their head, its options, and how transformers opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bertune.config.schema import Section
from bertune.data.labels import get_text
from bertune.errors import DataError
from bertune.tasks.base.task import Note, Task
from bertune.types import JSON, Encoder, Example, Row

if TYPE_CHECKING:
    from torch import Tensor, nn


class PooledOptions(Section):
    """Settings of the head."""

    pooling: Literal["pooler", "cls", "mean", "max"] = "pooler"
    """How a row becomes one vector. `pooler`: first token and a hidden layer, as transformers does for the
    architecture, so that its tools open the result; `cls`, `mean`, `max`: without a hidden layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in the head; without it what the encoder's config.json says."""


class PooledTask(Task):
    """A task whose head gives `num_outputs` numbers a row."""

    num_outputs: int
    num_texts: int | None = None
    """1 for single texts, 2 for pairs; known once `fit` or `load_state` has run."""

    def read_texts(self, row: Row) -> tuple[str, ...]:
        """Return the text of a row, or both of a pair.

        Raises:
            DataError: a text is missing or empty, or the model was trained on pairs and this is none, or the other way round.
        """
        first = get_text(row, "text")
        texts = (first, get_text(row, "text_b")) if "text_b" in row.fields else (first,)
        self._check_texts(texts, str(row.location))
        return texts

    def _check_texts(self, texts: tuple[str, ...], place: str) -> None:
        if self.num_texts not in {None, len(texts)}:
            kinds = {1: "a single text", 2: "a pair of texts"}
            raise DataError(
                f"{place}: {kinds[len(texts)]}, where the training rows have {kinds[self.num_texts or 1]}"
            )

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn whether rows are single texts or pairs."""
        self.num_texts = len(examples[0].texts)
        for example in examples:
            self._check_texts(example.texts, str(example.location))

    def check(self, example: Example) -> None:
        """Refuse a single text among pairs, and the other way round."""
        self._check_texts(example.texts, str(example.location))

    def state(self) -> JSON:
        """Return what was learnt of the texts."""
        return {"num_texts": self.num_texts}

    def load_state(self, state: JSON) -> None:
        """Take back what was learnt of the texts."""
        self.num_texts = state["num_texts"]

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Build the head that transformers gives the architecture, or a linear layer on pooled states."""
        import torch

        from bertune.encoders.names import DEFAULT_HEAD, get_head_spec
        from bertune.heads.pooled import PooledHead

        native = get_head_spec(encoder.model_type) or DEFAULT_HEAD
        form = native if self.options.pooling == "pooler" else DEFAULT_HEAD
        dropout = self.options.dropout
        if dropout is None:
            config = encoder.hf_config()
            stated = (config.get(name) for name in native.dropout_keys)
            dropout = next((value for value in stated if value is not None), 0.1)
        head = PooledHead(encoder.hidden_size, self.num_outputs, self.options.pooling, form, dropout)
        if head.dense is not None and pretrained:
            with torch.no_grad():
                head.dense.weight.copy_(pretrained["weight"])
                head.dense.bias.copy_(pretrained["bias"])
        return head

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json."""
        if not head.form.hf_class:
            return {"architectures": None}
        return {"architectures": [head.form.hf_class], head.form.dropout_keys[0]: head.dropout.p}

    def hf_incompatibility(self, head: Any) -> str:
        """Say why transformers cannot open the head, or nothing."""
        if head.form.hf_class:
            return ""
        if self.options.pooling != "pooler":
            return f"AutoModelForSequenceClassification has no pooling {self.options.pooling!r}"
        return "the head of this architecture is bertune's own"
