"""Schemes: spans to tags and back, what seqeval reads, what is legal; entity figures beside seqeval's."""

from __future__ import annotations

import itertools
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune import metrics
from bertune.data.tags import TagCensus, is_legal, parse_tag, spans_of, tags_of
from bertune.errors import DataError

SCHEMES = ("IOB1", "BIO", "BIOS", "BIOES", "BMES")
TYPES = ("PER", "LOC.NAM", "a-b")


@st.composite
def sentences(draw):
    """Entities that do not overlap, and the number of words."""
    spans, place = [], 0
    for gap, length, kind in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(TYPES)), max_size=6)):
        spans.append((place + gap, place + gap + length, kind))
        place += gap + length
    return spans, place + draw(st.integers(0, 2))


def read(tags):
    return [parse_tag(tag) for tag in tags]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(sentences())
def test_spans_become_tags_and_spans_again(scheme, sentence):
    spans, words = sentence
    tags = tags_of(spans, words, scheme)
    assert len(tags) == words
    assert spans_of(read(tags)) == spans
    edged = [None, *read(tags), None]
    assert all(is_legal(scheme, a, b) for a, b in itertools.pairwise(edged))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.lists(sentences(), min_size=1, max_size=8))
def test_a_written_file_is_legal_in_the_scheme_that_is_found(scheme, found):
    census = TagCensus()
    for number, (spans, words) in enumerate(found):
        tags = tags_of(spans, words, scheme)
        census.add(tags, read(tags), f"f:{number}")
    assert census.illegal(scheme)[0] == 0
    assert census.illegal(census.scheme())[0] == 0
    for one, other in itertools.product(SCHEMES, SCHEMES):
        spans, words = found[0]
        assert spans_of(read(tags_of(spans_of(read(tags_of(spans, words, one))), words, other))) == spans


prefixed = st.lists(st.one_of(st.just("O"), st.builds("{}-{}".format, st.sampled_from("BIES"), st.sampled_from(("X", "Y")))), max_size=8)


@given(prefixed)
def test_no_tag_is_lost_whatever_stands_there(tags):
    spans = spans_of(read(tags))
    covered = [n for start, end, _ in spans for n in range(start, end)]
    assert covered == [n for n, tag in enumerate(tags) if tag != "O"]
    assert all(tags[n].endswith(label) for start, end, label in spans for n in range(start, end))


@settings(max_examples=300)
@given(st.lists(st.one_of(st.just("O"), st.builds("{}-{}".format, st.sampled_from("BI"), st.sampled_from(("X", "Y")))), max_size=8))
def test_bio_and_iob1_are_read_as_seqeval_does_legal_or_not(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    assert spans_of(read(tags)) == [(start, end + 1, label) for label, start, end in get_entities(tags)]


@pytest.mark.parametrize(("scheme", "theirs"), [("BIO", "IOB2"), ("BIOES", "IOBES"), ("IOB1", "IOB1")])
@given(sentences())
def test_legal_sentences_are_read_as_seqeval_does_in_strict_mode(scheme, theirs, sentence):
    import seqeval.scheme

    spans, words = sentence
    tags = tags_of(spans, words, scheme)
    found = seqeval.scheme.Entities([tags], getattr(seqeval.scheme, theirs)).entities[0]
    assert [e.to_tuple()[1:] for e in found] == [(label, start, end) for start, end, label in spans]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-PER", "O"], [(0, 1, "PER")]),  # lost by bertorch in bios
        (["B-PER", "I-LOC"], [(0, 1, "PER"), (1, 2, "LOC")]),  # ['PER', 0, -1] there
        (["B-PER", "I-LOC", "I-PER"], [(0, 1, "PER"), (1, 2, "LOC"), (2, 3, "PER")]),  # one PER of three words there
        ([], []),  # IndexError there
        (["B-X", "L-X", "U-X"], [(0, 2, "X"), (2, 3, "X")]),
        (["B_X", "M_X", "E_X", "E-X"], [(0, 3, "X"), (3, 4, "X")]),
    ],
)
def test_what_others_stumble_over(tags, spans):
    assert spans_of(read(tags)) == spans


@pytest.mark.parametrize("tag", ["B", "B-", "o", "X-PER", "PER", "", "-PER"])
def test_what_is_no_tag(tag):
    with pytest.raises(DataError, match="no type" if tag in {"B", "B-"} else "is no tag"):
        parse_tag(tag)


def test_a_lone_beginning_in_bios_is_counted_and_an_entity():
    census = TagCensus()
    for number, tags in enumerate((["S-X", "B-X", "I-X"], ["B-X", "O"], ["O", "I-X"])):
        census.add(tags, read(tags), f"f:{number}")
    assert census.scheme() == "BIOS"
    assert census.illegal("BIOS") == (2, "f:1")
    assert "2 places are illegal in it, the first in the sentence at f:1" in census.describe("f")


@settings(max_examples=60)
@given(st.lists(st.tuples(sentences(), sentences()), min_size=1, max_size=6))
def test_figures_are_those_of_seqeval(pairs):
    from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

    words = [max(g[1], p[1]) for g, p in pairs]
    gold, predicted = ([s[side][0] for s in pairs] for side in (0, 1))
    tags = [[tags_of(spans, n, "BIO") for spans, n in zip(side, words, strict=True)] for side in (gold, predicted)]
    counts = metrics.count_spans(gold, predicted, TYPES)
    ours = metrics.spans(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {"precision": precision_score(*tags), "recall": recall_score(*tags), "f1": f1_score(*tags)}
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs)
        if any(gold) or any(predicted):
            report = classification_report(*tags, output_dict=True)
            assert ours["f1_macro"] == pytest.approx(report["macro avg"]["f1-score"])
            for n, label in enumerate(TYPES):
                if label in report:
                    assert counts.gold[:, n].sum() == report[label]["support"]
    boundaries = [({s[:2] for s in g}, {s[:2] for s in p}) for g, p in zip(gold, predicted, strict=True)]
    both = sum(len(g & p) for g, p in boundaries)
    total = sum(len(g) + len(p) for g, p in boundaries)
    assert ours["boundary_f1"] == pytest.approx(2 * both / total if total else 0)
    assert ours["type_f1"] >= ours["f1"] - 1e-12
