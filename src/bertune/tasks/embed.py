"""Sentence vectors, learned from texts that belong together: SimCSE, in-batch negatives, hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertune.config.schema import DataConfig
from bertune.data.columns import RELATED_PAIRS, ColumnMapping
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.similarity import l2_normalize
from bertune.tasks.base.baselines import best_constant, constant_similarity
from bertune.tasks.base.candidates import Candidates, gather_candidates
from bertune.tasks.base.old_state import rename_keys
from bertune.tasks.base.pair_labels import has_nli_columns, look_like_classes, relatedness
from bertune.tasks.base.related import RowShape, are_single, check_negatives, note_pairs, read_related
from bertune.tasks.base.related_reader import RelatedReader
from bertune.tasks.base.search_scores import search_scores, text_vectors, uniformity
from bertune.tasks.base.sentence import (
    METRICS,
    SentenceOptions,
    SentenceTask,
    check_not_constant,
    is_binary,
    score_binary,
    score_correlation,
)
from bertune.tasks.base.task import Note
from bertune.types import (
    JSON,
    Baseline,
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
    from torch import Tensor

    from bertune.heads.sentence import SentenceOutput

_FORMAT_1_KEYS = {"form": "texts_per_row", "lower": "do_lower_case"}
_NOT_RELATED = "embed learns from pairs that belong together; leave such rows out ({drop}), or learn {match}"
_BY_MATCH = "from scores and labels with task match"


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
    columns: ClassVar[Columns] = Columns(
        ("text",),
        ("text_b", "negative"),
        "label",
        target_required=False,
        spreadable=("text", "text_b", "negative"),
        pair_aliases=RELATED_PAIRS,
        varying=("negative",),
    )
    shared_by_members: ClassVar[tuple[str, ...]] = (*SentenceTask.shared_by_members, "related_label")
    example_row: ClassVar[str] = '{"text": "How do I repay early?", "text_b": "Can I pay it back sooner?"}'
    uses_whole_batch = True
    search_space: ClassVar[JSON] = {
        **SentenceTask.search_space,
        "options.scale": {"log_uniform": [5.0, 50.0]},
        "options.margin": {"uniform": [0.0, 0.3]},
    }
    options: EmbedOptions

    def __init__(self, options: EmbedOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.texts_per_row = 2
        """1 for single texts, 2 for pairs, 3 where every training row has a hard negative too."""
        self.shape = RowShape()
        """How many texts the training rows have."""
        self.related_label = 1
        """The label of pairs that belong together: 0 for NLI data whose classes are numbers."""
        self._mapping: ColumnMapping = {}  # of the training rows, while the task learns from them
        self._counts: Tensor | None = None  # (4,) since the last report: see `_count`

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its score or label where it has one."""
        return read_related(row, self.columns.target)

    def new_reader(self) -> RelatedReader:
        """Return a reader that notices columns of texts that no field has."""
        return RelatedReader(self)

    def learn_columns(self, mapping: ColumnMapping) -> None:
        """Hear which columns the training rows come from; their names may say what labels mean."""
        super().learn_columns(mapping)
        self._mapping = mapping

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn how many texts a training row has."""
        for name in ("labels", "label_delimiter"):
            if getattr(self.data, name):
                raise ConfigError(
                    f"data.{name} is for labels, and embed learns from texts that belong together; "
                    "leave it out"
                )
        is_single = are_single(examples)
        self._set_shape(1 if is_single else 2, RowShape() if is_single else RowShape.of(examples))
        self._check_targets(examples, note)
        check_negatives(examples)
        if not is_single:
            note_pairs(examples, note)

    def _set_shape(self, texts_per_row: int, shape: RowShape) -> None:
        self.shape = shape
        self.texts_per_row = 3 if texts_per_row > 1 and shape.negatives[0] else texts_per_row
        self.min_batch_size = 1 if self.texts_per_row == 3 else 2

    def _check_targets(self, examples: Sequence[Example], note: Note) -> None:
        """Check that all training rows belong together.

        Where the classes of NLI data are numbers, 0 is entailment: the rows that are left when 1 and 2 are
        dropped.
        """
        mapping, self._mapping = self._mapping, {}
        targets = {e.target for e in examples}
        if targets == {0} and {"1", "2"} <= set(self.data.drop_labels or ()):
            self.related_label = 0
            note("pairs labelled 0 belong together (entailment), since data.drop_labels names 1 and 2")
        if targets == {1} and {"0", "2"} <= set(self.data.drop_labels or ()):
            note("pairs labelled 1 are taken for ones that belong together; in NLI data 1 is mostly neutral")
        unrelated = next((e for e in examples if self.relatedness_of(e) not in {None, 1}), None)
        if unrelated is None:
            return
        numbers = [t for t in targets if isinstance(t, int | float)]
        others = sorted({str(t) for t in targets if relatedness(t) not in {None, 1}})
        reason = f"the label is {_shown(unrelated.target)}, and"
        drop = f"data.drop_labels=[{','.join(others)}]"
        if len(others) > 3:  # these are scores
            drop = "with data.drop_labels"
        elif numbers and (has_nli_columns(mapping) or look_like_classes(numbers)):
            reason = f"the labels {listed(sorted(map(str, targets)))} look like classes;"
            drop = "data.drop_labels=[1,2] where 0 is entailment, as in most NLI data"
        fault = _NOT_RELATED.format(drop=drop, match=_BY_MATCH)
        if numbers and not has_nli_columns(mapping):
            fault += _without_label(mapping, self.columns.target)
        raise DataError(f"{unrelated.location}: {reason} {fault}")

    def relatedness_of(self, example: Example) -> Any:
        """Return the score of a pair; 1 or 0 for a label."""
        if self.related_label == 0 and isinstance(example.target, int | float):
            return int(example.target == 0)
        return relatedness(example.target)

    def describe(self) -> str:
        """Return one line about the training rows."""
        if self.texts_per_row == 1:
            return "sentence vectors from single texts, each with itself under another dropout (SimCSE)"
        return f"sentence vectors from {self.shape.describe()}"

    def check_scorable(self, examples: Sequence[Example]) -> None:
        """Check that rows have the same fields, that scores differ, and that the metric fits the rows."""
        are_single(examples)
        first = examples[0]
        source = first.location.source
        unlike = next((e for e in examples if (e.target is None) != (first.target is None)), None)
        if unlike is not None:
            raise DataError(
                f"{unlike.location}: has {'no' if unlike.target is None else 'a'} score, "
                f"unlike {first.location}; score all rows or none"
            )
        kind = self.evaluation_kind(examples)
        if kind in {"scores", "labels"}:
            gold = [self.relatedness_of(e) for e in examples]
            check_not_constant(gold, source, labels=kind == "labels")
        if kind == "scores" and self.options.metric == "auto" and look_like_classes(gold):
            labels = listed(sorted(map(str, set(gold))))
            raise DataError(
                f"{source}: the labels {labels} look like classes, such as those of NLI data; "
                "where a higher one says that texts are more alike, set options.metric=spearman"
            )
        if kind == "search" and len(examples) > 1 and len({t for e in examples for t in e.texts[1:]}) == 1:
            raise DataError(
                f"{source}: all {len(examples)} rows have the same text to find, so every search finds it; "
                "give rows with different ones"
            )
        if kind == "texts" and len({e.texts for e in examples}) < 2:
            raise DataError(
                f"{source}: there is only one text to score, so how far texts lie apart is not defined; "
                "give rows with different texts"
            )
        if self.options.metric not in {"auto", *METRICS[kind]}:
            raise ConfigError(
                f"options.metric={self.options.metric}: {source} gives {', '.join(METRICS[kind])}"
            )

    def evaluation_kind(self, examples: Sequence[Example]) -> str:
        """Return the kind of rows to score: scores, labels, search (queries and texts to find), or texts."""
        if self._belong_together(examples):
            return "texts" if len(examples[0].texts) == 1 else "search"
        return "labels" if is_binary([self.relatedness_of(e) for e in examples]) else "scores"

    def _belong_together(self, examples: Sequence[Example]) -> bool:
        return all(self.relatedness_of(e) in {None, 1} for e in examples)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return examples as token ids; pairs that belong together get no target: the loss needs none."""
        all_related = self._belong_together(examples)
        targets = [None if all_related else self.relatedness_of(e) for e in examples]
        examples = [replace(e, target=target) for e, target in zip(examples, targets, strict=True)]
        return super().encode(examples, tokenizer)

    def is_chunkable(self, examples: Sequence[Example]) -> bool:
        """Tell whether chunks are encoded as the whole is; a chunk of scored pairs may be all labelled 1."""
        return self._belong_together(examples)

    def build_encoded_example(self, encodings: tuple[Encoding, ...], example: Example) -> EncodedExample:
        """Return an encoded example; a single text is its own partner, by a second dropout pass (SimCSE)."""
        if len(encodings) == 1:
            return EncodedExample((encodings[0], encodings[0]), passes=True)
        context = example.num_positives if example.num_positives > 1 else None
        return EncodedExample(encodings, self.encode_target(example.target), context)

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of pairs that belong together; 0 for rows with scores, which the loss ignores."""
        return float(sum(_num_positives(batch))) if batch.target is None else 0.0

    def loss(self, out: SentenceOutput, batch: Batch) -> Tensor:
        """Return the loss, summed over the rows of all processes and divided by the number of processes.

        Sources: Gao et al. 2021 (SimCSE), arXiv 2104.08821; Henderson et al. 2017, arXiv 1705.00652; margin
        as in bertorch and PaddleNLP.
        """
        from bertune.distributed import num_processes
        from bertune.losses.similarity import in_batch_negatives_loss

        candidates = gather_candidates(out.pair_index, _num_positives(batch))
        left_out = self._left_out(candidates, count=out.vectors.requires_grad)

        def loss(x: SentenceOutput) -> Tensor:
            return in_batch_negatives_loss(
                candidates.anchors(x),
                candidates.vectors(x),
                candidates.positive,
                left_out,
                self.options.margin,
                self.options.scale,
                self.options.symmetric,
                self.similarity,
            )

        return self.matryoshka_loss(out, loss) / num_processes()

    def _left_out(self, candidates: Candidates, *, count: bool) -> Tensor:
        """Return which candidates (P, N) are no negatives of a pair; count them for `report`.

        These are false negatives, other texts that belong to the first one, and places without a text.
        """
        import torch

        from bertune.losses.similarity import false_negative_mask

        positive = candidates.positive
        false = torch.zeros(len(positive), len(candidates.absent), dtype=torch.bool, device=positive.device)
        if self.options.mask_false_negatives:
            anchor_ids = candidates.row_ids[candidates.row]
            false = false_negative_mask(anchor_ids, candidates.candidate_ids, positive)
        if candidates.has_several:
            false = false | candidates.of_same_row()
        left_out = false | candidates.absent
        if count:
            self._count(false & ~candidates.absent, left_out, candidates.absent)
        return left_out

    def _count(self, false: Tensor, left_out: Tensor, absent: Tensor) -> None:
        """Add up false negatives, candidates, pairs without any negative, and pairs."""
        import torch

        num_pairs = len(left_out)
        counts = torch.stack(
            [
                false.sum(),
                ((~absent).sum() - 1) * num_pairs,
                ((~left_out).sum(1) == 1).sum(),
                torch.full((), num_pairs, device=absent.device),
            ]
        )
        self._counts = counts if self._counts is None else self._counts + counts

    def report(self) -> list[str]:
        """Return how many negatives the loss left out since the last call, and pairs that had none."""
        counts, self._counts = self._counts, None
        if counts is None:
            return []
        masked, negatives, alone, pairs = counts.tolist()
        lines = []
        if masked:
            share = f"{masked} of {negatives} in-batch negatives ({masked / negatives:.2%})"
            lines.append(f"{share} were left out, since they are the text itself or belong to it")
        if alone:
            lines.append(
                f"{alone} of {pairs} pairs had no negative left in their batch, so nothing was learned from "
                "them; a larger train.batch_size gives them some"
            )
        return lines

    def decode(self, out: SentenceOutput, batch: Batch) -> list[Prediction]:
        """Return the similarity of each pair; also the vectors of its texts where it has no score."""
        truncated = self.truncate(out)
        similarities = self.similarities(truncated).tolist()
        if batch.target is not None:
            return [Prediction(value) for value in similarities]
        vectors = truncated.vectors.cpu().numpy()
        rows = zip(*(index.tolist() for index in out.pair_index.text_index), strict=True)
        return [
            Prediction(value, vectors=tuple(vectors[text] for text in row if text >= 0))
            for value, row in zip(similarities, rows, strict=True)
        ]

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return correlations for scores, average precision for labels 0 and 1, else scores of a search.

        For single texts the score is the uniformity of their vectors.
        """
        kind = self.evaluation_kind(examples)
        main = METRICS[kind][0] if self.options.metric == "auto" else self.options.metric
        gold = [self.relatedness_of(e) for e in examples]
        if kind == "scores":
            return score_correlation(gold, predictions, main, intervals=intervals)
        if kind == "labels":
            return score_binary(gold, predictions, main, intervals=intervals)
        if kind == "texts":
            vectors = l2_normalize(np.stack([text_vectors(p)[0] for p in predictions]))
            return Scores(main, False, {main: uniformity(vectors)})
        return search_scores(predictions, examples, main, self.similarity, intervals=intervals)

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what one similarity for all pairs scores; None for rows without scores and labels."""
        if self.evaluation_kind(examples) not in {"scores", "labels"}:
            return None
        targets = [self.relatedness_of(e) for e in examples]
        return best_constant(self, examples, constant_similarity(targets))

    def state(self) -> JSON:
        """Return what training rows are like, and how texts and vectors are treated."""
        return {
            **super().state(),
            "texts_per_row": self.texts_per_row,
            "positives": list(self.shape.positives),
            "negatives": list(self.shape.negatives),
            "related_label": self.related_label,
            "text_columns": list(self.text_columns),
        }

    def load_state(self, state: JSON) -> None:
        """Restore what `state` returned."""
        state = rename_keys(state, _FORMAT_1_KEYS)
        super().load_state(state)
        negatives = [1, 1] if state["texts_per_row"] == 3 else [0, 0]
        (least, most), (fewest, largest) = state.get("positives", [1, 1]), state.get("negatives", negatives)
        self._set_shape(state["texts_per_row"], RowShape((least, most), (fewest, largest)))
        self.related_label = state.get("related_label", 1)
        self.text_columns = tuple(state.get("text_columns", ()))


def _num_positives(batch: Batch) -> list[int]:
    """Return for each row how many texts belong to its first one."""
    return [context or 1 for context in batch.contexts] or [1] * len(batch.rows)


def _without_label(mapping: ColumnMapping, target: str) -> str:
    """Return how to leave a label unread that says something else, such as the votes for a question."""
    text, other, label = (mapping.get(field) for field in ("text", "text_b", target))
    if not all(isinstance(name, str) for name in (text, other, label)):
        return ""
    return (
        f"; if column {label!r} does not say whether texts belong together: "
        f"data.columns={{text: {text}, text_b: {other}, {target}: _}}"
    )


def _shown(target: Any) -> str:
    return repr(target) if isinstance(target, str) else f"{target:g}"
