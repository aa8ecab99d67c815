"""Words that are written in CoNLL columns are read back, as many as there were; each row of a table gets its tag."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import read_tagging_file

from bertune.errors import DataError
from bertune.inference.writers import write_conll, write_csv, write_jsonl
from bertune.types import Location, Prediction, Row


def predicted(words, tags, **raw):
    """A row and its prediction."""
    row = Row({}, Location("rows.jsonl", 1), raw or {"tokens": list(words)})
    return row, Prediction((), tags=tuple(zip(words, tags, strict=True)))


def written(*results):
    """The text of a CoNLL file, and the notes about it."""
    out, notes = io.StringIO(), []
    assert write_conll(out, results, notes.append) == len(results)
    return out.getvalue(), notes


words = st.lists(st.text(st.sampled_from("ab高 \t\r\n#\u3000'\""), max_size=4), min_size=1, max_size=5)


@settings(max_examples=150)
@given(
    st.lists(words, min_size=1, max_size=4).filter(lambda found: any(w.strip() for ws in found for w in ws))
)
def test_what_is_written_is_read_back(tmp_path_factory, sentences):
    tags = [["B-x", *["O"] * (len(sentence) - 1)] for sentence in sentences]
    text, _ = written(*(predicted(w, t) for w, t in zip(sentences, tags, strict=True)))
    file = tmp_path_factory.mktemp("conll") / "t.conll"
    file.write_bytes(text.encode())
    rows, _ = read_tagging_file(file)
    assert [len(row.fields["text"]) for row in rows] == [len(sentence) for sentence in sentences]
    assert [row.fields["label"] for row in rows] == tags
    plain = [
        [w.replace("\r\n", " ").translate(dict.fromkeys(map(ord, "\t\r\n"), " ")) for w in s]
        for s in sentences
    ]
    assert [row.fields["text"] for row in rows] == plain


def test_tabs_and_line_ends_become_blanks_and_are_counted():
    text, notes = written(predicted(["New\tYork", "a\r\nb", "c\rd", "e"], ["B-x", "O", "O", "O"]))
    assert text == "New York\tB-x\na b\tO\nc d\tO\ne\tO\n\n"
    assert notes == [
        "3 words hold tabs or line ends: written as blanks in CoNLL columns; JSON lines keep them (--format jsonl)"
    ]
    assert written(predicted(["a", " "], ["O", "O"]))[1] == []


@pytest.mark.parametrize("word", ["-DOCSTART-", "#begin document (x)", "#end document"])
def test_words_that_cannot_be_written_are_refused(word):
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the word .* --format jsonl"):
        written(predicted(["a", word], ["O", "O"]))


def test_the_words_come_first():
    raw = {"ner_tags": ["O", "B-x"], "tokens": ["a", "b"]}
    assert written(predicted(["a", "b"], ["O", "O"], **raw))[0] == "a\tO\tO\nb\tB-x\tO\n\n"
    row = Row({}, Location("t.conll", 1, 1), {"column_1": ["1", "2"], "words": ["a", "b"]})
    assert written((row, Prediction((), tags=(("a", "O"), ("b", "O")))))[0] == "1\ta\tO\n2\tb\tO\n\n"


def test_each_row_of_a_table_gets_the_tag_of_its_word():
    records = ({"id": "0", "word": "a", "prediction": "?"}, {"id": "", "word": "b", "prediction": "?"})
    raw = {"id": ["0", ""], "word": ["a", "b"], "prediction": ["?", "?"]}
    row = Row({}, Location("t.csv", 2, 1), raw, records)
    result = (row, Prediction((), tags=(("a", "B-x"), ("b", "O"))))
    out = io.StringIO()
    assert write_csv(out, [], [result, result]) == 2
    read = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert (
        read
        == [{**record, "prediction_": tag} for record, tag in zip(records, ["B-x", "O"], strict=True)] * 2
    )
    out = io.StringIO()
    write_jsonl(out, [result])
    assert [json.loads(line) for line in out.getvalue().splitlines()] == read[:2]
    assert written(result)[0] == "a\tB-x\nb\tO\n\n"
