"""All forms of entities mean the same; messages name the location; words cover everything but blanks."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.commands.train import prepare
from bertune.data.entities import count_trimmed, is_cjk, join_words, split_words
from bertune.data.tags import spans_to_tags
from bertune.errors import DataError
from bertune.types import Example, Location, Row, Span

task = prepare("tag", ["data.train=rows.jsonl"])[1]
quickly = settings(max_examples=60)


def read(text: object, label: object = None, stride: int = 0) -> Example:
    return task.read(Row({"text": text, "label": label}, Location("rows.jsonl", 7, stride)))


# ---------------------------------------------------------------- one meaning, many forms


@st.composite
def sentences(draw):
    """Words, all Chinese characters or all of several letters, and entities in words."""
    word = draw(
        st.sampled_from(
            [st.text("abcÄé8", min_size=2, max_size=5), st.text("高勇来了的", min_size=1, max_size=1)]
        )
    )
    words = draw(st.lists(word, min_size=1, max_size=9))
    cuts = sorted(draw(st.sets(st.integers(0, len(words)))))
    spans = [
        (start, end, draw(st.sampled_from(["name", "org.x", ""]))) for start, end in itertools.pairwise(cuts)
    ]
    return words, [span for span in spans if span[2]]


@settings(max_examples=150)
@given(sentences(), st.sampled_from(["IOB1", "BIO", "BIOS", "BIOES", "BMES"]))
def test_all_forms_of_a_row_mean_the_same(sentence, scheme):
    words, spans = sentence
    text, places = join_words(words)
    expected = tuple(Span(places[start][0], places[end - 1][1], label) for start, end, label in spans)
    cluener: dict[str, dict[str, list[list[int]]]] = {}
    for start, end, label in expected:
        cluener.setdefault(label, {}).setdefault(text[start:end], []).append([start, end - 1])
    tags = spans_to_tags(spans, len(words), scheme)
    spoken = [
        {"start": start, "end": end, "label": label, "text": text[start:end]}
        for start, end, label in expected
    ]
    labels = [
        tags,
        tuple(tags),
        " ".join(tags),
        [{"start": start, "end": end, "label": label} for start, end, label in expected],
        [{"start": start, "end": end, "labels": [label]} for start, end, label in expected],
        [
            {"start_offset": start, "end_offset": end, "label": label, "id": 1}
            for start, end, label in expected
        ],
        [
            {"start": one["start"], "end": one["end"], "entity_group": one["label"], "word": one["text"]}
            for one in spoken
        ],
        spoken,
        spoken[::-1],
        [list(span) for span in expected],
        expected[::-1],
        cluener,
    ]
    for label in labels:
        assert read(text, label) == Example((text,), expected, Location("rows.jsonl", 7), places), label
        assert read(words, label) == read(text, label), label


def test_the_forms_of_the_documentation():
    forms = [
        (["高", "勇"], ["B-NAME", "E-NAME"]),
        ("高勇来了", ["B-NAME", "E-NAME", "O", "O"]),
        ("高勇来了", [{"start": 0, "end": 2, "label": "NAME"}]),
        ("高勇来了", [{"start": 0, "end": 2, "labels": ["NAME"]}]),
        ("高勇来了", [[0, 2, "NAME"]]),
        ("高勇来了", {"NAME": {"高勇": [[0, 1]]}}),
    ]
    assert {read(*form).target for form in forms} == {(Span(0, 2, "NAME"),)}


def test_a_tag_for_each_word_between_any_blanks():
    example = read(" New  York\u3000is\tbig ", ["B-LOC", "I-LOC", "O", "O"])
    assert [example.texts[0][a:b] for a, b in example.words] == ["New", "York", "is", "big"]
    assert example.target == (Span(1, 10, "LOC"),)
    twice = read("a aa a", ["O", "B-X", "O"])  # the second word holds the first
    assert [twice.texts[0][a:b] for a, b in twice.words] == ["a", "aa", "a"]


def test_tags_of_characters_count_blanks():
    assert read("a b", ["B-X", "I-X", "I-X"]).target == (Span(0, 3, "X"),)


@pytest.mark.parametrize("label", [None, "", []])
def test_no_entities_or_nothing_said_of_them(label):
    assert read("a dog", label).target == (() if label == [] else None)
    assert read(["a", "dog"], label).target == (() if label == [] else None)
    assert read("a dog", {}).target == ()


@pytest.mark.parametrize("label", [" ", math.nan])
def test_a_label_that_is_missing_elsewhere_is_missing_here(label):
    # A former bug: labels.get_label takes a blank text and NaN for a missing label; get_entities refuses
    # the row.
    assert read("a dog", label).target is None


def test_types_that_look_like_tags():
    # A former bug: fit takes B- off the entries of data.labels, though the rows say that it belongs to the
    # type.
    kind = prepare("tag", ["data.train=rows.jsonl", "data.labels=[B-cell, T-cell]"])[1]
    rows = [{"text": f"a {name} here", "label": [[2, 8, name]]} for name in ("B-cell", "T-cell")]
    kind.fit([kind.read(Row(row, Location("rows.jsonl", n))) for n, row in enumerate(rows)], lambda _: None)
    assert kind.entity_types == ("B-cell", "T-cell")


def test_numbers_are_words():
    assert read(["in", 1999, 2.5], ["O", "B-year", "O"]) == read(["in", "1999", "2.5"], [[3, 7, "year"]])


# ---------------------------------------------------------------- what is wrong with a row


def no_span(one: object) -> str:
    return re.escape(f"{one!s}"[:60]) + " in 'label' is not a span; write start, end and label"


WRONG = {
    "too few tags": (["a", "dog"], ["O"], "2 words but 1 tags in 'label'; there must be one for each word"),
    "too many tags": ("a dog", "O O O", "5 words but 3 tags"),
    "no tag": (["a", "dog"], ["O", "dog"], r"word 2 \('dog'\): 'dog' is not a tag"),
    "no type": (["a", "dog"], ["O", "B-"], r"word 2 \('dog'\): the tag 'B-' has no type"),
    "tag missing": (["a", "dog"], ["O", None], r"word 2 \('dog'\): 'None' is not a tag"),
    "outside": (
        "a dog",
        [[2, 6, "x"]],
        "the span 2 to 6 'x' lies outside the text of 5 characters, or is empty",
    ),
    "negative": ("a dog", [[-1, 1, "x"]], "the span -1 to 1 'x' lies outside"),
    "empty": (
        "a dog",
        [[2, 2, "x"]],
        "the span 2 to 2 'x' lies outside the text of 5 characters, or is empty",
    ),
    "backwards": ("a dog", [[3, 2, "x"]], "the span 3 to 2 'x' lies outside"),
    "overlap": (
        "a dog",
        [[2, 5, "x"], [0, 3, "y"]],
        r"the spans 0 to 3 'y' \('a d'\) and 2 to 5 'x' \('dog'\) overlap",
    ),
    "twice": ("a dog", [[2, 5, "x"], [2, 5, "x"]], "overlap, and a word has one label only"),
    "within": (
        "a dog",
        [[0, 5, "x"], [2, 3, "y"], [3, 4, "z"]],
        "the spans 0 to 5 'x' .* and 2 to 3 'y' .* overlap",
    ),
    "no label": ("a dog", [{"start": 0, "end": 1}], no_span({"start": 0, "end": 1})),
    "label is null": ("a dog", [[0, 1, None]], no_span([0, 1, None])),
    "label is blank": ("a dog", [[0, 1, " "]], no_span([0, 1, " "])),
    "two labels": ("a dog", [{"start": 0, "end": 1, "labels": ["x", "y"]}], "is not a span"),
    "no start": ("a dog", [{"end": 1, "label": "x"}], "is not a span"),
    "start is true": ("a dog", [[True, 2, "x"]], no_span([True, 2, "x"])),
    "end is text": ("a dog", [[0, "2", "x"]], no_span([0, "2", "x"])),
    "start is no integer": ("a dog", [[0.5, 2, "x"]], no_span([0.5, 2, "x"])),
    "two numbers": ("a dog", [[0, 2]], no_span([0, 2])),
    "spans and tags": ("a dog", [[0, 1, "x"], "O"], no_span("O")),
    "another text": (
        "😀 a dog",
        [{"start": 4, "end": 7, "label": "x", "text": "a d"}],
        "says that its text is 'a d', but the text there is 'dog'; offsets count characters",
    ),
    "cluener": (
        "高勇",
        {"name": {"高": [[0, 1]]}},
        "says that its text is '高', but the text there is '高勇'",
    ),
    "cluener, no places": ("高勇", {"name": {"高勇": [0, 1]}}, r"is not a mapping of the form \{label"),
    "cluener, text": ("高勇", {"name": {"高勇": [["0", "1"]]}}, r"is not a mapping of the form \{label"),
    "a mapping": (
        "a dog",
        {"start": 0, "end": 1, "label": "x"},
        "must be a list of tags or of spans, got dict",
    ),
    "a number": ("a dog", 3, "must be a list of tags or of spans, got int"),
    "word missing": (["a", None], ["O", "O"], "word 2 of 'text' must be text, got None"),
    "word is a list": (["a", ["b"]], ["O", "O"], r"word 2 of 'text' must be text, got \['b'\]"),
    "word is nan": (
        ["a", math.nan],
        ["O", "O"],
        "word 2 of 'text' must be text, got nan",
    ),  # BUG in entities.words_of: the word 'nan'
    "word is true": ([True], ["O"], "word 1 of 'text' must be text, got True"),
    "no words": ([], [], "'text' is empty"),
    "no text": (None, [], "'text' is missing"),
    "blank text": (" ", [], "'text' is empty"),
    "half a letter": (["a", "\ud83d"], ["O", "O"], "has half a character"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_with_its_place(wrong):
    text, label, message = WRONG[wrong]
    with pytest.raises(DataError, match=rf"^rows\.jsonl:7: .*{message}"):
        read(text, label)


@pytest.mark.parametrize(("text", "label"), [(["a", "dog"], ["O", "x"]), (["a", None], ["O", "O"])])
def test_a_word_with_a_line_of_its_own_is_named_by_that(text, label):
    with pytest.raises(DataError, match=r"^rows\.jsonl:8: word 2 "):
        read(text, label, stride=1)


# ---------------------------------------------------------------- words


def check_places(text, places):
    assert all(start < end for start, end in places)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))
    covered = {n for start, end in places for n in range(start, end)}
    assert covered == {n for n, letter in enumerate(text) if not letter.isspace()}


tricky = "aé1 \t\u3000高ー가！!-_'\u0301\u0904\u094d\u3099\ufe0f\u200d😀"
texts = st.one_of(st.text(), st.text(tricky))


def kind_of(letter):
    if letter.isspace():
        return " "
    if unicodedata.category(letter)[0] == "M":
        return "M"
    return "L" if letter.isalnum() and not is_cjk(letter) else "X"


@settings(max_examples=300)
@given(texts)
def test_words_cover_what_is_not_blank(text):
    """Runs of letters, everything else one by one, and marks with what they stand on."""
    places = split_words(text, "words")
    check_places(text, places)
    kinds = "".join(map(kind_of, text))
    assert list(places) == [found.span() for found in re.finditer("L[LM]*|[XM]M*", kinds)]


def test_a_chinese_zero_is_a_chinese_character():
    # A former bug: is_cjk begins at U+3040, after 々 (U+3005), 〆 and 〇 (U+3007), which are letters to
    # isalnum.
    text = "二〇〇五年人々"
    assert split_words(text, "words") == split_words(text, "characters")
    assert join_words(["二〇", "〇五年"])[0] == "二〇〇五年"


@settings(max_examples=200)
@given(texts)
def test_characters_are_all_that_is_not_blank_one_by_one(text):
    places = split_words(text, "characters")
    check_places(text, places)
    assert all(end == start + 1 for start, end in places)


@given(texts, texts)
def test_words_do_not_depend_on_what_stands_beyond_a_blank(one, other):
    moved = [(start + len(one) + 1, end + len(one) + 1) for start, end in split_words(other, "words")]
    assert [*split_words(one, "words"), *moved] == list(split_words(f"{one} {other}", "words"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "words"),
    [("Café Ångström-é", ["Café", "Ångström", "-", "é"]), ("ภาษาไทย हिन्दी", ["ภาษาไทย", "हिन्दी"])],
)
def test_accents_and_vowel_signs_do_not_divide_a_word(form, text, words):
    text = unicodedata.normalize(form, text)
    assert [unicodedata.normalize("NFC", text[a:b]) for a, b in split_words(text, "words")] == [
        unicodedata.normalize("NFC", word) for word in words
    ]


@settings(max_examples=200)
@given(st.lists(st.one_of(st.text(max_size=3), st.text("高勇ー가ab. ", max_size=2))))
def test_joined_words_stand_where_it_is_said(words):
    text, places = join_words(words)
    assert [text[start:end] for start, end in places] == words
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))
    gaps = [text[one[1] : other[0]] for one, other in itertools.pairwise(places)]
    assert set(gaps) <= {"", " "}
    assert len(text) == sum(map(len, words)) + sum(map(len, gaps))  # nothing before or after
    assert text == join_words([word for word in words if word])[0]
    single = all(len(word) <= 1 for word in words)
    for one, other, gap in zip(words, words[1:], gaps, strict=False):
        if one and other:
            assert gap == ("" if single or is_cjk(one[-1]) or is_cjk(other[0]) else " ")


@quickly
@given(
    st.lists(
        st.text(
            st.characters(categories=["L", "N"]).filter(lambda c: c.isalnum() and not is_cjk(c)), min_size=2
        ),
        min_size=1,
    )
)
def test_joined_words_are_cut_as_they_were(words):
    text, places = join_words(words)
    assert split_words(text, "words") == places
    assert text.split() == words


# ---------------------------------------------------------------- blanks at the edges of spans, numbers


BLANKS = {
    "before": (" Anna lives", [[0, 5, "x"]], "Anna"),
    "after": ("Anna lives", [{"start": 0, "end": 5, "label": "x"}], "Anna"),
    "both": ("a  Anna  b", [[1, 9, "x"]], "Anna"),
    "other blanks": ("高\u3000勇\xa0来", [[1, 4, "x"]], "勇"),
    "line end": ("Anna\nlives", [{"start": 0, "end": 5, "labels": ["x"]}], "Anna"),
    "its own text": ("Anna lives", [{"start": 0, "end": 5, "label": "x", "text": "Anna"}], "Anna"),
    "CLUENER": ("Anna lives", {"x": {"Anna ": [[0, 4]]}}, "Anna"),
    "invisible": ("\u200bAnna\ufeff lives", [[0, 6, "x"]], "Anna"),
    "inside": ("New York", [[0, 8, "x"]], "New York"),
    "words": (["Anna", " ", "b"], [[0, 6, "x"]], "Anna"),
}


@pytest.mark.parametrize("name", BLANKS)
def test_blanks_at_the_edges_of_spans_do_not_belong_to_them(name):
    text, label, expected = BLANKS[name]
    example = read(text, label)
    (span,) = example.target
    assert example.texts[0][span.start : span.end] == expected
    row = Row({"text": text, "label": label}, Location("rows.jsonl", 7))
    assert count_trimmed(row, "label", example.texts[0], example.words) == (name != "inside")


def test_words_keep_blanks_of_their_own():
    example = read(["a ", "b"], [[0, 2, "x"]])
    assert example.target == (Span(0, 2, "x"),)
    assert read(["a ", "b"], ["B-x", "O"]).target == example.target


def test_blank_words_at_the_edges_of_tags_do_not_belong_to_the_entity():
    assert read(" Anna", ["B-x", *["I-x"] * 4]).target == (Span(1, 5, "x"),)
    assert read(["Anna", " ", "b"], ["B-x", "I-x", "O"]).target == (Span(0, 4, "x"),)


@pytest.mark.parametrize(
    ("text", "span"), [("a  b", [1, 3, "x"]), ("a\n", [1, 2, "x"]), ("高\u3000", [1, 2, "x"])]
)
def test_spans_of_blanks_alone_are_refused(text, span):
    with pytest.raises(DataError, match=r"rows\.jsonl:7: the span .* is nothing but blanks; remove it"):
        read(text, [span])


def numbered(labels: str):
    return prepare("tag", ["data.train=rows.jsonl", f"data.labels={labels}"])[1]


@pytest.mark.parametrize("tags", [[1, 2, 0], [1.0, 2.0, 0.0], ["1", "2", "0"], "1 2 0"])
def test_numbers_are_tags_by_their_position_in_data_labels(tags):
    row = Row({"text": ["New", "York", "is"], "label": tags}, Location("rows.jsonl", 7))
    assert numbered("[O,B-x,I-x]").read(row).target == (Span(0, 8, "x"),)
    with pytest.raises(DataError, match=r"the tag is the number 1; name the tags .* data\.labels=\[O,"):
        task.read(row)


@pytest.mark.parametrize("tags", [[3, 0], [-100, 0]])
def test_numbers_without_a_name_are_refused(tags):
    row = Row({"text": ["a", "b"], "label": tags}, Location("rows.jsonl", 7))
    with pytest.raises(
        DataError, match=rf"word 1: the tag {tags[0]} has no name; data\.labels names 3 tags, 0 to 2"
    ):
        numbered("[O,B-x,I-x]").read(row)


def test_labels_that_are_numbers_are_names():
    one = prepare("tag", ["data.train=rows.jsonl", 'data.labels=["1","0"]', "options.scheme=none"])[1]
    row = Row({"text": ["a", "b"], "label": [0, 1]}, Location("rows.jsonl", 7))
    assert [span.label for span in one.read(row).target] == ["0", "1"]
