"""A label for each word: entities in texts, by a linear layer or a CRF."""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bertune.config.auto_rates import TaskRates
from bertune.config.schema import DataConfig
from bertune.config.tuning import TRAIN_SPACE
from bertune.data.entities import WordOffsets, WordUnit, get_entities, get_sentence
from bertune.data.labels import read_labels, sort_labels, unknown_label_error
from bertune.data.tags import (
    Scheme,
    TagCounts,
    WordSpan,
    is_transition_allowed,
    parse_model_tag,
    read_tag,
    spans_to_tags,
    tag_set,
    tags_to_spans,
)
from bertune.data.word_rows import SENTENCE_ID
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import per_label_scores
from bertune.metrics.spans import SpanCounts, count_spans, count_tags, span_scores, tag_scores
from bertune.tasks.base.baselines import Sign, best_constant, constant_tags, entity_signs, no_entities
from bertune.tasks.base.head_outputs import TAGS, HeadOutputs
from bertune.tasks.base.old_state import rename_keys
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.tag_options import TagOptions
from bertune.tasks.base.tag_reader import TagReader, refuse_single_text
from bertune.tasks.base.task import Note, Task
from bertune.tasks.base.word_fit import WordFit
from bertune.types import (
    JSON,
    Baseline,
    Batch,
    Columns,
    EncodedExample,
    Encoder,
    Entity,
    Example,
    Prediction,
    Row,
    Scores,
    Tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from bertune.heads.crf import CRFPotentials

_FORMAT_1_KEYS = {"types": "entity_types"}
MIN_SINGLE_CHARACTERS = 0.95
"""Share of words of one character above which rows count as cut into characters."""


class Tag(Task):
    """Find entities: a label for each word of a text."""

    Options = TagOptions
    columns: ClassVar[Columns] = Columns(
        ("text",),
        (SENTENCE_ID,),
        "label",
        ("tokens", "words", "chars", "characters"),
        ("tags", "nertags", "entities", "spans", "ents"),
        is_word_level=True,
    )
    example_row: ClassVar[str] = (
        '{"text": "Anna moved to Oslo.", "spans": [{"start": 0, "end": 4, "label": "person"}]}'
    )
    shared_by_members: ClassVar[tuple[str, ...]] = (
        *("entity_types", "scheme", "unit", "options.decoder", "options.window_overlap"),
    )
    hf_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline_tag: ClassVar[str] = "token-classification"

    auto_rates: ClassVar[TaskRates] = TaskRates(head=1e-2)  # few words have a label other than O
    search_space: ClassVar[JSON] = {
        **TRAIN_SPACE,
        "options.decoder": {"choice": ["linear", "crf"]},
        "options.crf_learning_rate": {"log_uniform": [1e-3, 1e-1], "when": {"options.decoder": "crf"}},
    }
    row_options: ClassVar[frozenset[str] | None] = frozenset({"scheme", "units", "window_overlap"})

    def __init__(self, options: TagOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.entity_types: tuple[str, ...] = ()
        self.scheme: Scheme = "BIO" if options.scheme == "auto" else options.scheme
        self.unit: WordUnit = "characters" if options.units == "characters" else "words"
        self._word_fit = WordFit()
        self._tag_names: tuple[str, ...] = ()

    @property
    def tags(self) -> list[str]:
        """Return all tags, in the order of their ids."""
        return tag_set(self.entity_types, self.scheme)

    def head_outputs(self) -> HeadOutputs:
        """Return that outputs are tags, M of BMES as I."""
        tags = (re.sub("^M-", "I-", tag) if self.scheme == "BMES" else tag for tag in self.tags)
        return HeadOutputs(TAGS, tuple(tags), by_position=self._tag_names)

    def read(self, row: Row) -> Example:
        """Return the text of a row, its words and its entities."""
        target = self.columns.target
        text, words, _ = get_sentence(row, "text", target, self.unit)
        entities = get_entities(row, target, text, words, self.scheme, self.tag_names)
        return Example((text,), entities, row.location, words)

    def tag_names(self) -> tuple[str, ...]:
        """Return the names of tags by position, for files that write numbers; () where nothing names them."""
        return self._tag_names or _read_names(self.data.labels)

    def new_reader(self) -> RowReader:
        """Return a reader that counts tags and words, for scheme and unit."""
        _read_names_once.cache_clear()  # the file may have changed
        return TagReader(self, self)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the types of entities. `fit_files` learns the scheme and what a word is."""
        for name in ("label_delimiter", "drop_labels"):
            if getattr(self.data, name):
                raise ConfigError(f"data.{name} is for labels of whole texts; leave it out")
        refuse_single_text(examples, self.data)
        counts = Counter(span.label for e in examples for span in e.target)
        given = self._tag_names = read_labels(self.data.labels) or ()
        if given:
            types = (label if label in counts else self._entity_type(label) for label in given)
            self.entity_types = tuple(dict.fromkeys(filter(None, types)))
        else:
            self.entity_types = sort_labels(counts)
        if not counts:
            raise DataError(f"{examples[0].location.source}: no row has an entity; there is nothing to learn")
        for example in examples:
            self.check(example)
        unseen = [label for label in self.entity_types if label not in counts]
        if unseen:
            labels = f"labels without an entity in the training rows: {listed(unseen)}"
            note(f"{labels}; the model cannot learn them")

    def refit(self, examples: Sequence[Example], note: Note, options: Any = None) -> Self:
        """Return a copy that has learned from a part of the rows; it knows all types."""
        task = super().refit(examples, note, options)
        task.entity_types, task._tag_names = self.entity_types, self._tag_names
        return task

    def _entity_type(self, label: str) -> str:
        """Return the type of an entry of data.labels, which may be a tag or a type; "" for O."""
        try:
            return read_tag(label, self.scheme)[1]
        except DataError:
            return label

    def fit_files(self, tag_counts: TagCounts, single_character: Counter[bool], note: Note) -> None:
        """Learn the scheme and what a word is, from what files show beyond the entities of their rows.

        Args:
            tag_counts: the tags of the training file, as it writes them.
            single_character: how many words have one character, and how many not, in rows that define words.
            note: called with each line that a user should see.
        """
        if self.options.scheme == "auto":
            scheme = tag_counts.detect_scheme() if tag_counts.prefixes.keys() - {"O"} else "BIO"
            self.scheme = "BIO" if scheme == "IOB1" else scheme
        reason = "as options.units says"
        if self.options.units == "auto":
            total = single_character.total()
            single = single_character[True] > MIN_SINGLE_CHARACTERS * total > 0
            self.unit = "characters" if single else "words"
            reason = "as the training rows are" if total else "since no training row says what a word is"
        note(f"plain texts are cut into {self.unit}, {reason}")

    def describe(self) -> str:
        """Return one line about the types, the tags and the head."""
        head = {"linear": "a linear layer", "crf": "a CRF"}[self.options.decoder]
        if self.scheme == "none":
            return f"one tag a word with {head}; {len(self.tags)} tags: {listed(self.tags)}"
        types = f"{len(self.entity_types)} types: {listed(self.entity_types)}"
        return f"sequence labelling with {head}; {types}, {len(self.tags)} tags in {self.scheme}"

    def check(self, example: Example) -> None:
        """Check that the types of entities are among those learned."""
        for span in example.target or ():
            if span.label not in self.entity_types:
                word = bisect_right([start for start, _ in example.words or ()], span.start) - 1
                location = str(example.location.at_word(max(word, 0)))
                raise unknown_label_error(example, span.label, self.entity_types, location)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Return words as token ids, and entities as a tag id for each word that has tokens."""
        overlap = min(self.options.window_overlap, tokenizer.max_length // 2)
        encodings = tokenizer.encode_words([(e.texts[0], e.words or ()) for e in examples], overlap)
        tag_ids = {tag: number for number, tag in enumerate(self.tags)}
        encoded = []
        for example, (encoding, word_ids) in zip(examples, encodings, strict=True):
            words: WordOffsets = example.words or ()
            target = None
            if example.target is not None:
                spans = self._word_fit.to_word_spans(example.target, [words[n] for n in word_ids])
                target = [tag_ids[tag] for tag in spans_to_tags(spans, len(word_ids), self.scheme)]
            self._word_fit.add_row(encoding.window_lengths or (), len(words) - len(word_ids))
            encoded.append(EncodedExample((encoding,), target, (example.texts[0], words, word_ids)))
        return encoded

    def report(self) -> list[str]:
        """Return what did not fit when rows were encoded, since the last call."""
        return self._word_fit.report()

    def collate_target(self, targets: list[Any]) -> Any:
        """Return the tag ids of all words of the batch, (M,)."""
        import torch

        return torch.tensor([tag for target in targets for tag in target], dtype=torch.int64)

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Return the head that transformers gives the architecture, with or without a CRF."""
        from bertune.encoders.architectures import token_classification_class, token_dropout_keys
        from bertune.heads.token import TokenHead

        dropout = self.options.dropout
        dropout_keys = token_dropout_keys(encoder.model_type)
        if dropout is None:
            rates = (encoder.hf_config().get(key) for key in dropout_keys)
            dropout = next((rate for rate in rates if rate is not None), 0.1)
        return TokenHead(
            encoder.hidden_size,
            self._legal_tags(),
            crf=self.options.decoder == "crf",
            dropout=dropout,
            crf_learning_rate=self.options.crf_learning_rate,
            hf_class=token_classification_class(encoder.model_type) or "",
            dropout_config_key=dropout_keys[0] if dropout_keys else "",
            model_type=encoder.model_type,
        )

    def _legal_tags(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return which pairs of tags (N, N), first tags (N,) and last tags (N,) are legal, as bool."""
        import torch

        tags = [parse_model_tag(tag, self.scheme) for tag in self.tags]
        return (
            torch.tensor([[is_transition_allowed(self.scheme, a, b) for b in tags] for a in tags]),
            torch.tensor([is_transition_allowed(self.scheme, None, tag) for tag in tags]),
            torch.tensor([is_transition_allowed(self.scheme, tag, None) for tag in tags]),
        )

    def loss(self, out: CRFPotentials, batch: Batch) -> Tensor:
        """Return the loss, summed over words."""
        from bertune.heads.crf import negative_log_likelihood
        from bertune.losses.classification import cross_entropy

        if batch.target is None:
            raise DataError("a loss needs the entities of all rows")
        if self.options.decoder == "crf":
            return negative_log_likelihood(out, batch.ragged.num_words, batch.target)
        return cross_entropy(out.emissions, batch.target)

    def loss_denominator(self, batch: Batch) -> float:
        """Return the number of words."""
        return float(max(1, sum(batch.ragged.num_words)))

    def divergence(self, out: CRFPotentials, other: CRFPotentials) -> Tensor:
        """Return the symmetric Kullback-Leibler divergence of the tags of each word, summed."""
        from bertune.losses.classification import symmetric_kl

        return symmetric_kl(out.emissions, other.emissions)

    def mean_output(self, outputs: Sequence[CRFPotentials]) -> CRFPotentials:
        """Return potentials of the mean probabilities of words; with a CRF the mean potentials."""
        from bertune.tasks.base.ensembling import mean_chain

        return mean_chain(outputs, crf=self.options.decoder == "crf")

    def decode(self, out: CRFPotentials, batch: Batch) -> list[Prediction]:
        """Return the entities of each text's best legal sequence of tags.

        The confidence of an entity is the probability that its words have just these tags.
        """
        import torch

        from bertune.heads.crf import span_log_probability, viterbi

        num_words = batch.ragged.num_words
        best = viterbi(out, num_words)
        tags = [parse_model_tag(tag, self.scheme) for tag in self.tags]
        tag_ids = best.tolist()
        offsets = [0, *itertools.accumulate(num_words)]
        spans = [
            tags_to_spans([tags[n] for n in tag_ids[begin:end]]) for begin, end in itertools.pairwise(offsets)
        ]
        edges = [
            (offset + start, offset + end - 1)
            for offset, row_spans in zip(offsets, spans, strict=False)
            for start, end, _ in row_spans
        ]
        firsts, lasts = torch.tensor(edges, dtype=torch.int64, device=best.device).reshape(-1, 2).unbind(1)
        confidences = iter(span_log_probability(out, num_words, best, firsts, lasts).exp().tolist())
        return [
            self._prediction(row_spans, context, [next(confidences) for _ in row_spans])
            for row_spans, context in zip(spans, batch.contexts, strict=True)
        ]

    def _prediction(
        self,
        spans: list[WordSpan],
        context: tuple[str, WordOffsets, list[int]],
        confidences: list[float],
    ) -> Prediction:
        """Return the prediction of a text; `spans` count words that have tokens, see `encode`."""
        text, words, word_ids = context
        word_spans = [(word_ids[start], word_ids[end - 1] + 1, label) for start, end, label in spans]
        entities = []
        for (start, end, label), confidence in zip(word_spans, confidences, strict=True):
            a, b = words[start][0], words[end - 1][1]
            entities.append(Entity(a, b, label, text[a:b], confidence))
        tags = spans_to_tags(word_spans, len(words), self.scheme)
        return Prediction(
            tuple(entities), tags=tuple((text[a:b], tag) for (a, b), tag in zip(words, tags, strict=True))
        )

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Return precision, recall and F1 of entities; right are those with the same start, end and label."""
        gold = [list(e.target) for e in examples]
        predicted = [
            [(e.start, e.end, e.label) for e in p.value]  # type: ignore[union-attr]
            for p in predictions
        ]
        if self.scheme == "none":
            counts, figures = count_tags(gold, predicted, self.entity_types), tag_scores
        else:
            counts, figures = count_spans(gold, predicted, self.entity_types), span_scores
        is_accuracy = self.scheme == "none" and self.options.metric == "f1"
        main = "accuracy" if is_accuracy else self.options.metric
        interval = None
        if intervals:
            interval = bootstrap_interval(lambda *c: figures(SpanCounts(*c))[main], *counts)
        per_label = per_label_scores(self.entity_types, *(c.sum(0) for c in counts[:3]))
        return Scores(main, True, figures(counts), {main: interval} if interval else {}, per_label)

    def baseline(self, examples: Sequence[Example]) -> Baseline | None:
        """Return what no entity at all, or the most frequent tag for every word, scores."""
        constants = constant_tags(examples) if self.scheme == "none" else no_entities(examples)
        return best_constant(self, examples, constants)

    def unlearnt_signs(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Sign]:
        """Return that no entity is predicted, or how many are."""
        return entity_signs(predictions, examples)

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the types of the entities of a text."""
        return tuple(span.label for span in example.target)

    def stratify_key(self, example: Example) -> str:
        """Return the types of entities of a text; nothing for one tag a word, where most texts have most."""
        if self.scheme == "none":
            return ""
        return "\0".join(sorted(set(self.example_labels(example))))

    def state(self) -> JSON:
        """Return types, scheme and unit, and the names of numbers that stand for tags."""
        state: JSON = {"entity_types": list(self.entity_types), "scheme": self.scheme, "unit": self.unit}
        return {**state, "tag_names": list(self._tag_names)} if self._tag_names else state

    def load_state(self, state: JSON) -> None:
        """Restore types, scheme and unit."""
        state = rename_keys(state, _FORMAT_1_KEYS)
        self.entity_types = tuple(state["entity_types"])
        self.scheme, self.unit = state["scheme"], state["unit"]
        self._tag_names = tuple(state.get("tag_names", ()))

    def hf_config(self, head: Any) -> JSON:
        """Return the head's part of config.json, with the names of the tags."""
        tags = self.tags
        config: JSON = {
            "id2label": {str(n): tag for n, tag in enumerate(tags)},
            "label2id": {tag: n for n, tag in enumerate(tags)},
        }
        if not head.hf_class:
            return {**config, "architectures": None}
        return {**config, "architectures": [head.hf_class], head.dropout_config_key: head.dropout.p}

    def hf_incompatibility(self, head: Any) -> str:
        """Return why transformers cannot open the head, or ""."""
        return str(head.hf_incompatibility())

    def ignored_by_hf(self, head: Any) -> str:
        """Return what transformers ignores of windows, words and a CRF."""
        words = "a word is judged at its first token"
        if self.options.decoder == "linear":
            return f"{words}, and only legal sequences of tags are predicted: bertune.load does both"
        return (
            f"{words}, and the CRF's scores of pairs, first and last tags are beside the head, as "
            "bertune_head.crf.* in model.safetensors: transformers computes the scores of single tags alone "
            "(the emissions), bertune.load all of it"
        )


def _read_names(labels: list[str] | str | None) -> tuple[str, ...]:
    return _read_names_once(tuple(labels) if isinstance(labels, list) else labels)


@functools.lru_cache(maxsize=8)  # rows ask for them one by one
def _read_names_once(labels: tuple[str, ...] | str | None) -> tuple[str, ...]:
    return read_labels(list(labels) if isinstance(labels, tuple) else labels) or ()
