"""Columns are read as they were written, whatever stands between them, and each sentence knows its line."""

from __future__ import annotations

import io

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.data.conll import Sentence, column_names, columns_by_name, read_sentences
from bertune.data.conll_layout import ConllLayout, detect_layout, is_blank
from bertune.errors import DataError

SPACE = chr(0x3000)  # ideographic
TAB = "\t"
quickly = settings(max_examples=80)


def read(text: str) -> tuple[ConllLayout, list[Sentence], dict[str, int]]:
    skipped: dict[str, int] = {}
    form, sentences = read_sentences(io.StringIO(text, newline="\n"), skipped)
    return form, list(sentences), skipped


def words(text: str) -> list[tuple[str, ...]]:
    return [sentence.columns[0] for sentence in read(text)[1] if not sentence.error]


# no blank of ASCII and no end of a line
inked = st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n")
blank_lines = st.lists(st.sampled_from(["", " ", "\t", " \t "]), min_size=1, max_size=3)


@st.composite
def files(draw, min_words: int = 1):
    """Lines in columns, what stands between them, the sentences, and the line of each."""
    tab, width = draw(st.booleans()), draw(st.integers(2, 4))
    word = st.one_of(
        st.text(inked, min_size=1, max_size=3), st.text("a高\xa0\u2028\x85" + SPACE, min_size=1, max_size=2)
    )
    if tab:  # words may have blanks then, or be nothing at all
        word = st.one_of(word, st.text("a高 " + SPACE, max_size=3))
    word = word.filter(lambda w: not w.startswith(("#", "-DOCSTART-")))
    others = [st.sampled_from(["NN", "I-NP", "O", "B-a", "S-" + SPACE, "="])] * (width - 1)
    rows = st.lists(st.tuples(word, *others), min_size=1, max_size=4)
    sentences = draw(
        st.lists(rows, min_size=1, max_size=5).filter(lambda found: sum(map(len, found)) >= min_words)
    )
    # A first column without any word would be a tab at the start of each line.
    hypothesis.assume(any(row[0].strip(" ") for rows in sentences for row in rows))
    lines = draw(st.one_of(st.just([]), blank_lines))
    at = []
    for rows in sentences:
        at.append(len(lines) + 1)
        lines += [(TAB if tab else draw(st.sampled_from([" ", "  ", " \t"]))).join(row) for row in rows]
        lines += draw(blank_lines)
    mixed = not tab and sum(TAB in line for line in lines if not is_blank(line)) > 0
    return lines, tab, width, [tuple(zip(*rows, strict=True)) for rows in sentences], at, mixed


