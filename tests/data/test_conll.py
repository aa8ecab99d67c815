"""Columns are read as they were written, whatever stands between them, and each sentence knows its line."""

from __future__ import annotations

import io

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import read_tagging_file

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
    assert found == [Sentence(n, columns) for n, columns in enumerate(sentences, 1)]
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


# ---------------------------------------------------------------- other lines, other columns


def read_file(write, name: str, text: str, **settings: object):
    """Text and label of each row of a file, and the notes about it, without the path."""
    path = write(name, text)
    rows, notes = read_tagging_file(path, **settings)
    found = [(row.fields["text"], row.fields.get("label")) for row in rows]
    return found, [note.removeprefix(f"{path}: ") for note in notes]


COMMENTS = {
    "GermEval": ("#\thttp://example.org/0 [2009-10-17]\na\tB-x\nb\tO\n\n#\thttp://y.org\nc\tO\n", 2),
    "GermEval, one word": ("#\thttp://example.org/0 [2009]\na\tB-x\n\n#\tn-tv.de vom 26.02.2005\nb\tO\n", 2),
    "CoNLL-U": (
        "# newdoc id = d\n# newpar\n# sent_id = 1\n# text = a b\na\tB-x\nb\tO\n\n# newpar\nc\tO\n",
        5,
    ),
    "documents": ("#begin document (x/y); part 000\na\tB-x\nb\tO\n\n#end document\n", 2),
    "documents in blanks": ("#begin document (x)\na B-x\nb O\n#end document\n#begin document (z)\nc O\n", 3),
    "any key": ("# source: news of the day\na B-x\nb O\n\n# checked\nc O\n", 2),
    "a licence": ("#\n# Copyright\n#\n\na B-x\nb O\n", 3),
    "words of the first line": ("# a sentence, as one reads it\na B-x\nb O\n", 1),
}


@pytest.mark.parametrize("name", COMMENTS)
def test_comments_are_passed_over_and_counted(name, write):
    text, count = COMMENTS[name]
    rows, notes = read_file(write, "t.conll", text)
    assert [word for words, _ in rows for word in words] == list("abc"[: sum(len(w) for w, _ in rows)])
    assert len(rows[0][0]) in {1, 2}
    assert f"{count} comments skipped" in notes


HASH_WORDS = {
    "Twitter": ("#\tO\na\tB-x\n\n#nlp\tO\n", [["#", "a"], ["#nlp"]]),
    "in blanks": ("# O\na B-x\n\n#nlp O\nb O\n", [["#", "a"], ["#nlp", "b"]]),
    "within a sentence": ("a O\n# O\n#x = O\n\nb O\n", None),
    "with a tag": ("# B-x\na O\n\n# I-x\nb O\n", [["#", "a"], ["#", "b"]]),
    "four columns": ("# # B-NP O\na DT O B-x\n\n# # O O\nb N O O\n", [["#", "a"], ["#", "b"]]),
    "blanks in a word": ("# text = 1\tO\na\tB-x\n\n# a\tO\n", [["# text = 1", "a"], ["# a"]]),
    "parts of speech": ("a DET\n# SYM\n\n# SYM\nb NOUN\n", [["a", "#"], ["#", "b"]]),
    "only hashes": ("# O\n\n# O\n", [["#"], ["#"]]),
}


@pytest.mark.parametrize("name", HASH_WORDS)
def test_the_word_hash_is_a_word(name, write):
    text, expected = HASH_WORDS[name]
    if expected is None:
        with pytest.raises(DataError, match=r"t\.conll:3: 3 columns"):
            read_file(write, "t.conll", text)
        return
    rows, notes = read_file(write, "t.conll", text)
    assert [words for words, _ in rows] == expected
    assert not any("comment" in note for note in notes)


def conllu(*rows: tuple[str, str, str]) -> str:
    return "".join(f"{n}\t{word}\tl\t{pos}\tX{pos}\t_\t0\troot\t_\t_\n" for n, word, pos in rows) + "\n"


