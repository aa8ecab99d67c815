"""What tasks with one vector a text share: options, head, similarity, and scores of similarities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from bertune.config.auto_rates import TaskRates
from bertune.config.schema import Section
from bertune.config.tuning import TRAIN_SPACE
from bertune.data.columns import ColumnMapping, normalize_name
from bertune.data.labels import format_label, get_text
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.similarity import Similarity, binary_similarity_scores, correlation_scores
from bertune.tasks.base.baselines import Sign, similarity_signs
from bertune.tasks.base.head_outputs import VECTORS, HeadOutputs
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
SEARCH_PROMPT_NAMES = (("query",), ("document", "passage", "corpus"))
"""The names of the prompt of queries, and of the texts to find; the first one counts, as in
sentence-transformers."""
UNBOUNDED_SCALE = 1.0
"""The scale of similarities that are not limited to -1 ... 1, where no other is given."""


DenseActivation = Literal["none", "tanh", "relu", "gelu", "sigmoid", "silu"]


class SentenceOptions(Section):
    """Settings of sentence vectors.

    Those from `pooling` to `truncate_dim` have the values of the model's folder where that is one of sentence
    vectors, of sentence-transformers or of bertune.
    """

    pooling: Literal[
        "mean", "cls", "max", "pooler", "first_last_avg", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
    ] = "mean"
    """How a text becomes one vector. `mean`, `max`: the mean or maximum over its tokens; `cls`: its first
    token; `pooler`: the first token and a hidden layer (bertorch's `linear`); `first_last_avg`: the mean of
    the first and the last layer over its tokens. As in sentence-transformers: `lasttoken`: its last token;
    `weightedmean`: later tokens count more; `mean_sqrt_len_tokens`: the sum by the root of the length."""
    dense: list[tuple[Dim, DenseActivation]] = []
    """Layers after pooling, each by its width and its activation, such as [[512, tanh]]. Those of the model's
    folder have its weights."""
    embedding_dim: Dim | None = None
    """Width of the vectors, by one more linear layer (bertorch's `output_emb_size`); without it the width of
    `dense`, or the encoder's."""
    normalize: bool = False
    """Whether vectors have length 1. Cosines are the same either way; the layer of labels of
    `match` with `softmax` reads the vectors before that."""
    similarity: Similarity = "cosine"
    """How alike two vectors are, in the loss, in scores and in predictions. `dot`: their product;
    `euclidean`, `manhattan`: their distance, negative, as in sentence-transformers."""
    prompts: dict[str, str] = {}
    """Texts to put before a text, by name, such as {query: "query: ", document: "passage: "}."""
    default_prompt_name: str | None = None
    """The name of the prompt that every text gets, in training too, unless a call says otherwise."""
    do_lower_case: bool = False
    """Whether texts are put in lower case before the tokenizer reads them."""
    truncate_dim: Dim | None = None
    """How many features of a vector are kept, in scores and predictions; without it all."""
    scale: Annotated[float, Field(gt=0)] = 20.0
    """The factor of similarities in the loss: 1 / temperature. For another similarity than the cosine, which
    is not limited to -1 ... 1, the default is 1; 20 for `dot` with `normalize`."""
    matryoshka: list[Dim] = []
    """Widths at which vectors may be truncated: the loss at each of them is added."""

    @model_validator(mode="after")
    def _scale_fits_similarity(self) -> SentenceOptions:
        """Fill in the scale of a similarity that may be far from -1 ... 1, where none is given."""
        is_cosine = self.similarity == "cosine" or (self.similarity == "dot" and self.normalize)
        if not is_cosine and "scale" not in self.model_fields_set:
            self.__dict__["scale"] = UNBOUNDED_SCALE  # frozen, and it still counts as not given
        return self


class SentenceTask(Task):
    """A task with one vector a text."""

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    shared_by_members: ClassVar[tuple[str, ...]] = tuple(
        f"options.{name}" for name in ("similarity", "prompts", "default_prompt_name", "do_lower_case")
    )
    options: SentenceOptions
    auto_rates: ClassVar[TaskRates] = TaskRates(head=None, encoder_factor=0.3)
    search_space: ClassVar[JSON] = {
        **{name: TRAIN_SPACE[name] for name in TRAIN_SPACE if name != "train.head_learning_rate"},
        "options.pooling": {"choice": ["mean", "cls"]},
    }
    text_options: ClassVar[frozenset[str]] = frozenset(
        {"metric", "prompts", "default_prompt_name", "do_lower_case", "similarity"}
    )
    """The options on which texts, rows and their scores depend."""
    row_options: ClassVar[frozenset[str] | None] = text_options
    search_prompts: tuple[str, str] | None = None
    """What is put before a query, and before the texts to find, where rows are searches; None for the default
    prompt. Training and evaluation set it to `prompts_of_search`."""
    text_columns: tuple[str, ...] = ()
    """The columns of the texts of training rows, as names are compared. A corpus is read from the first of
    these that it has."""

    def head_outputs(self) -> HeadOutputs:
        """Return that the outputs are vectors."""
        return HeadOutputs(VECTORS)

    def learn_columns(self, mapping: ColumnMapping) -> None:
        """Hear which columns the training rows come from."""
        columns = [mapping.get(field) for field in ("text", "text_b")]
        self.text_columns = tuple(normalize_name(name) for name in columns if isinstance(name, str))

    @property
    def similarity(self) -> Similarity:
        """Return how vectors are compared; see `bertune.losses.similarity.pairwise_similarity`."""
        return self.options.similarity

    @property
    def prompt(self) -> str:
        """Return the default prompt, which stands before every text.

        Raises:
            ConfigError: `options.default_prompt_name` names none of the prompts.
        """
        name, prompts = self.options.default_prompt_name, self.options.prompts
        if name is not None and name not in prompts:
            raise ConfigError(
                f"options.default_prompt_name: {name!r} is none of options.prompts, "
                f"which are {listed(prompts) or 'none'}"
            )
        return "" if name is None else prompts[name]

    def prompts_of_search(self) -> tuple[str, str]:
        """Return what stands before a query, and before a text to find: their own prompts, or the default."""
        prompts = self.options.prompts
        names = (next((name for name in group if name in prompts), None) for group in SEARCH_PROMPT_NAMES)
        query, document = (self.prompt if name is None else prompts[name] for name in names)
        return query, document

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
        texts_of = [self._with_prompts(e) for e in examples]
        texts = dict.fromkeys(text for texts in texts_of for text in texts)
        index_of = {text: n for n, text in enumerate(texts)}
        encodings = tokenizer.encode([self.preprocess_text(text) for text in texts])
        return [
            self.build_encoded_example(tuple(encodings[index_of[text]] for text in texts), e)
            for texts, e in zip(texts_of, examples, strict=True)
        ]

    def uses_search_prompts(self, example: Example) -> bool:
        """Tell whether a row is a query and the texts to find, without a score."""
        return example.target is None and len(example.texts) > 1

    def _with_prompts(self, example: Example) -> list[str]:
        """Return the texts of a row behind their prompts: those of a search if it has no score."""
        first = others = self.prompt
        if self.search_prompts is not None and self.uses_search_prompts(example):
            first, others = self.search_prompts
        return [(first if n == 0 else others) + text for n, text in enumerate(example.texts)]

    def preprocess_text(self, text: str) -> tuple[str]:
        """Return a text as the tokenizer must get it."""
        return (text.lower() if self.options.do_lower_case else text,)

    def truncate(self, out: SentenceOutput) -> SentenceOutput:
        """Return the output with the features that the model keeps."""
        return out if self.options.truncate_dim is None else out.truncate(self.options.truncate_dim)

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

        dense = self.dense_layers(encoder.hidden_size)
        self._check_widths(dense[-1][0] if dense else encoder.hidden_size)
        head = self.build_head(encoder.hidden_size, dense)
        if self.options.pooling == "pooler" and pretrained:
            with torch.no_grad():
                head.dense.get_parameter("0.weight").copy_(pretrained["weight"])
                head.dense.get_parameter("0.bias").copy_(pretrained["bias"])
        return head

    def dense_layers(self, hidden_size: int) -> list[tuple[int, str]]:
        """Return width and activation of each layer after pooling.

        `pooler` and `embedding_dim` stand for a layer each: before and after `options.dense`, unless it
        begins or ends with that layer already.
        """
        dense: list[tuple[int, str]] = list(self.options.dense)
        hidden, last = (hidden_size, "tanh"), (self.options.embedding_dim or 0, "none")
        if self.options.pooling == "pooler" and dense[:1] != [hidden]:
            dense.insert(0, hidden)
        if self.options.embedding_dim and dense[-1:] != [last]:
            dense.append(last)
        return dense

    def build_head(self, hidden_size: int, dense: Sequence[tuple[int, str]]) -> SentenceHead:
        """Return a new head.

        Args:
            hidden_size: width of the encoder's states.
            dense: width and activation of each layer after pooling.
        """
        from bertune.heads.sentence import SentenceHead

        return SentenceHead(hidden_size, self.options.pooling, dense, normalize=self.options.normalize)

    def _check_widths(self, embedding_dim: int) -> None:
        dims, truncate_dim = self.options.matryoshka, self.options.truncate_dim
        too_wide = [dim for dim in dims if dim >= embedding_dim]
        if len(set(dims)) < len(dims):
            raise ConfigError(f"options.matryoshka: {dims} names a width twice")
        if too_wide:
            raise ConfigError(
                f"options.matryoshka: {too_wide} must be less than the width of the vectors, {embedding_dim}"
            )
        if truncate_dim is not None and truncate_dim > embedding_dim:
            raise ConfigError(
                f"options.truncate_dim: {truncate_dim} is more than the width of the vectors, {embedding_dim}"
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

    def mean_output(self, outputs: Sequence[SentenceOutput]) -> SentenceOutput:
        """Return all models' vectors side by side, so that similarities are the mean; logits of the mean."""
        from bertune.tasks.base.ensembling import mean_sentence_output

        return mean_sentence_output(outputs, self.similarity)

    def ensemble_faults(self) -> list[str]:
        """Return what does not let similarities be the mean of several models'."""
        faults = super().ensemble_faults()
        if self.similarity == "euclidean":
            faults.append(
                "options.similarity=euclidean: the distance of vectors side by side is not the mean of "
                "distances; cosine, dot and manhattan can be joined"
            )
        if self.options.truncate_dim is not None:
            faults.append(
                f"options.truncate_dim={self.options.truncate_dim}: a member keeps its whole vectors, since "
                "the first features of vectors side by side are those of one model"
            )
        return faults

    def has_untrained_baseline(self) -> bool:
        """Return True: the encoder's vectors tell texts apart before training."""
        return True

    def unlearnt_signs(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
        """Return that scores may be the wrong way round, or that labels are all the same."""
        return similarity_signs(predictions, self.score(predictions, examples, intervals=False))

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair."""
        return [Prediction(value) for value in self.similarities(self.truncate(out)).tolist()]

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
