"""What tasks of two texts that are encoded apart share: options, head, similarity, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import Section
from bertune.data.labels import format_label, get_text
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.similarity import binary_similarity_scores, correlation_scores
from bertune.tasks.base.task import Task
from bertune.types import JSON, Batch, EncodedExample, Encoder, Example, Prediction, Row, Scores, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertune.heads.sentence import SentenceOutput

Dim = Annotated[int, Field(ge=1)]
METRICS = {
    "scores": ("spearman", "pearson"),
    "labels": ("average_precision", "accuracy", "f1"),
    "search": ("ndcg@10", "mrr@10", "recall@1", "recall@5", "recall@10"),
    "texts": ("uniformity",),
}
"""By what the rows to be scored hold: figures that can decide, the usual one first."""


class SentenceOptions(Section):
    """Settings of sentence vectors."""

    pooling: Literal["mean", "cls", "max", "pooler", "first_last_avg"] = "mean"
    """How a text becomes one vector: the mean or maximum over its tokens, its first token, the first token and a hidden layer
    (bertorch's `linear`), or the mean of the first and the last layer over its tokens."""
    embedding_dim: Dim | None = None
    """Width of the vectors: a linear layer after pooling (bertorch's `output_emb_size`); without it the encoder's width."""
    normalize: bool = False
    """Whether vectors have length 1. Cosines are the same either way."""
    scale: Annotated[float, Field(gt=0)] = 20.0
    """What cosines are multiplied with in the loss: 1 / temperature."""
    matryoshka: list[Dim] = []
    """Also learn with the first so many features of each vector, so that vectors can be cut there; losses are added."""


class SentenceTask(Task):
    """A task whose model gives each text a vector; a pair of texts is as alike as its vectors' cosine."""

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    options: SentenceOptions
    do_lower_case = False
    """Whether texts are put in lower case first, as a folder of sentence-transformers may ask."""
    prompt = ""
    """What such a folder puts before every text, its default prompt."""
    truncate_dim: int | None = None
    """How many features of a vector such a folder keeps."""

    def read_texts(self, row: Row, *parts: str) -> tuple[str, ...]:
        """Return the texts of a row, as far as it has them.

        Raises:
            DataError: one is missing or empty.
        """
        return tuple(get_text(row, part) for part in ("text", *parts) if part == "text" or part in row.fields)

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the score or label of an example as text, for counting; nothing where it has none."""
        return () if example.target is None else (format_label(example.target),)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Turn examples into integers, each text for itself and each different text once."""
        different = {
            text: n for n, text in enumerate(dict.fromkeys(text for e in examples for text in e.texts))
        }
        pieces = tokenizer.encode([self.preprocess_text(self.prompt + text) for text in different])
        return [
            self.build_encoded_example(tuple(pieces[different[text]] for text in e.texts), e)
            for e in examples
        ]

    def preprocess_text(self, text: str) -> tuple[str]:
        """Return a text as the tokenizer is to see it."""
        return (text.lower() if self.do_lower_case else text,)

    def truncate(self, out: SentenceOutput) -> SentenceOutput:
        """Return what is judged of vectors: all features, or as many as the model keeps."""
        return out if self.truncate_dim is None else out.truncate(self.truncate_dim)

    def build_encoded_example(self, pieces: tuple[Any, ...], example: Example) -> EncodedExample:
        """Put the pieces of an example together."""
        return EncodedExample(pieces, self.encode_target(example.target))

    def collate_target(self, targets: list[Any]) -> Any:
        """Return numbers (B,) as fp32."""
        import torch

        return torch.tensor(targets, dtype=torch.float32)

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Build what turns states into vectors and compares them."""
        import torch

        from bertune.heads.sentence import SentenceHead

        o = self.options
        self._check_widths(encoder.hidden_size)
        dense = [
            *([(encoder.hidden_size, "tanh")] if o.pooling == "pooler" else []),
            *([(o.embedding_dim, "none")] if o.embedding_dim else []),
        ]
        head = SentenceHead(
            encoder.hidden_size, o.pooling, dense, normalize=o.normalize, **self.head_kwargs()
        )
        if o.pooling == "pooler" and pretrained:
            with torch.no_grad():
                head.dense.get_parameter("0.weight").copy_(pretrained["weight"])
                head.dense.get_parameter("0.bias").copy_(pretrained["bias"])
        return head

    def head_kwargs(self) -> JSON:
        """Return what the head needs to tell labels, beside its pooling."""
        return {}

    def _check_widths(self, width: int) -> None:
        size = self.options.embedding_dim or width
        too_wide = [n for n in self.options.matryoshka if n >= size]
        if len(set(self.options.matryoshka)) < len(self.options.matryoshka):
            raise ConfigError(f"options.matryoshka: {self.options.matryoshka} names a width twice")
        if too_wide:
            raise ConfigError(
                f"options.matryoshka: {too_wide} must be less than the width of the vectors, {size}"
            )

    def matryoshka_loss(self, out: SentenceOutput, loss: Callable[[SentenceOutput], Tensor]) -> Tensor:
        """Add up a loss over the widths that vectors are to be cut at, their own among them.

        Source: Kusupati et al. 2022 (Matryoshka), arXiv 2205.13147.
        """
        total = loss(out)
        for width in self.options.matryoshka:
            total = total + loss(out.truncate(width))
        return total

    def similarities(self, out: SentenceOutput) -> Tensor:
        """Return the cosine (B,) of the first two texts of each row."""
        from bertune.losses.similarity import cosine_similarity

        return cosine_similarity(out.text_vectors(0), out.text_vectors(1))

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the cosine of each pair."""
        return [Prediction(value) for value in self.similarities(self.truncate(out)).tolist()]

    def hf_config(self, head: Any) -> JSON:
        """Say that config.json describes the encoder alone."""
        return {"architectures": None}

    def hf_incompatibility(self, head: Any) -> str:
        """Say what opens the folder instead of transformers' classes with a head."""
        if self.options.pooling == "first_last_avg":
            return "neither transformers nor sentence-transformers has a pooling 'first_last_avg'"
        dense = "; some servers leave its dense layer out (vLLM, llama.cpp)" if len(head.dense) else ""
        return f"sentence vectors are for SentenceTransformer(FOLDER){dense}"


def score_correlation(
    gold: Sequence[float], predictions: Sequence[Prediction], main: str, *, intervals: bool
) -> Scores:
    """Score cosines against scores: rank correlation and correlation."""
    columns = np.array(gold, float), np.array([p.value for p in predictions], float)
    found = bootstrap_interval(lambda g, p: correlation_scores(g, p)[main], *columns) if intervals else None
    return Scores(main, True, correlation_scores(*columns), {main: found} if found else {})


def score_binary(
    gold: Sequence[bool], predictions: Sequence[Prediction], main: str, *, intervals: bool
) -> Scores:
    """Score cosines against labels 0 and 1: average precision, and what the best thresholds give."""
    columns = np.array(gold, bool), np.array([p.value for p in predictions], float)
    found = (
        bootstrap_interval(lambda g, p: binary_similarity_scores(g, p)[main], *columns) if intervals else None
    )
    return Scores(main, True, binary_similarity_scores(*columns), {main: found} if found else {})


def check_not_constant(gold: Sequence[float], source: str, *, labels: bool) -> None:
    """Refuse scores, or labels 0 and 1, that are all the same.

    Raises:
        DataError: a rank correlation with a constant is undefined, and average precision then says nothing of the model.
    """
    if len(set(gold)) == 1 and labels:
        raise DataError(f"{source}: all {len(gold)} rows have the label {gold[0]:g}; both 0 and 1 are needed")
    if len(set(gold)) == 1:
        same = f"all {len(gold)} rows have the score {gold[0]:g}"
        raise DataError(
            f"{source}: {same}, so no correlation with it is defined; give rows of different scores"
        )


def is_binary(gold: Sequence[float]) -> bool:
    """Tell whether scores are labels: 0 and 1 alone."""
    return set(gold) <= {0, 1}


def int_if_whole(number: float | None) -> float | int | None:
    """Return whole numbers as such, as data.drop_labels writes them."""
    return int(number) if number is not None and number.is_integer() else number
