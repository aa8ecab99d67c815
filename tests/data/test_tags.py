"""Spans become tags and spans again in every scheme, as in seqeval; written tags are legal."""

from __future__ import annotations

import itertools

import pytest
import seqeval.scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bertune.data.tags import (
    TagCounts,
    is_transition_allowed,
    parse_model_tag,
    parse_tag,
    read_tag,
    spans_to_tags,
    tag_set,
    tags_to_spans,
)
from bertune.errors import DataError

SCHEMES = {"IOB1": "BI", "BIO": "BI", "BIOS": "BIS", "BIOES": "BIES", "BMES": "BMES"}
TYPES = ("PER", "LOC.NAM", "a-b", "_", "B-x")
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
quickly = settings(max_examples=60)


@st.composite
def sentences(draw, max_entities: int = 6):
    """Entities that do not overlap, and how many words there are."""
    spans, place = [], 0
    for gap, length, label in draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(TYPES)), max_size=max_entities
        )
    ):
        spans.append((place + gap, place + gap + length, label))
        place += gap + length
    return spans, place + draw(st.integers(0, 2))


def tags_with(prefixes: str):
    """Tags in any order, most of them illegal."""
    return st.lists(
        st.one_of(st.just("O"), st.builds("{}-{}".format, st.sampled_from(prefixes), st.sampled_from("XY"))),
        max_size=9,
    )


def read(tags):
    return [parse_tag(tag) for tag in tags]


def all_legal(scheme, tags):
    return all(is_transition_allowed(scheme, a, b) for a, b in itertools.pairwise([None, *read(tags), None]))


def inclusive(spans):
    """Spans as seqeval writes them."""
    return [(label, start, end - 1) for start, end, label in spans]


# ---------------------------------------------------------------- legal tags


@every_scheme
@given(sentences())
def test_what_is_written_is_legal_and_read_back(scheme, sentence):
    spans, num_words = sentence
    tags = spans_to_tags(spans, num_words, scheme)
    assert len(tags) == num_words
    assert tags_to_spans(read(tags)) == spans
    assert all_legal(scheme, tags)
    assert set(tags) <= set(tag_set(TYPES, scheme))
    assert spans_to_tags(reversed(spans), num_words, scheme) == tags


@every_scheme
@settings(max_examples=300)
@given(st.data())
def test_legal_is_just_what_would_be_written(scheme, data):
    """So that a chain of legal tags and the entities in it are one to one."""
    tags = data.draw(tags_with(SCHEMES[scheme]))
    assert all_legal(scheme, tags) == (spans_to_tags(tags_to_spans(read(tags)), len(tags), scheme) == tags)


@every_scheme
def test_legal_is_just_what_would_be_written_in_all_short_sentences(scheme):
    for length in range(5):
        for tags in itertools.product(
            tag_set("X", scheme) if length == 4 else tag_set("XY", scheme), repeat=length
        ):
            assert all_legal(scheme, tags) == (
                spans_to_tags(tags_to_spans(read(tags)), length, scheme) == list(tags)
            ), tags


@quickly
@given(sentences(), st.permutations(sorted(SCHEMES)))
def test_entities_stay_from_scheme_to_scheme(sentence, schemes):
    spans, num_words = sentence
    for scheme in schemes:
        spans = tags_to_spans(read(spans_to_tags(spans, num_words, scheme)))
    assert spans == sentence[0]


@every_scheme
@quickly
@given(st.lists(sentences(), min_size=1, max_size=8))
def test_census_finds_a_scheme_without_anything_illegal(scheme, found):
    census = TagCounts()
    for number, (spans, num_words) in enumerate(found):
        tags = spans_to_tags(spans, num_words, scheme)
        census.add(tags, read(tags), f"f:{number}")
    assert census.count_illegal(scheme) == (0, "")
    assert census.count_illegal(census.detect_scheme()) == (0, "")
    assert "illegal" not in census.describe("f")


@every_scheme
def test_census_finds_the_scheme_of_a_file_that_has_everything(scheme):
    census = TagCounts()
    tags = spans_to_tags([(0, 1, "X"), (1, 4, "X"), (5, 7, "X"), (7, 8, "Y")], 9, scheme)
    census.add(tags, read(tags), "f:1")
    assert census.detect_scheme() == scheme
    assert census.describe("f").startswith(f"f: tags in {scheme} (")


# ---------------------------------------------------------------- any tags