@settings(max_examples=200)
@given(files(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_is_written_in_columns_is_read_back(file, newline, closed):
    lines, tab, width, sentences, at, mixed = file
    if mixed:  # tabs and blanks in one file: a width of its own for each
        lines = [line.replace(" \t", "  ") if not is_blank(line) else line for line in lines]
    text = (
        newline.join(lines) + newline
        if closed
        else newline.join(lines).rstrip(" \t\r\n" if not tab else "\r\n")
    )
    form, found, skipped = read(text)
    assert form == ConllLayout(tab, False, width)
    assert found == [Sentence(line, columns) for line, columns in zip(at, sentences, strict=True)]
    assert skipped == {}


@quickly
@given(files(min_words=3), st.data())
def test_a_line_of_another_width_is_named_and_costs_its_sentence_alone(file, data):
    lines, tab, width, sentences, at, mixed = file
    if mixed:
        lines = [line.replace(" \t", "  ") if not is_blank(line) else line for line in lines]
    hurt = data.draw(st.integers(0, len(sentences) - 1))
    place = (
        at[hurt] - 1 + data.draw(st.integers(0, len(sentences[hurt][0])))
    )  # before, between or after its words
    wide = data.draw(st.sampled_from([n for n in (1, width - 1, width + 1) if 0 < n != width]))
    lines = [*lines[:place], (TAB if tab else " ").join(["x"] * wide), *lines[place:]]
    _, found, _ = read("\n".join(lines))
    (fault,) = (s for s in found if s.error)
    assert fault.line == place + 1
    assert fault.columns == ()
    between = "tabs" if tab else "blanks"
    assert fault.error.startswith(
        f"{wide} columns divided by {between} where {width} are expected; its sentence cannot be used"
    )
    expected = [
        (line + (n > hurt), columns)
        for n, (line, columns) in enumerate(zip(at, sentences, strict=True))
        if n != hurt
    ]
    assert [(s.line, s.columns) for s in found if not s.error] == expected


@quickly
@given(
    st.lists(
        st.lists(
            st.tuples(st.text(inked, min_size=1), st.sampled_from(["O", "B-a"])), min_size=1, max_size=4
        ),
        min_size=2,
    )
)
def test_a_sentence_a_line_is_read_back(rows):
    rows = [[("a", "O"), ("b", "O")], *rows] + [[("a", "O"), ("b", "O")]] * len(
        rows
    )  # so that most lines have several words
    sentences = [tuple(zip(*pairs, strict=True)) for pairs in rows]
    text = "".join(f"{' '.join(first)}\t{' '.join(second)}\r\n" for first, second in sentences)
    form, found, skipped = read(text)
    assert form == ConllLayout(True, True, 2)
    assert found == [Sentence(n, columns, stride=0) for n, columns in enumerate(sentences, 1)]
    assert skipped == {}


def test_a_sentence_a_line_counts_blank_lines_and_names_lines_of_another_width():
    form, found, skipped = read("\n高 勇\tB-N E-N\n \t\n来 了 吗\tO O O\n高 勇\n \n高 勇\tO O\tx\n了 。\tO O")
    assert form.sentence_per_line
    assert skipped == {"blank lines": 3}
    assert [(s.line, s.columns[:1]) for s in found if not s.error] == [
        (2, (("高", "勇"),)),
        (4, (("来", "了", "吗"),)),
        (8, (("了", "。"),)),
    ]
    assert [(s.line, s.error.split(" where")[0]) for s in found if s.error] == [
        (5, "1 columns"),
        (7, "3 columns"),
    ]


def test_documents_and_comments_are_no_sentences():
    text = "-DOCSTART- -X- O O\n\n# sent_id = 1\n#text = EU rejects\nEU NNP B-NP B-ORG\n# NN O O\n\n"
    text += "# id 7f\tdomain=en\n\nPeter NNP I-NP I-PER\n"
    form, found, skipped = read(text)
    assert form == ConllLayout(False, False, 4)
    assert [(s.line, s.columns[0]) for s in found] == [(5, ("EU", "#")), (10, ("Peter",))]
    assert skipped == {"-DOCSTART- lines": 1, "comments": 3}


def test_a_comment_is_one_only_where_a_sentence_begins():
    _, found, skipped = read("a b c O\n# x = O\nd e f O\n\n# x = O\nd e f O\n")
    assert [(s.line, s.columns[0]) for s in found] == [(1, ("a", "#", "d")), (6, ("d",))]
    assert skipped == {"comments": 1}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", ["", " ", TAB, " \t \t"])
def test_lines_of_blanks_end_a_sentence(newline, blank):
    assert words(newline.join(["a O", "b O", blank, blank, "c O"])) == [("a", "b"), ("c",)]
    assert words(newline.join(["a\tO", "b\tO", blank, "c\tO", blank])) == [("a", "b"), ("c",)]


def test_an_ideographic_space_is_a_word_and_ends_nothing():
    for between in (" ", TAB):
        assert words(f"a{between}O\n{SPACE}{between}O\nb{between}O\n") == [("a", SPACE, "b")]
    assert not is_blank(SPACE)
    assert not is_blank(chr(0xA0))


def test_a_word_that_is_nothing_or_a_blank_keeps_its_place():
    assert words("a\tO\n\tO\n \tO\nb\tO\n") == [("a", "", " ", "b")]
    assert words("a O\n O\n\tO\nb O\n") == [("a", " ", " ", "b")]
    assert words("a x O\n  x O\nb y O\n") == [("a", " ", "b")]


def test_other_ends_of_lines_stand_within_words():
    """As str.splitlines would divide them."""
    odd = "a\u2028b\x0bc\x85"
    assert words(f"{odd} O\nx O") == [(odd, "x")]


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n", "\r\n\r\n"])
def test_a_file_of_nothing(text):
    form, found, _ = read(text)
    assert (form.num_columns, found) == (0, [])


def test_the_first_lines_tell_the_form():
    assert detect_layout(["a O"]) == ConllLayout(False, False, 2)
    assert detect_layout(["a\tO"]) == ConllLayout(True, False, 2)
    assert detect_layout(["New York\tB-LOC", "x\tO"]) == ConllLayout(True, False, 2)
    assert detect_layout(["a b\tO O", "c\tO"]) == ConllLayout(True, True, 2)
    assert detect_layout(["a", "b"]) == ConllLayout(False, False, 1)
    assert detect_layout(["a x O", "a x O", "a O"]).num_columns == 3
    assert detect_layout(["-DOCSTART- O", "", "# id 1", "a _ _ O"]).num_columns == 4
    assert read("x O\n" * 60 + "x y O\n")[1][-1] == Sentence(
        61, error=read("x O\n" * 2 + "x y O\n")[1][-1].error
    )


@pytest.mark.parametrize("blank_before_tab", ["", " "])
@pytest.mark.parametrize("blank_before", ["", " "])
def test_blanks_around_a_sentence_a_line_are_no_words(blank_before, blank_before_tab):
    # A former bug: form_of counts words without the strip(" ") that _sentence_lines has, so a blank on one
    # side of the tab makes each line one word, and its tags one tag: B-N E-N is read as B of the type "N
    # E-N", without a word of warning.
    form, found, _ = read(f"{blank_before}高 勇{blank_before_tab}\tB-N E-N\n" * 3)
    assert form == ConllLayout(True, True, 2)
    assert [sentence.columns for sentence in found] == [(("高", "勇"), ("B-N", "E-N"))] * 3


def test_each_word_stands_on_the_line_that_is_counted_for_it():
    # A former bug: a -DOCSTART- line without a blank line before it ends no sentence, so two documents
    # become one sentence, and the words after it are named by a line too low.
    lines = ["a O", "b O", "-DOCSTART- O", "c O", "", "d O"]
    _, found, _ = read("\n".join(lines))
    for sentence in found:
        for n, word in enumerate(sentence.columns[0]):
            assert lines[sentence.line + n - 1].startswith(word)


# ---------------------------------------------------------------- names


@given(st.integers(2, 9))
def test_words_come_first_and_tags_last(width):
    names = column_names(ConllLayout(True, False, width), None, "f", require_target=True)
    assert len(names) == len(set(names)) == width
    assert (names[0], names[-1]) == ("words", "tags")
    assert names[1:-1] == [f"column_{n}" for n in range(2, width)]


def test_names_that_are_given():
    form = ConllLayout(False, False, 3)
    assert column_names(form, ["text", "_", "label"], "f", require_target=True) == [
        "text",
        "column_2",
        "label",
    ]
    assert column_names(form, ["text", "_", "_", "label"], "f", require_target=False) == [
        "text",
        "column_2",
        "column_3",
    ]
    assert column_names(ConllLayout(False, False, 1), None, "f", require_target=False) == ["words"]
    with pytest.raises(DataError, match=r"f: 3 columns, but data\.columns names 4: text, _, _, label"):
        column_names(form, ["text", "_", "_", "label"], "f", require_target=True)
    with pytest.raises(DataError, match=r"f: 3 columns, but data\.columns names 2: text, label"):
        column_names(form, ["text", "label"], "f", require_target=False)


def test_columns_by_name():
    (sentence,) = read("EU NNP B-ORG\nrejects VBZ O\n")[1]
    names = ["words", "column_2", "tags"]
    assert columns_by_name(sentence, names) == {
        "words": ["EU", "rejects"],
        "column_2": ["NNP", "VBZ"],
        "tags": ["B-ORG", "O"],
    }