def test_conllu_has_columns_of_its_own(write):
    text = "# sent_id = 1\n" + conllu(
        ("1", "She", "PRON"),
        ("2-3", "doesn't", "_"),
        ("2", "does", "AUX"),
        ("3", "n't", "PART"),
        ("3.1", "x", "_"),
    )
    text += conllu(("1", "Go", "VERB"))
    words = [["She", "does", "n't"], ["Go"]]
    rows, notes = read_file(write, "t.conllu", text)
    assert rows == list(zip(words, [["PRON", "AUX", "PART"], ["VERB"]], strict=True))
    assert "columns of CoNLL-U" in notes
    assert "1 comments, 2 lines of joined or empty words skipped" in notes
    rows, _ = read_file(write, "t.conllu", text, columns={"label": "xpos"})
    assert rows[0][1] == ["XPRON", "XAUX", "XPART"]
    plus = "# global.columns = ID FORM NER\n1\ta\tB-x\n2\tb\tO\n"
    assert read_file(write, "t.conllup", plus)[0] == [(["a", "b"], ["B-x", "O"])]


def test_a_column_that_counts_words_holds_no_words(write):
    for text in ("1\ta\tB-x\n2\tb\tO\n\n1\tc\tO\n", "0 a NN B-x\n1 b NN O\n\n0 c NN O\n"):
        rows, notes = read_file(write, "t.conll", text)
        assert rows == [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]
        assert "column 1 counts the words, which are in column 2" in notes
    nested = "#\turl\n1\ta\tB-x\tO\n2\tb\tO\tB-y\n\n#\turl\n1\tc\tO\tO\n"
    rows, notes = read_file(write, "t.tsv", nested)
    assert rows[0] == (["a", "b"], ["B-x", "O"])
    assert "data.columns=[_,text,_,label] reads column 4" in notes[0]
    rows, _ = read_file(write, "t.tsv", nested, columns=["_", "text", "_", "label"])
    assert rows[0] == (["a", "b"], ["O", "B-y"])
    assert read_file(write, "t.conll", "1\ta\n2\tb\n\n1\tc\n", target=False)[0][0][0] == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["1 O\n2 B-x\n\n1 O\n", "1 a O\n3 b O\n\n1 c O\n", "1 a O\n\n1 b O\n\n1 c O\n"]
)
def test_words_that_are_numbers_stay_words(text, write):
    assert read_file(write, "t.conll", text)[0][0][0][0] == "1"


def test_a_first_line_that_names_columns(write):
    for text in ("word\ttag\na\tB-x\nb\tO\n\nc\tO\n", "token pos label\na N B-x\nb N O\n\nc N O\n"):
        rows, notes = read_file(write, "t.txt", text)
        assert rows == [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]
        assert "the first line is a header" in notes
    assert read_file(write, "t.txt", "word O\ntag O\n")[0] == [(["word", "tag"], ["O", "O"])]


def test_numbers_of_sentences_in_columns(write):
    expected = [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]
    for text in ("sentence_id\tword\ttag\n0\ta\tB-x\n0\tb\tO\n1\tc\tO\n", "4\ta\tB-x\n4\tb\tO\n5\tc\tO\n"):
        rows, notes = read_file(write, "t.tsv", text)
        assert rows == expected
        assert "a word a row: 3 rows grouped to 2 sentences by column 'sentence_id'" in notes


TABS = {
    "at all ends": "a\tB-x\t\nb\tO\t\n\nc\tO\t\n",
    "at some ends": "a\tB-x\nb\tO\t\n\nc\tO\t\t\n",
    "at all beginnings": "\ta\tB-x\n\tb\tO\n\n\tc\tO\n",
    "at one beginning": "a\tB-x\nb\tO\n\n\tc\tO\n",
    "at both": "\ta\tB-x\t\n\tb\tO\t\n\n\tc\tO\t\n",
    "with blanks": "a\tB-x\t \nb\tO\t \n\nc\tO\t \n",
}


@pytest.mark.parametrize("name", TABS)
def test_tabs_at_the_ends_of_lines_are_no_columns(name, write):
    assert read_file(write, "t.conll", TABS[name])[0] == [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]


def test_tabs_at_the_ends_of_a_sentence_a_line(write):
    rows, _ = read_file(write, "t.txt", "a b\tB-x O\t\nc d\tO O\t\n")
    assert rows == [(["a", "b"], ["B-x", "O"]), (["c", "d"], ["O", "O"])]


DELIMITED = {
    "comma": "a,B-x\nb,O\n\nc,O\n",
    "semicolon": "a;B-x\nb;O\n\nc;O\n",
    "pipe": "a|B-x\nb|O\n\nc|O\n",
    "tab": "a\tB-x\nb\tO\n\nc\tO\n",
    "blank": "a B-x\nb  O\n\nc O\n",
}


