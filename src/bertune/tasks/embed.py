"""Sentence vectors, learned from texts that belong together: SimCSE, in-batch negatives, hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.labels import get_number
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.ranking import retrieval_scores
from bertune.metrics.similarity import Similarity, l2_normalize
from bertune.tasks.base.sentence import (
    METRICS,
    SentenceOptions,
    SentenceTask,
    check_not_constant,
    int_if_whole,
    is_binary,
    score_binary,
    score_correlation,
)
from bertune.tasks.base.task import Note, rename_keys
from bertune.types import (
    JSON,
    Batch,
    Columns,
    EncodedExample,
    Encoding,
    Example,
    Prediction,
    Row,
    Scores,
    Tokenizer,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bertune.heads.sentence import SentenceOutput

_FORMAT_1_KEYS = {"form": "texts_per_row", "lower": "do_lower_case"}
_ROW_DESCRIPTIONS = {
    1: "single texts, each with itself under another dropout (SimCSE)",
    2: "pairs of texts that belong together",
    3: "pairs of texts that belong together, each with a hard negative",
}


class EmbedOptions(SentenceOptions):
    """Settings of sentence vectors."""

    margin: Annotated[float, Field(ge=0)] = 0.2
    """How much the cosine of a text with its own partner must exceed those with others. sentence-transformers
    has no margin: 0."""
    symmetric: bool = False
    """Also find the text, given its partner (bertorch's `mean_loss`)."""
    mask_false_negatives: bool = True
    """Leave out false negatives: the text itself, its partner in another row, and partners of the same text
    in other rows."""
    metric: Literal[
        "auto",
        "spearman",
        "pearson",
        "average_precision",
        "accuracy",
        "f1",
        "ndcg@10",
        "mrr@10",
        "recall@1",
        "recall@5",
        "recall@10",
    ] = "auto"
    """The metric that decides which checkpoint is best. `auto`: spearman for dev pairs with scores,
    average_precision for pairs labelled 0 and 1, ndcg@10 for pairs of a query and a text to find."""


class Embed(SentenceTask):
    """Learn vectors that are close when texts belong together."""

    Options = EmbedOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b", "negative"), "label", target_required=False)
    example_row: ClassVar[str] = '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?"}'
    uses_whole_batch = True
    options: EmbedOptions

    def __init__(self, options: EmbedOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.texts_per_row = 2
        """Number of texts of a training row."""
        self._num_masked: Tensor | None = None  # false negatives since the last report
        self._num_negatives = 0

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its score or label where it has one."""
        texts = self.read_texts(row, "text_b", "negative")
        if "negative" in row.fields and "text_b" not in row.fields:
            raise DataError(f"{row.location}: has a 'negative' but no 'text_b' that belongs to the text")
        score = None  # the score of a single text would mean nothing
        if len(texts) > 1:
            score = int_if_whole(get_number(row, self.columns.target))
        return Example(texts, score, row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn how many texts a training row has."""
        for name in ("labels", "label_delimiter"):
            if getattr(self.data, name):
                raise ConfigError(
                    f"data.{name} is for labels, and embed learns from texts that belong together; "
                    "leave it out"
                )
        self._set_texts_per_row(_texts_per_row(examples))
        first = examples[0].texts[0]
        if all(e.texts[0] == first for e in examples):
            raise DataError(
                f"{examples[0].location.source}: every row has the same text; "
                "there is no other text to tell it from"
            )
        unrelated = next((e for e in examples if e.target not in {None, 1}), None)
        if unrelated is not None:
            raise DataError(
                f"{unrelated.location}: the label is {unrelated.target:g}, and embed learns from pairs that "
                "belong together; leave such rows out (data.drop_labels=[0]), or learn from scores and "
                "labels with task match"
            )

    def _set_texts_per_row(self, texts_per_row: int) -> None:
        self.texts_per_row = texts_per_row
        self.min_batch_size = 1 if texts_per_row == 3 else 2

    def describe(self) -> str:
        """Return one line about the training rows."""
        return f"sentence vectors from {_ROW_DESCRIPTIONS[self.texts_per_row]}"

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Check that rows have the same fields, that scores differ, and that the metric fits the rows."""
        _texts_per_row(examples)
        first = examples[0]
        unlike = next((e for e in examples if (e.target is None) != (first.target is None)), None)
        if unlike is not None:
            raise DataError(
                f"{unlike.location}: has {'no' if unlike.target is None else 'a'} score, "
                f"unlike {first.location}; score all rows or none"
            )
        kind = evaluation_kind(examples)
        if kind in {"scores", "labels"}:
            check_not_constant([e.target for e in examples], first.location.source, labels=kind == "labels")
        if self.options.metric not in {"auto", *METRICS[kind]}:
            raise ConfigError(
                f"options.metric={self.options.metric}: "
                f"{first.location.source} gives {', '.join(METRICS[kind])}"
            )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return examples as token ids; pairs that belong together get no target: the loss needs none."""
        if _belong_together(examples):
            examples = [replace(e, target=None) for e in examples]
        return super().encode(examples, tokenizer)

    def is_chunkable(self, examples: Sequence[Example]) -> bool:
        """Tell whether chunks are encoded as the whole is; a chunk of scored pairs may be all labelled 1."""
        return _belong_together(examples)

    def build_encoded_example(self, encodings: tuple[Encoding, ...], example: Example) -> EncodedExample:
        """Return an encoded example; a single text is its own partner, by a second dropout pass (SimCSE)."""
        if len(encodings) == 1:
            return EncodedExample((encodings[0], encodings[0]), passes=True)
        return EncodedExample(encodings, self.encode_target(example.target))

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of rows; 0 for rows with scores, which this loss does not use."""
        return float(len(batch.rows)) if batch.target is None else 0.0

    def loss(self, out: SentenceOutput, batch: Batch) -> Tensor:
        """Return the loss, summed over the rows of all processes and divided by the number of processes.

        Sources: Gao et al. 2021 (SimCSE), arXiv 2104.08821; Henderson et al. 2017, arXiv 1705.00652; margin
        as in bertorch and PaddleNLP.
        """
        import torch

        from bertune.distributed import all_gather, num_processes
        from bertune.losses.similarity import in_batch_negatives_loss

        pair_index = out.pair_index
        text_ids = [all_gather(pair_index.text_ids[index]) for index in pair_index.text_index]
        positive = torch.arange(len(text_ids[0]), device=text_ids[0].device)
        false_negatives = self._false_negatives(
            text_ids[0], torch.cat(text_ids[1:]), positive, count=out.vectors.requires_grad
        )

        def loss(x: SentenceOutput) -> Tensor:
            candidates = torch.cat([all_gather(x.text_vectors(n)) for n in range(1, len(text_ids))])
            return in_batch_negatives_loss(
                all_gather(x.text_vectors(0)),
                candidates,
                positive,
                false_negatives,
                self.options.margin,
                self.options.scale,
                self.options.symmetric,
                self.similarity,
            )

        return self.matryoshka_loss(out, loss) / num_processes()

    def _false_negatives(
        self, anchors: torch.Tensor, candidates: torch.Tensor, positive: torch.Tensor, *, count: bool
    ) -> torch.Tensor:
        """Return which candidates (B, N) are false negatives of a row; count them for `report`."""
        import torch

        from bertune.losses.similarity import false_negative_mask

        if not self.options.mask_false_negatives:
            return torch.zeros(len(anchors), len(candidates), dtype=torch.bool, device=anchors.device)
        mask = false_negative_mask(anchors, candidates, positive)
        if count:
            self._num_masked = mask.sum() + (0 if self._num_masked is None else self._num_masked)
            self._num_negatives += mask.numel() - len(anchors)
        return mask

    def report(self) -> list[str]:
        """Return how many negatives the loss left out since the last call."""
        masked = 0 if self._num_masked is None else int(self._num_masked)
        negatives = self._num_negatives
        self._num_masked, self._num_negatives = None, 0
        if not masked:
            return []
        share = f"{masked} of {negatives} in-batch negatives ({masked / negatives:.2%})"
        return [f"{share} were left out, since they are the text itself or belong to it"]

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair; also the vectors of its texts where it has no score."""
        truncated = self.truncate(out)
        similarities = self.similarities(truncated).tolist()
        if batch.target is not None:
            return [Prediction(value) for value in similarities]
        positions = range(len(out.pair_index.text_index))
        vectors = [truncated.text_vectors(n).cpu().numpy() for n in positions]
        return [
            Prediction(value, vectors=row_vectors)
            for value, row_vectors in zip(similarities, zip(*vectors, strict=True), strict=True)
        ]

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return correlations for scores, average precision for labels 0 and 1, else scores of a search.

        For single texts the score is the uniformity of their vectors.
        """
        kind = evaluation_kind(examples)
        main = METRICS[kind][0] if self.options.metric == "auto" else self.options.metric
        gold = [e.target for e in examples]
        if kind == "scores":
            return score_correlation(gold, predictions, main, intervals=intervals)
        if kind == "labels":
            return score_binary(gold, predictions, main, intervals=intervals)
        if kind == "texts":
            vectors = l2_normalize(np.stack([_vectors(p)[0] for p in predictions]))
            return Scores(main, False, {main: _uniformity(vectors)})
        return _search_scores(predictions, examples, main, self.similarity, intervals=intervals)

    def state(self) -> JSON:
        """Return the number of texts of a training row, and how texts and vectors are treated."""
        return {**super().state(), "texts_per_row": self.texts_per_row}

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        state = rename_keys(state, _FORMAT_1_KEYS)
        super().load_state(state)
        self._set_texts_per_row(state["texts_per_row"])


def evaluation_kind(examples: Sequence[Example]) -> str:
    """Return the kind of rows to score: scores, labels, search (queries and texts to find), or texts."""
    if _belong_together(examples):
        return "texts" if len(examples[0].texts) == 1 else "search"
    return "labels" if is_binary([e.target for e in examples]) else "scores"


def _belong_together(examples: Sequence[Example]) -> bool:
    return all(e.target in {None, 1} for e in examples)


def _texts_per_row(examples: Sequence[Example]) -> int:
    number = len(examples[0].texts)
    other = next((e for e in examples if len(e.texts) != number), None)
    if other is not None:
        raise DataError(
            f"{other.location}: has {len(other.texts)} texts, {examples[0].location} has {number}; "
            "rows of one split must have the same parts"
        )
    return number


def _vectors(prediction: Prediction) -> tuple[Any, ...]:
    return prediction.vectors or ()


def _search_scores(
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    main: str,
    similarity: Similarity,
    *,
    intervals: bool,
) -> Scores:
    """Score a search: every different first text is a query, every other text is a document.

    The documents to find are the second texts of the query's rows; `main` is the main metric.
    """
    queries: dict[str, Any] = {}
    documents: dict[str, Any] = {}
    relevant: dict[str, set[str]] = {}
    for prediction, example in zip(predictions, examples, strict=True):
        vectors = _vectors(prediction)
        queries.setdefault(example.texts[0], vectors[0])
        for text, vector in zip(example.texts[1:], vectors[1:], strict=True):
            documents.setdefault(text, vector)
        relevant.setdefault(example.texts[0], set()).add(example.texts[1])
    index_of = {text: n for n, text in enumerate(documents)}
    relevant_ids = [{index_of[text] for text in relevant[query]} for query in queries]
    # A query that is a document too must not find itself, unless that is relevant.
    own_ids = np.array([index_of.get(query, -1) if query not in relevant[query] else -1 for query in queries])
    query_vectors, document_vectors = (np.stack(list(texts.values())) for texts in (queries, documents))
    if similarity == "cosine":
        query_vectors, document_vectors = l2_normalize(query_vectors), l2_normalize(document_vectors)
        similarity = "dot"
    result = retrieval_scores(
        query_vectors, document_vectors, relevant_ids, excluded=own_ids, similarity=similarity
    )
    interval = None
    if intervals:
        interval = bootstrap_interval(lambda each: float(each.mean()), result.per_query[main])
    return Scores(main, True, result.values, {main: interval} if interval else {})


def _uniformity(vectors: Any) -> float:
    """Return the uniformity of vectors (n, E) of length 1: log of the mean of exp(-2 * squared distance).

    At most 2,000 of them are used. Source: Wang and Isola 2020, arXiv 2005.10242, equation 2.
    """
    sample = vectors[:: -(-len(vectors) // 2000)]
    squared_distances = 2 - 2 * (sample @ sample.T)[np.triu_indices(len(sample), 1)]
    return float(np.log(np.exp(-2 * squared_distances).mean())) if len(sample) > 1 else 0.0