@settings(max_examples=200)
@given(tags_with("BIMESLU"))
def test_no_tag_is_lost_and_no_outside_taken_in(tags):
    spans = tags_to_spans(read(tags))
    covered = [n for start, end, _ in spans for n in range(start, end)]
    assert covered == [
        n for n, tag in enumerate(tags) if tag != "O"
    ]  # in order, each once: sorted and disjoint
    assert all(tags[n][2:] == label for start, end, label in spans for n in range(start, end))
    for start, end, _ in spans:
        assert all(prefix not in "BS" for prefix, _ in read(tags[start + 1 : end]))
        assert all(prefix not in "ES" for prefix, _ in read(tags[start : end - 1]))
    for one, other in itertools.pairwise(
        spans
    ):  # what touches is divided by a type or a prefix, never for nothing
        if one[1] == other[0] and one[2] == other[2]:
            assert parse_tag(tags[other[0] - 1])[0] in "ES" or parse_tag(tags[other[0]])[0] in "BS"


# seqeval's default mode reads B, I, E and S as `tags_to_spans` does, illegal sequences included. To it, M, L
# and U are prefixes that neither begin nor end an entity while the type stays: ["O", "M-X"] is ('X', 0, 1)
# there, and ["U-X", "O"] nothing at all. So files in BMES and BILOU are compared after translation.
@settings(max_examples=500)
@given(tags_with("BIES"))
def test_any_tags_are_read_as_seqeval_reads_them(tags):
    assert inclusive(tags_to_spans(read(tags))) == get_entities(tags)


@settings(max_examples=200)
@given(tags_with("BIMESLU"))
def test_m_l_and_u_are_other_letters_for_i_e_and_s(tags):
    translated = [tag.translate({ord("M"): "I", ord("L"): "E", ord("U"): "S"}) for tag in tags]
    assert inclusive(tags_to_spans(read(tags))) == get_entities(translated)


@every_scheme
@given(sentences())
def test_legal_tags_are_read_as_seqeval_reads_them(scheme, sentence):
    spans, num_words = sentence
    tags = [
        tag.replace("M-", "I-", 1) if tag[0] == "M" else tag
        for tag in spans_to_tags(spans, num_words, scheme)
    ]
    assert get_entities(tags) == inclusive(spans)


@pytest.mark.parametrize(
    ("scheme", "theirs"), [("IOB1", "IOB1"), ("BIO", "IOB2"), ("BIOES", "IOBES"), ("BIOES", "BILOU")]
)
@given(sentences())
def test_legal_tags_are_read_as_seqeval_reads_them_in_strict_mode(scheme, theirs, sentence):
    spans, num_words = sentence
    tags = spans_to_tags(
        [(start, end, label.strip("_") or "Z") for start, end, label in spans], num_words, scheme
    )
    if theirs == "BILOU":
        tags = [{"E": "L", "S": "U"}.get(tag[0], tag[0]) + tag[1:] for tag in tags]
    found = seqeval.scheme.Entities([tags], getattr(seqeval.scheme, theirs)).entities[0]
    assert [(e.start, e.end, e.tag) for e in found] == tags_to_spans(read(tags))


# ---------------------------------------------------------------- single tags


@given(st.sampled_from("BIMESLU"), st.sampled_from("-_"), st.text(min_size=1))
def test_every_prefix_separator_and_type(prefix, separator, label):
    assert parse_tag(prefix + separator + label) == (
        {"M": "I", "L": "E", "U": "S"}.get(prefix, prefix),
        label,
    )


@pytest.mark.parametrize("tag", ["B-", "I-", "S_", "M-", "U_"])
def test_a_tag_without_a_type(tag):
    with pytest.raises(DataError, match=f"{tag!r} has no type; write {tag[0]}-TYPE, such as {tag[0]}-PER"):
        parse_tag(tag)


@pytest.mark.parametrize(
    "tag", ["X-PER", "nonsense", "o", "b-PER", "-PER", "O-PER", "OO", " O", "BPER", "B PER", "-"]
)
def test_what_is_no_tag(tag):
    with pytest.raises(
        DataError, match=f"^{tag!r} is not a tag; a tag is O, or one of B, I, M, E, S, L, U with a type"
    ):
        parse_tag(tag)


def test_an_empty_tag_and_a_number_say_what_to_do():
    with pytest.raises(DataError, match="the tag is empty; a word outside of entities has the tag O"):
        parse_tag("")
    with pytest.raises(
        DataError, match=r"is the number 7; name the tags by .* data\.labels=\[O,B-PER,I-PER\]"
    ):
        parse_tag("7")


