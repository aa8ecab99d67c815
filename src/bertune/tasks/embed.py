"""Learn sentence vectors from texts that belong together: SimCSE, in-batch negatives, hard negatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.labels import get_number
from bertune.errors import ConfigError, DataError
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.ranking import retrieval_scores
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
from bertune.tasks.base.task import Note
from bertune.types import JSON, Batch, Columns, EncodedExample, Example, Prediction, Row, Scores, Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bertune.heads.sentence import SentenceOutput

ROW_DESCRIPTIONS = {
    1: "single texts, each with itself under another dropout (SimCSE)",
    2: "pairs of texts that belong together",
    3: "pairs of texts that belong together, each with a hard negative",
}


class EmbedOptions(SentenceOptions):
    """Settings of sentence vectors."""

    margin: Annotated[float, Field(ge=0)] = 0.2
    """By how much the cosine of a text with its own partner must exceed those with others. sentence-transformers has none: 0."""
    symmetric: bool = False
    """Also look for the text among the texts, given its partner (bertorch's `mean_loss`)."""
    mask_false_negatives: bool = True
    """Leave out negatives that are none: the text itself, its partner standing in another row, and partners of the same text in
    other rows."""
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
    """The figure that decides which checkpoint is best; `auto`: spearman for scored dev pairs, average_precision for pairs labelled
    0 and 1, ndcg@10 for pairs of a query and what it should find."""


class Embed(SentenceTask):
    """Give texts vectors that lie close when the texts belong together."""

    Options = EmbedOptions
    columns: ClassVar[Columns] = Columns(("text",), ("text_b", "negative"), "label", target_required=False)
    example_row: ClassVar[str] = '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?"}'
    learnt: ClassVar[tuple[str, ...]] = ("texts_per_row", "min_batch_size")
    uses_whole_batch = True
    options: EmbedOptions

    def __init__(self, options: EmbedOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.texts_per_row = 2
        """How many texts a training row has."""
        self._masked: Tensor | None = None
        self._compared = 0

    def read(self, row: Row) -> Example:
        """Read the texts of a row, and how alike they are where it says so."""
        texts = self.read_texts(row, "text_b", "negative")
        if "negative" in row.fields and "text_b" not in row.fields:
            raise DataError(f"{row.location}: has a 'negative' but no 'text_b' that belongs to the text")
        score = (
            int_if_whole(get_number(row, self.columns.target)) if len(texts) > 1 else None
        )  # of a single text it says nothing
        return Example(texts, score, row.location)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn what the training rows hold."""
        for name in ("labels", "label_delimiter"):
            if getattr(self.data, name):
                raise ConfigError(
                    f"data.{name} is for labels, and embed learns from texts that belong together; leave it out"
                )
        self.texts_per_row = _texts_a_row(examples)
        self.min_batch_size = 1 if self.texts_per_row == 3 else 2
        first = examples[0].texts[0]
        if all(e.texts[0] == first for e in examples):
            raise DataError(
                f"{examples[0].location.source}: every row has the same text; there is nothing to tell it from"
            )
        apart = [e for e in examples if e.target not in {None, 1}]
        if apart:
            raise DataError(
                f"{apart[0].location}: the label is {apart[0].target:g}, and embed learns from pairs that belong together; leave such rows "
                "out (data.drop_labels=[0]), or learn from scores and labels with task match"
            )

    def describe(self) -> str:
        """Say what is learnt from."""
        return f"sentence vectors from {ROW_DESCRIPTIONS[self.texts_per_row]}"

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Refuse rows with other parts than the first, scores that are all the same, and a metric that the rows do not give."""
        _texts_a_row(examples)
        without = next((e for e in examples if (e.target is None) != (examples[0].target is None)), None)
        if without is not None:
            raise DataError(
                f"{without.location}: has {'no' if without.target is None else 'a'} score, unlike {examples[0].location}; score all rows or none"
            )
        kind = evaluation_kind(examples)
        if kind in {"scores", "labels"}:
            check_not_constant(
                [e.target for e in examples], examples[0].location.source, labels=kind == "labels"
            )
        if self.options.metric not in {"auto", *METRICS[kind]}:
            raise ConfigError(
                f"options.metric={self.options.metric}: {examples[0].location.source} gives {', '.join(METRICS[kind])}"
            )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Turn examples into integers. Pairs that all belong together, labelled 1 or not, have no target: the loss needs none."""
        if _belong_together(examples):
            examples = [replace(e, target=None) for e in examples]
        return super().encode(examples, tokenizer)

    def is_chunkable(self, examples: Sequence[Example]) -> bool:
        """Tell whether a part of the rows is seen as the whole is: among scored pairs, a part may hold those labelled 1 alone."""
        return _belong_together(examples)

    def build_encoded_example(self, pieces: tuple[Any, ...], example: Example) -> EncodedExample:
        """Put the pieces of an example together; a single text stands on both sides."""
        if len(pieces) == 1:
            return EncodedExample((pieces[0], pieces[0]), passes=True)
        return EncodedExample(pieces, self.encode_target(example.target))

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of rows; 0 for rows with scores, which this loss does not look at."""
        return float(len(batch.rows)) if batch.target is None else 0.0

    def loss(self, out: SentenceOutput, batch: Batch) -> Tensor:
        """Return the loss summed over rows; over those of all processes, divided by their number.

        Sources: Gao et al. 2021 (SimCSE), arXiv 2104.08821; Henderson et al. 2017, arXiv 1705.00652; margin as in bertorch and PaddleNLP.
        """
        import torch

        from bertune.distributed import all_gather, num_processes
        from bertune.losses.similarity import in_batch_negatives_loss

        others = range(1, len(out.pair_index.text_index))
        ids = [all_gather(out.pair_index.text_ids[place]) for place in out.pair_index.text_index]
        positive = torch.arange(len(ids[0]), device=ids[0].device)
        false = self._false(ids[0], torch.cat(ids[1:]), positive, learns=out.vectors.requires_grad)

        def loss(x: SentenceOutput) -> Tensor:
            candidates = torch.cat([all_gather(x.text_vectors(n)) for n in others])
            return in_batch_negatives_loss(
                all_gather(x.text_vectors(0)),
                candidates,
                positive,
                false,
                self.options.margin,
                self.options.scale,
                self.options.symmetric,
            )

        return self.matryoshka_loss(out, loss) / num_processes()

    def _false(
        self, anchors: torch.Tensor, candidates: torch.Tensor, positive: torch.Tensor, *, learns: bool
    ) -> torch.Tensor:
        """Return which candidates (B, N) are no negatives of a row, and count them where something is learnt."""
        from bertune.losses.similarity import false_negative_mask

        if not self.options.mask_false_negatives:
            return anchors.new_zeros((len(anchors), len(candidates)), dtype=bool)  # type: ignore[call-overload, no-any-return]
        false = false_negative_mask(anchors, candidates, positive)
        if learns:
            self._masked = false.sum() + (0 if self._masked is None else self._masked)
            self._compared += false.numel() - len(anchors)
        return false

    def report(self) -> list[str]:
        """Say how many negatives were left out since the last call."""
        masked, compared = 0 if self._masked is None else int(self._masked), self._compared
        self._masked, self._compared = None, 0
        if not masked:
            return []
        share = f"{masked} of {compared} in-batch negatives ({masked / compared:.2%})"
        return [f"{share} were left out, since they are the text itself or belong to it"]

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the cosine of each pair, with the vectors of all its texts where it has no score."""
        cosines = self.similarities(self.truncate(out)).tolist()
        if batch.target is not None:
            return [Prediction(value) for value in cosines]
        vectors = [
            self.truncate(out).text_vectors(n).cpu().numpy() for n in range(len(out.pair_index.text_index))
        ]
        return [
            Prediction(value, vectors=row)
            for value, row in zip(cosines, zip(*vectors, strict=True), strict=True)
        ]

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return what the rows give: correlation with scores, precision of labels, or how well partners are found among all of them."""
        kind = evaluation_kind(examples)
        main = METRICS[kind][0] if self.options.metric == "auto" else self.options.metric
        gold = [e.target for e in examples]
        if kind == "scores":
            return score_correlation(gold, predictions, main, intervals=intervals)
        if kind == "labels":
            return score_binary(gold, predictions, main, intervals=intervals)
        if kind == "texts":
            return Scores(main, False, {main: _uniformity(_directions(_vectors(p)[0] for p in predictions))})
        return _found(predictions, examples, main, intervals=intervals)

    def state(self) -> JSON:
        """Return what was learnt of the rows."""
        return {"form": self.texts_per_row, "lower": self.do_lower_case}

    def load_state(self, state: JSON) -> None:
        """Take back what was learnt of the rows."""
        self.texts_per_row, self.do_lower_case = state["form"], state["lower"]


def evaluation_kind(examples: Sequence[Example]) -> str:
    """Return what rows to be scored hold: scores, labels, search (queries and what they should find), or texts."""
    if _belong_together(examples):
        return "texts" if len(examples[0].texts) == 1 else "search"
    return "labels" if is_binary([e.target for e in examples]) else "scores"


def _belong_together(examples: Sequence[Example]) -> bool:
    return all(e.target in {None, 1} for e in examples)


def _texts_a_row(examples: Sequence[Example]) -> int:
    number = len(examples[0].texts)
    other = next((e for e in examples if len(e.texts) != number), None)
    if other is not None:
        raise DataError(
            f"{other.location}: has {len(other.texts)} texts, {examples[0].location} has {number}; rows of one split must have the same parts"
        )
    return number


def _vectors(prediction: Prediction) -> tuple[Any, ...]:
    return prediction.vectors or ()


def _found(
    predictions: Sequence[Prediction], examples: Sequence[Example], main: str, *, intervals: bool
) -> Scores:
    """Score a search: every different first text is a query, every other text a document, partners are what should be found."""
    queries: dict[str, Any] = {}
    documents: dict[str, Any] = {}
    relevant: dict[str, set[str]] = {}
    for prediction, example in zip(predictions, examples, strict=True):
        vectors = _vectors(prediction)
        queries.setdefault(example.texts[0], vectors[0])
        for text, vector in zip(example.texts[1:], vectors[1:], strict=True):
            documents.setdefault(text, vector)
        relevant.setdefault(example.texts[0], set()).add(example.texts[1])
    numbers = {text: n for n, text in enumerate(documents)}
    wanted = [{numbers[text] for text in relevant[query]} for query in queries]
    # A query that is a document too does not find itself, unless it should.
    itself = np.array([numbers.get(query, -1) if query not in relevant[query] else -1 for query in queries])
    found = retrieval_scores(
        _directions(queries.values()), _directions(documents.values()), wanted, excluded=itself
    )
    interval = (
        bootstrap_interval(lambda each: float(each.mean()), found.per_query[main]) if intervals else None
    )
    return Scores(main, True, found.values, {main: interval} if interval else {})


def _directions(vectors: Iterable[Any]) -> Any:
    stacked = np.stack(list(vectors))
    return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)


def _uniformity(vectors: Any) -> float:
    """Return how far vectors (n, E) of length 1 lie apart: log of the mean of exp(-2 * squared distance), of at most 2,000 of them.

    Source: Wang and Isola 2020, arXiv 2005.10242, equation 2.
    """
    some = vectors[:: -(-len(vectors) // 2000)]
    squared = 2 - 2 * (some @ some.T)[np.triu_indices(len(some), 1)]
    return float(np.log(np.exp(-2 * squared).mean())) if len(some) > 1 else 0.0
