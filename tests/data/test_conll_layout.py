"""Comments, columns that count, tabs at the ends of lines, delimiters, and files without blank lines."""

from __future__ import annotations

import pytest
from tests.builders import read_tagging_file

from bertune.errors import DataError


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


def test_a_count_that_begins_anew_begins_a_sentence(write):
    text = "1\ta\tB-x\n2\tb\tO\n1\tc\tO\n1\td\tO\n2\te\tO\n"
    rows, _ = read_file(write, "t.conll", text)
    assert [words for words, _ in rows] == [["a", "b"], ["c"], ["d", "e"]]


def test_lines_that_are_no_words_do_not_shift_the_lines_of_words(write):
    path = write("t.conllu", conllu(("1", "a", "X"), ("2-3", "bc", "_"), ("2", "b", "Y"), ("3", "c", "Z")))
    rows, _ = read_tagging_file(path)
    assert str(rows[0].location.at_word(2)) == f"{path}:1"  # the sentence, where the line is not known
    rows, _ = read_tagging_file(write("t.conll", "a O\nb O\n"))
    assert rows[0].location.at_word(1).line == 2


def test_usual_names_of_columns_stay(write):
    """Whoever has named columns by position goes on to do so."""
    nested = "1\ta\tB-x\tO\n2\tb\tO\tB-y\n\n1\tc\tO\tO\n"
    for label, tags in (("column_3", ["B-x", "O"]), ("tags", ["O", "B-y"])):
        rows, _ = read_file(write, "t.tsv", nested, columns={"text": "column_2", "label": label})
        assert rows[0] == (["a", "b"], tags)
    rows, _ = read_file(
        write,
        "t.conllu",
        conllu(("1", "a", "X"), ("2", "b", "Y")),
        columns={"text": "column_3", "label": "column_4"},
    )
    assert rows == [(["l", "l"], ["X", "Y"])]


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
    chunks = nested.replace("#\turl\n", "")
    rows, notes = read_file(write, "t.tsv", chunks)
    assert rows[0] == (["a", "b"], ["O", "B-y"])
    assert "data.columns=[_,text,label,_] reads column 3" in notes[0]
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
    assert 'data.sentence_ends=["."] ' in said
    chinese = "".join(f"字{n} O\n。 O\n？ O\n" for n in range(300)) + "\n"
    said = next(n for n in read_file(write, "t.bmes", 2 * chinese)[1] if "2 sentences have 1800 words" in n)
    assert 'data.sentence_ends=["。","？"] ' in said


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