def test_tags_that_are_a_prefix_alone_have_one_type():
    assert [parse_tag(tag) for tag in "BIMESLUO"] == [
        *((prefix, "SPAN") for prefix in "BIIESES"),
        ("O", ""),
    ]


@pytest.mark.parametrize("scheme", ["io", "none"])
def test_schemes_without_prefixes_are_read_and_written(scheme):
    tags = ["person-actor", "person-actor", "O", "loc", "B-cell"]
    spans = tags_to_spans(parse_model_tag(tag, scheme) for tag in tags)
    assert spans_to_tags(spans, 5, scheme) == tags
    assert len(spans) == {"io": 3, "none": 5}[scheme]
    labels = ["loc", "B-cell"]
    assert tag_set(labels, scheme) == {"io": ["O", *labels], "none": labels}[scheme]
    assert is_transition_allowed(scheme, None, ("I", "x"))
    assert is_transition_allowed(scheme, ("I", "x"), ("I", "y"))


def test_a_file_in_io_may_have_prefixes():
    assert [read_tag(tag, "io") for tag in ("B-PER", "I-PER", "PER", "O")] == [
        ("B", "PER"), ("I", "PER"), ("I", "PER"), ("O", ""),
    ]  # fmt: skip
    assert [read_tag(tag, "none") for tag in ("B-PER", "O", "NN", "7")] == [
        ("S", "B-PER"), ("S", "O"), ("S", "NN"), ("S", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-PER", "L-PER", "U-PER", "I-PER"], [(0, 2, "PER"), (2, 3, "PER"), (3, 4, "PER")]),
        (["B_PER", "I_PER", "I-PER", "O"], [(0, 3, "PER")]),
        (["O", "B-PER", "O"], [(1, 2, "PER")]),  # bertorch: nothing, in bios
        (["B-PER", "I-LOC"], [(0, 1, "PER"), (1, 2, "LOC")]),  # bertorch: ['PER', 0, -1]
        ([], []),
    ],
)
def test_what_others_stumble_over(tags, spans):
    assert tags_to_spans(read(tags)) == spans


# ---------------------------------------------------------------- what is said of a file


def census_of(*sentences_):
    census = TagCounts()
    for number, tags in enumerate(sentences_, 1):
        census.add(tags, read(tags), f"f.txt:{number}")
    return census


def test_illegal_places_are_counted_and_the_first_is_named():
    census = census_of(["B-X", "I-X"], ["O", "I-X", "I-X"], ["B-X", "I-Y", "O"], ["I-X", "O", "I-Y"])
    assert census.count_illegal("BIO") == (4, "f.txt:2")
    assert census.count_illegal("IOB1") == (2, "f.txt:1")  # B without another entity before it
    census = census_of(["B-X", "I-X"], ["O", "I-X"], ["B-X", "O", "B-X", "O", "B-X"])
    assert census.detect_scheme() == "BIO"
    assert census.describe("f.txt") == (
        "f.txt: tags in BIO ('B', 'I', 'O'); 1 transitions are illegal in it, "
        "the first in the sentence at f.txt:2: "
        "still read as entities"
    )


@quickly
@given(st.lists(tags_with("BIES"), min_size=1, max_size=5), st.sampled_from(["BIOES", "BMES"]))
def test_illegal_places_are_those_of_all_pairs(found, scheme):
    pairs = [pair for tags in found for pair in itertools.pairwise([None, *read(tags), None])]
    places = [f"f.txt:{n}" for n, tags in enumerate(found, 1) if not all_legal(scheme, tags)]
    assert census_of(*found).count_illegal(scheme) == (
        sum(not is_transition_allowed(scheme, *pair) for pair in pairs),
        (places or [""])[0],
    )


def test_a_lone_beginning_in_bios_is_counted():
    census = census_of(["S-X", "B-X", "I-X"], ["B-X", "O"], ["B-X"])
    assert census.detect_scheme() == "BIOS"
    assert census.count_illegal("BIOS") == (2, "f.txt:2")


def test_m_tells_bmes_and_l_and_u_tell_bioes():
    assert census_of(["B-X", "M-X", "E-X"]).detect_scheme() == "BMES"
    assert census_of(["B-X", "M-X", "I-X"]).detect_scheme() == "BMES"
    assert census_of(["B-X", "I-X", "L-X", "U-X"]).detect_scheme() == "BIOES"
    assert census_of(["I-X", "O", "I-X", "B-X"]).detect_scheme() == "IOB1"
