"""What tasks with one vector a text share: options, head, similarity, and scores of similarities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bertune.config.schema import Section
from bertune.data.labels import format_label, get_text
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.similarity import Similarity, binary_similarity_scores, correlation_scores
from bertune.tasks.base.task import Task
from bertune.types import (
    JSON,
    Batch,
    EncodedExample,
    Encoder,
    Encoding,
    Example,
    Prediction,
    Row,
    Scores,
    Tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertune.heads.sentence import SentenceHead, SentenceOutput

Dim = Annotated[int, Field(ge=1)]
METRICS = {
    "scores": ("spearman", "pearson"),
    "labels": ("average_precision", "accuracy", "f1"),
    "search": ("ndcg@10", "mrr@10", "recall@1", "recall@5", "recall@10"),
    "texts": ("uniformity",),
}
"""Metrics by the kind of rows that are scored; the first one is the default."""
UNBOUNDED_SCALE = 1.0
"""The scale of similarities that are not limited to -1 ... 1, where no other is given."""


class SentenceOptions(Section):
    """Settings of sentence vectors."""

    pooling: Literal["mean", "cls", "max", "pooler", "first_last_avg"] = "mean"
    """How a text becomes one vector. `mean`, `max`: the mean or maximum over its tokens; `cls`: its first
    token; `pooler`: the first token and a hidden layer (bertorch's `linear`); `first_last_avg`: the mean of
    the first and the last layer over its tokens."""
    embedding_dim: Dim | None = None
    """Width of the vectors, by a linear layer after pooling (bertorch's `output_emb_size`); without it the
    encoder's width."""
    normalize: bool = False
    """Whether vectors have length 1. Cosines are the same either way."""
    similarity: Similarity = "cosine"
    """How alike two vectors are, in the loss, in scores and in predictions. `dot`: their product;
    `euclidean`, `manhattan`: their distance, negative, as in sentence-transformers."""
    scale: Annotated[float, Field(gt=0)] = 20.0
    """The factor of similarities in the loss: 1 / temperature. For another similarity than the cosine, which
    is not limited to -1 ... 1, the default is 1; 20 for `dot` with `normalize`."""
    matryoshka: list[Dim] = []
    """Widths at which vectors may be truncated: the loss at each of them is added."""

    @model_validator(mode="before")
    @classmethod
    def _scale_fits_similarity(cls, values: Any) -> Any:
        """Fill in the scale of a similarity that may be far from -1 ... 1, where none is given."""
        if not isinstance(values, dict) or "scale" in values:
            return values
        similarity = values.get("similarity", "cosine")
        is_cosine = similarity == "cosine" or (similarity == "dot" and values.get("normalize") is True)
        return values if is_cosine else {**values, "scale": UNBOUNDED_SCALE}


class SentenceTask(Task):
    """A task with one vector a text."""

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    options: SentenceOptions
    do_lower_case: bool = False
    """Whether texts are put in lower case first, as a folder of sentence-transformers may ask."""
    prompt: str = ""
    """The default prompt of such a folder, before every text."""
    truncate_dim: int | None = None
    """The number of features that such a folder keeps of a vector; None for all."""

    @property
    def similarity(self) -> Similarity:
        """Return how vectors are compared; see `bertune.losses.similarity.pairwise_similarity`."""
        return self.options.similarity

    def read_texts(self, row: Row, *optional_fields: str) -> tuple[str, ...]:
        """Return the text of a row, and those texts of `optional_fields` that it has.

        Raises:
            DataError: one is missing or empty.
        """
        fields = ("text", *(name for name in optional_fields if name in row.fields))
        return tuple(get_text(row, name) for name in fields)

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the score or label of an example as text, for counts; nothing where it has none."""
        return () if example.target is None else (format_label(example.target),)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return examples as token ids, each text by itself and each different text encoded once."""
        texts = dict.fromkeys(text for e in examples for text in e.texts)
        index_of = {text: n for n, text in enumerate(texts)}
        encodings = tokenizer.encode([self.preprocess_text(self.prompt + text) for text in texts])
        return [
            self.build_encoded_example(tuple(encodings[index_of[text]] for text in e.texts), e)
            for e in examples
        ]

    def preprocess_text(self, text: str) -> tuple[str]:
        """Return a text as the tokenizer must get it."""
        return (text.lower() if self.do_lower_case else text,)

    def truncate(self, out: SentenceOutput) -> SentenceOutput:
        """Return the output with the features that the model keeps."""
        return out if self.truncate_dim is None else out.truncate(self.truncate_dim)

    def build_encoded_example(self, encodings: tuple[Encoding, ...], example: Example) -> EncodedExample:
        """Return an encoded example from the encodings of its texts."""
        return EncodedExample(encodings, self.encode_target(example.target))

    def collate_target(self, targets: list[Any]) -> Any:
        """Return numbers (B,) in fp32."""
        import torch

        return torch.tensor(targets, dtype=torch.float32)

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return the head that makes vectors from states and compares them."""
        import torch

        o = self.options
        self._check_matryoshka(encoder.hidden_size)
        dense = [
            *([(encoder.hidden_size, "tanh")] if o.pooling == "pooler" else []),
            *([(o.embedding_dim, "none")] if o.embedding_dim else []),
        ]
        head = self.build_head(encoder.hidden_size, dense)
        if o.pooling == "pooler" and pretrained:
            with torch.no_grad():
                head.dense.get_parameter("0.weight").copy_(pretrained["weight"])
                head.dense.get_parameter("0.bias").copy_(pretrained["bias"])
        return head

    def build_head(self, hidden_size: int, dense: Sequence[tuple[int, str]]) -> SentenceHead:
        """Return a new head.

        Args:
            hidden_size: width of the encoder's states.
            dense: width and activation of each layer after pooling.
        """
        from bertune.heads.sentence import SentenceHead

        return SentenceHead(hidden_size, self.options.pooling, dense, normalize=self.options.normalize)

    def _check_matryoshka(self, hidden_size: int) -> None:
        dims = self.options.matryoshka
        embedding_dim = self.options.embedding_dim or hidden_size
        too_wide = [dim for dim in dims if dim >= embedding_dim]
        if len(set(dims)) < len(dims):
            raise ConfigError(f"options.matryoshka: {dims} names a width twice")
        if too_wide:
            raise ConfigError(
                f"options.matryoshka: {too_wide} must be less than the width of the vectors, {embedding_dim}"
            )

    def matryoshka_loss(self, out: SentenceOutput, loss: Callable[[SentenceOutput], Tensor]) -> Tensor:
        """Return the sum of a loss over the full width and the widths at which vectors may be truncated.

        Source: Kusupati et al. 2022 (Matryoshka), arXiv 2205.13147.
        """
        total = loss(out)
        for dim in self.options.matryoshka:
            total = total + loss(out.truncate(dim))
        return total

    def similarities(self, out: SentenceOutput) -> Tensor:
        """Return the similarity (B,) of the first two texts of each row."""
        from bertune.losses.similarity import pairwise_similarity

        return pairwise_similarity(out.text_vectors(0), out.text_vectors(1), self.similarity)

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair."""
        return [Prediction(value) for value in self.similarities(self.truncate(out)).tolist()]

    def state(self) -> JSON:
        """Return how texts and vectors are treated, as a folder of sentence-transformers may ask."""
        return {
            "do_lower_case": self.do_lower_case,
            "prompt": self.prompt,
            "truncate_dim": self.truncate_dim,
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        self.do_lower_case = state.get("do_lower_case", False)
        self.prompt = state.get("prompt", "")
        self.truncate_dim = state.get("truncate_dim")

    def hf_config(self, head: Any) -> JSON:
        """Return that config.json describes the encoder alone."""
        return {"architectures": None}

    def hf_incompatibility(self, head: Any) -> str:
        """Return what opens the folder instead of transformers' classes with a head."""
        if self.options.pooling == "first_last_avg":
            return "neither transformers nor sentence-transformers has a pooling 'first_last_avg'"
        dense = "; some servers ignore its dense layer (vLLM, llama.cpp)" if len(head.dense) else ""
        return f"sentence vectors are for SentenceTransformer(FOLDER){dense}"


def score_correlation(
    gold: Sequence[float], predictions: Sequence[Prediction], main: str, *, intervals: bool
) -> Scores:
    """Score similarities against scores by rank correlation and correlation; `main` is the main metric."""
    columns = np.array(gold, float), np.array([p.value for p in predictions], float)
    interval = None
    if intervals:
        interval = bootstrap_interval(lambda g, p: correlation_scores(g, p)[main], *columns)
    return Scores(main, True, correlation_scores(*columns), {main: interval} if interval else {})


def score_binary(
    gold: Sequence[bool], predictions: Sequence[Prediction], main: str, *, intervals: bool
) -> Scores:
    """Score similarities against labels 0 and 1 by average precision and by the best thresholds."""
    columns = np.array(gold, bool), np.array([p.value for p in predictions], float)
    interval = None
    if intervals:
        interval = bootstrap_interval(lambda g, p: binary_similarity_scores(g, p)[main], *columns)
    return Scores(main, True, binary_similarity_scores(*columns), {main: interval} if interval else {})


def check_not_constant(gold: Sequence[float], source: str, *, labels: bool) -> None:
    """Check that scores, or labels 0 and 1, are not all the same.

    Raises:
        DataError: they are. No correlation with a constant is defined, and average precision says nothing.
    """
    if len(set(gold)) == 1 and labels:
        raise DataError(f"{source}: all {len(gold)} rows have the label {gold[0]:g}; both 0 and 1 are needed")
    if len(set(gold)) == 1:
        raise DataError(
            f"{source}: all {len(gold)} rows have the score {gold[0]:g}, "
            "so no correlation with it is defined; give rows with different scores"
        )


def is_binary(gold: Sequence[float]) -> bool:
    """Tell whether all scores are labels, 0 or 1."""
    return set(gold) <= {0, 1}


def int_if_whole(number: float | None) -> float | int | None:
    """Return a whole number as an int, as data.drop_labels writes it."""
    return int(number) if number is not None and number.is_integer() else number
