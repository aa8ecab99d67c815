"""A label for each word: entities in texts, by a linear layer or a CRF."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bertune.config.schema import DataConfig, Section
from bertune.data.entities import WordOffsets, WordUnit, get_entities, get_sentence
from bertune.data.labels import read_labels, sort_labels, unknown_label_error
from bertune.data.tags import (
    Scheme,
    TagCounts,
    WordSpan,
    is_transition_allowed,
    parse_tag,
    spans_to_tags,
    tag_set,
    tags_to_spans,
)
from bertune.errors import ConfigError, DataError, listed
from bertune.metrics.bootstrap import bootstrap_interval
from bertune.metrics.classification import per_label_scores
from bertune.metrics.spans import SpanCounts, count_spans, span_scores
from bertune.tasks.base.task import Note, Task
from bertune.types import (
    JSON,
    Batch,
    Columns,
    EncodedExample,
    Encoder,
    Entity,
    Example,
    Prediction,
    Row,
    Scores,
    Span,
    Tokenizer,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bertune.heads.crf import CRFPotentials


class TagOptions(Section):
    """Settings of sequence labelling."""

    decoder: Literal["linear", "crf"] = "linear"
    """`linear`: each word is judged by itself. `crf`: labels that follow each other are judged together, by scores that are learnt.
    Both predict the best legal chain of tags."""
    crf_learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Peak learning rate of the scores of a CRF. They begin at 0 and must come to several units in one run, so it is far above the
    encoder's."""
    scheme: Literal["auto", "BIO", "BIOS", "BIOES", "BMES"] = "auto"
    """The tags that the model works with; files may have any scheme. `auto`: as the training file has them, BIO for IOB1 and for spans."""
    units: Literal["auto", "words", "characters"] = "auto"
    """How a plain text is cut: `characters` one by one; `words` are runs of letters and digits, other characters one by one. `auto`:
    characters where the training rows are cut into characters, else words."""
    window_overlap: Annotated[int, Field(ge=0)] = 128
    """Tokens that two windows of a text longer than `data.max_length` share, at most half a window."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in the head; without it what the encoder's config.json says."""
    metric: Literal["f1", "f1_macro", "boundary_f1", "type_f1"] = "f1"
    """The figure that decides which checkpoint is best."""