@pytest.mark.parametrize("name", DELIMITED)
def test_a_delimiter_has_its_effect(name, write):
    rows, _ = read_file(write, "t.conll", DELIMITED[name], delimiter=name)
    assert rows == [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]
    if name in {"comma", "semicolon", "pipe"}:
        with pytest.raises(DataError, match=rf"has one column; the lines hold .*data\.delimiter={name}"):
            read_file(write, "t.conll", DELIMITED[name])


def test_delimiters_at_the_ends_of_lines_are_no_columns(write):
    rows, _ = read_file(write, "t.conll", "a,B-x,\nb,O,\n\nc,O\n", delimiter="comma")
    assert rows == [(["a", "b"], ["B-x", "O"]), (["c"], ["O"])]


def test_words_and_types_with_blanks_are_no_sentences(write):
    text = "a\tO\nNew York City\twork of art\nb\tO\n"
    assert read_file(write, "t.conll", text)[0] == [(["a", "New York City", "b"], ["O", "work of art", "O"])]
    text = text.replace("work", "B-work")
    assert read_file(write, "t.conll", text)[0][0][1] == ["O", "B-work of art", "O"]
    pos = "a dog\tDET NOUN\ngo\tVERB\n"
    assert [words for words, _ in read_file(write, "t.txt", pos)[0]] == [["a", "dog"], ["go"]]


def test_the_delimiter_may_be_a_word(write):
    rows, _ = read_file(write, "t.conll", 'a,O\n",",O\n,,O\n"b,c",B-x\n', delimiter="comma")
    assert rows == [(["a", ",", ",", "b,c"], ["O", "O", "O", "B-x"])]


def test_settings_that_cannot_have_an_effect_are_named(write):
    with pytest.raises(DataError, match=r"has one column where data\.delimiter=',' divides columns"):
        read_file(write, "t.conll", "a B-x\nb O\n", delimiter="comma")
    _, notes = read_file(write, "t.conll", "a B-x\n", quoting="standard")
    assert "data.quoting has no effect on words in columns" in notes


FOREIGN = {
    "WebAnno TSV; export it as CoNLL 2002": "#FORMAT=WebAnno TSV 3.3\n\n1-1\t0-4\tAnna\tPER\n",
    "brat standoff": "T1\tPER 0 4\tAnna\n",
    "laid out as CoNLL-2012": "#begin document (x); part 000\n" + "x 0 0 a NNP * - - - s (PERSON) -\n" * 2,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_that_are_not_read_are_named(name, write):
    with pytest.raises(DataError, match=name):
        read_file(write, "t.conll", FOREIGN[name])


UNDIVIDED = "".join(f"w{n} O\nx O\n. O\n" for n in range(50))


def test_a_file_without_blank_lines_is_said(write):
    rows, notes = read_file(write, "t.conll", UNDIVIDED)
    assert len(rows) == 1
    said = next(note for note in notes if "150 words are one sentence" in note)
    assert "50 of its words usually end one" in said
    assert 'data.sentence_ends=[".","?","!"]' in said
    chinese = "".join(f"字{n} O\n。 O\n" for n in range(300)) + "\n"
    assert any(
        "2 sentences have 1200 words, 600 each" in n for n in read_file(write, "t.bmes", 2 * chinese)[1]
    )


@pytest.mark.parametrize(
    "text", [UNDIVIDED + "\ny O\n" * 3, "a O\n. O\n" * 40, UNDIVIDED.replace("\n. O", "\n. O\n")]
)
def test_sentences_of_usual_length_are_no_matter(text, write):
    assert not any("sentence" in note for note in read_file(write, "t.conll", text)[1])


def test_sentences_end_after_words_that_the_user_names(write):
    rows, notes = read_file(write, "t.conll", UNDIVIDED, sentence_ends=["."])
    assert len(rows) == 50
    assert rows[1] == (["w1", "x", "."], ["O"] * 3)
    assert not any("sentence" in note for note in notes)
    assert len(read_file(write, "t.conll", UNDIVIDED, sentence_ends=[])[0]) == 1
    text = "St B-x\n. I-x\nLouis I-x\n! O\n'' O\nHe O\n. O\n\nSo O\n"
    rows, _ = read_file(write, "t.conll", text, sentence_ends=[".", "!"])
    assert [words for words, _ in rows] == [["St", ".", "Louis", "!", "''"], ["He", "."], ["So"]]