class Tag(Task):
    """Find entities: a label for each word of a text."""

    Options = TagOptions
    columns: ClassVar[Columns] = Columns(
        ("text",),
        (),
        "label",
        ("tokens", "words", "chars", "characters"),
        ("tags", "nertags", "entities", "spans"),
        is_word_level=True,
    )
    example_row: ClassVar[str] = (
        '{"text": "Anna moved to Oslo.", "spans": [{"start": 0, "end": 4, "label": "person"}]}'
    )
    learnt: ClassVar[tuple[str, ...]] = ("entity_types", "scheme", "unit")
    hf_auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    pipeline_tag: ClassVar[str] = "token-classification"

    def __init__(self, options: TagOptions, data: DataConfig) -> None:
        super().__init__(options, data)
        self.entity_types: tuple[str, ...] = ()
        self.scheme: Scheme = "BIO"
        self.unit: WordUnit = "characters" if options.units == "characters" else "words"
        self._census: dict[str, TagCounts] = {}
        self._given: Counter[bool] = Counter()  # words that rows are cut into: of one character or not
        self._found: Counter[str] = Counter()

    @property
    def tags(self) -> list[str]:
        """Return every tag in the order of its id."""
        return tag_set(self.entity_types, self.scheme)

    def read(self, row: Row) -> Example:
        """Read a text, its words and its entities."""
        target = self.columns.target
        text, words, given = get_sentence(row, "text", target, self.unit)
        census = self._census.setdefault(row.location.source, TagCounts())
        spans = get_entities(row, target, text, words, census)
        if given:
            self._given.update(end - start == 1 for start, end in words)
        return Example((text,), spans, row.location, words)

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Learn the types of entities, the scheme, and what a word is."""
        for name in ("label_delimiter", "drop_labels"):
            if getattr(self.data, name):
                raise ConfigError(f"data.{name} is for labels of whole texts; leave it out")
        counts = Counter(span.label for e in examples for span in e.target)
        stated = read_labels(self.data.labels)
        self.entity_types = (
            tuple(dict.fromkeys(filter(None, (s if s in counts else _type_of(s) for s in stated))))
            if stated
            else sort_labels(counts)
        )
        if not counts:
            raise DataError(f"{examples[0].location.source}: no row has an entity; there is nothing to learn")
        for example in examples:
            self.check(example)
        unseen = [label for label in self.entity_types if label not in counts]
        if unseen:
            note(
                f"labels without an entity in the training rows: {listed(unseen)}; the model cannot learn them"
            )
        self._learn_scheme(examples[0].location.source, note)
        single = self._given[True] > 0.95 * self._given.total() > 0
        if self.options.units == "auto":
            self.unit = "characters" if single else "words"
        because = "as the training rows are" if self._given else "since no training row says what a word is"
        because = because if self.options.units == "auto" else "as options.units says"
        note(f"plain texts are cut into {self.unit}, {because}")

    def _learn_scheme(self, source: str, note: Note) -> None:
        census = self._census.get(source, TagCounts())
        found: Scheme = census.detect_scheme() if census.prefixes.keys() - {"O"} else "BIO"
        found = "BIO" if found == "IOB1" else found
        self.scheme = found if self.options.scheme == "auto" else self.options.scheme
        for line in self._schemes():
            note(line)

    def _schemes(self) -> list[str]:
        """Say which schemes the files read since the last call have."""
        census, self._census = self._census, {}
        return [found.describe(name) for name, found in census.items() if found.prefixes]

    def describe(self) -> str:
        """Say what is looked for, and with which tags."""
        head = {"linear": "a linear layer", "crf": "a CRF"}[self.options.decoder]
        return f"sequence labelling with {head}; {len(self.entity_types)} types: {listed(self.entity_types)}, {len(self.tags)} tags in {self.scheme}"

    def check(self, example: Example) -> None:
        """Refuse a type that the training rows do not have."""
        for span in example.target or ():
            if span.label not in self.entity_types:
                first = bisect_right([start for start, _ in example.words or ()], span.start) - 1
                raise unknown_label_error(
                    example, span.label, self.entity_types, str(example.location.at_word(max(first, 0)))
                )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[EncodedExample]:
        """Turn words into ids, and entities into a tag for each word that has any."""
        overlap = min(self.options.window_overlap, tokenizer.max_length // 2)
        pieces = tokenizer.encode_words([(e.texts[0], e.words or ()) for e in examples], overlap)
        ids = {tag: number for number, tag in enumerate(self.tags)}
        encoded = []
        for example, (piece, present) in zip(examples, pieces, strict=True):
            words: WordOffsets = example.words or ()
            target = None
            if example.target is not None:
                spans = self._on_words(example.target, [words[n] for n in present])
                target = [ids[tag] for tag in spans_to_tags(spans, len(present), self.scheme)]
            self._count(piece.window_lengths or (), len(words) - len(present))
            encoded.append(EncodedExample((piece,), target, (example.texts[0], words, present)))
        return encoded

    def _on_words(self, spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> list[WordSpan]:
        """Return the words that each entity covers; what does not fit words is counted."""
        starts, ends = [start for start, _ in words], [end for _, end in words]
        found: list[WordSpan] = []
        self._found["entities"] += len(spans)
        for span in spans:
            first = max(bisect_right(ends, span.start), found[-1][1] if found else 0)
            last = bisect_left(starts, span.end)
            if first >= last:
                self._found["lost"] += 1
                continue
            self._found["inexact"] += (starts[first], ends[last - 1]) != span[:2]
            found.append((first, last, span.label))
        return found

    def _count(self, windows: Sequence[int], without_tokens: int) -> None:
        self._found["rows"] += 1
        self._found["long"] += len(windows) > 1
        self._found["windows"] += len(windows) if len(windows) > 1 else 0
        self._found["without tokens"] += without_tokens

    def report(self) -> list[str]:
        """Say what did not fit when rows were encoded, and begin anew."""
        found, self._found = self._found, Counter()
        lines = self._schemes()
        if found["long"]:
            lines.append(
                f"{found['long']} of {found['rows']} texts are longer than max_length and are read in {found['windows']} windows"
            )
        if found["inexact"]:
            lines.append(
                f"{found['inexact']} of {found['entities']} entities begin or end inside a word, or at a blank: learnt as the whole word, "
                "and scored as they are, so they count as missed; options.units=characters may help"
            )
        if found["lost"]:
            lost = f"{found['lost']} of {found['entities']} entities"
            lines.append(f"{lost} have no word of their own: they cannot be learnt, and count as missed")
        if found["without tokens"]:
            blank = f"{found['without tokens']} words are blank, or nothing to the tokenizer"
            lines.append(f"{blank}: they belong to the entity around them, or to none")
        return lines

    def collate_target(self, targets: list[Any]) -> Any:
        """Return the tag ids of all words of the batch (M,)."""
        import torch

        return torch.tensor([tag for target in targets for tag in target], dtype=torch.int64)

    def head(self, encoder: Encoder, pretrained: dict[str, Tensor]) -> nn.Module:
        """Build the head that transformers gives the architecture, with or without a CRF on it."""
        from bertune.encoders.names import TOKEN_DROPOUT_KEYS, token_classification_class
        from bertune.heads.token import TokenHead

        dropout = self.options.dropout
        names = TOKEN_DROPOUT_KEYS.get(encoder.model_type, ())
        if dropout is None:
            stated = (encoder.hf_config().get(name) for name in names)
            dropout = next((value for value in stated if value is not None), 0.1)
        crf = self.options.decoder == "crf"
        head = TokenHead(encoder.hidden_size, self._legal(), crf=crf, dropout=dropout)
        head.hf_class, head.dropout_config_key = (
            token_classification_class(encoder.model_type) or "",
            names[0] if names else "",
        )
        head.learning_rates = {"crf": self.options.crf_learning_rate}
        return head

    def _legal(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return which pairs of tags are legal (N, N), which first ones, and which last ones (N,)."""
        import torch

        tags = [parse_tag(tag) for tag in self.tags]
        return (
            torch.tensor([[is_transition_allowed(self.scheme, a, b) for b in tags] for a in tags]),
            torch.tensor([is_transition_allowed(self.scheme, None, tag) for tag in tags]),
            torch.tensor([is_transition_allowed(self.scheme, tag, None) for tag in tags]),
        )

    def loss(self, out: CRFPotentials, batch: Batch) -> Tensor:
        """Return the loss summed over words."""
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
        """Return the symmetric divergence of the tags of each word, summed."""
        from bertune.losses.classification import symmetric_kl

        return symmetric_kl(out.emissions, other.emissions)

    def decode(self, out: CRFPotentials, batch: Batch) -> list[Prediction]:
        """Return the entities of the best legal chain of each text, each with the probability that its words have just these tags."""
        import torch

        from bertune.heads.crf import span_log_probability, viterbi

        lengths = batch.ragged.num_words
        best = viterbi(out, lengths)
        read = [parse_tag(tag) for tag in self.tags]
        ids = best.tolist()
        found: list[list[WordSpan]] = []
        begins, begin = [], 0
        for length in lengths:
            found.append(tags_to_spans([read[n] for n in ids[begin : begin + length]]))
            begins.append(begin)
            begin += length
        edges = [
            (b + start, b + end - 1)
            for b, spans in zip(begins, found, strict=True)
            for start, end, _ in spans
        ]
        firsts, lasts = torch.tensor(edges, dtype=torch.int64, device=best.device).reshape(-1, 2).unbind(1)
        sure = iter(span_log_probability(out, lengths, best, firsts, lasts).exp().tolist())
        return [
            self._prediction(spans, context, [next(sure) for _ in spans])
            for spans, context in zip(found, batch.contexts, strict=True)
        ]

    def _prediction(
        self, spans: list[WordSpan], context: tuple[str, WordOffsets, list[int]], sure: list[float]
    ) -> Prediction:
        text, words, present = context
        whole = [(present[start], present[end - 1] + 1, label) for start, end, label in spans]
        entities = []
        for (start, end, label), confidence in zip(whole, sure, strict=True):
            a, b = words[start][0], words[end - 1][1]
            entities.append(Entity(a, b, label, text[a:b], confidence))
        tags = spans_to_tags(whole, len(words), self.scheme)
        return Prediction(
            tuple(entities), tags=tuple((text[a:b], tag) for (a, b), tag in zip(words, tags, strict=True))
        )

    def score(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, intervals: bool = True
    ) -> Scores:
        """Compare entities: right are those with the same start, end and label."""
        gold = [list(e.target) for e in examples]
        predicted = [[(e.start, e.end, e.label) for e in p.value] for p in predictions]  # type: ignore[union-attr]
        counts = count_spans(gold, predicted, self.entity_types)
        main = self.options.metric
        found = None
        if intervals:
            found = bootstrap_interval(lambda *c: span_scores(SpanCounts(*c))[main], *counts)
        per_label = per_label_scores(self.entity_types, *(c.sum(0) for c in counts[:3]))
        return Scores(main, True, span_scores(counts), {main: found} if found else {}, per_label)

    def example_labels(self, example: Example) -> tuple[str, ...]:
        """Return the types of the entities of a text."""
        return tuple(span.label for span in example.target)

    def stratify_key(self, example: Example) -> str:
        """Return which types of entities a text has."""
        return "\0".join(sorted(set(self.example_labels(example))))

    def state(self) -> JSON:
        """Return types, scheme and unit."""
        return {"types": list(self.entity_types), "scheme": self.scheme, "unit": self.unit}

    def load_state(self, state: JSON) -> None:
        """Take back types, scheme and unit."""
        self.entity_types, self.scheme, self.unit = tuple(state["types"]), state["scheme"], state["unit"]

    def hf_config(self, head: Any) -> JSON:
        """Give transformers the names of the tags."""
        tags = self.tags
        config: JSON = {
            "id2label": {str(n): tag for n, tag in enumerate(tags)},
            "label2id": {tag: n for n, tag in enumerate(tags)},
        }
        if not head.hf_class:
            return {**config, "architectures": None}
        return {**config, "architectures": [head.hf_class], head.dropout_config_key: head.dropout.p}

    def hf_incompatibility(self, head: Any) -> str:
        """Say why transformers cannot open the head, or nothing."""
        return "" if head.hf_class else "transformers has no head for tokens of this architecture"

    def ignored_by_hf(self, head: Any) -> str:
        """Say what transformers leaves out of a CRF."""
        words = "a word is judged at its first token"
        if self.options.decoder == "linear":
            return f"{words}, and only legal chains of tags are predicted: bertune.load does both"
        return (
            f"{words}, and the CRF's scores of pairs, first and last tags lie beside the head as bertune_head.crf.* in model.safetensors: "
            "transformers computes the scores of single tags alone (the emissions), bertune.load all of it"
        )


def _type_of(stated: str) -> str:
    """Return the type of an entry of data.labels, which may be a tag or a type; nothing for O."""
    try:
        return parse_tag(stated)[1]
    except DataError:
        return stated
