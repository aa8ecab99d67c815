"""Tables with a word a row become sentences, in every format, and texts of one word stay texts."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.builders import read_tagging_file

from bertune.data.records import BadRows
from bertune.errors import DataError
from bertune.types import Row

NUMBERED = [
    (0, "Anna", "B-PER"), (0, "Berg", "I-PER"), (0, "lives", "O"), (1, "Peter", "B-PER"), (1, ".", "O"),
]  # fmt: skip
SENTENCES = [(["Anna", "Berg", "lives"], ["B-PER", "I-PER", "O"]), (["Peter", "."], ["B-PER", "O"])]


def sentences(rows: list[Row]) -> list[tuple[object, object]]:
    return [(row.fields["text"], row.fields.get("label")) for row in rows]


def table(rows, names=("sentence_id", "word", "tag"), delimiter=","):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in (names, *rows))


def every_format(tmp_path, names):
    rows = [dict(zip(names, row, strict=True)) for row in NUMBERED]
    (tmp_path / "rows.csv").write_text(table(NUMBERED, names))
    (tmp_path / "rows.tsv").write_text(table(NUMBERED, names, "\t"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    return [tmp_path / f"rows.{suffix}" for suffix in ("csv", "tsv", "jsonl", "json", "parquet")]


@pytest.mark.parametrize(
    "names",
    [
        ("sentence_id", "words", "labels"),
        ("Sentence #", "Word", "Tag"),
        ("sent_id", "token", "ner_tags"),
        ("sentence_idx", "form", "ner"),
    ],
)
def test_rows_with_one_number_are_one_sentence(names, tmp_path):
    for file in every_format(tmp_path, names):
        rows, notes = read_tagging_file(file)
        assert sentences(rows) == SENTENCES, file
        said = f"{file}: a word a row: 5 rows grouped to 2 sentences by column {names[0]!r}"
        assert said in notes
        assert [len(row.word_records) for row in rows] == [3, 2]
        assert rows[1].word_records[0] == {name: row.raw[name][0] for row in rows[1:] for name in row.raw}


def test_only_the_first_row_of_a_sentence_has_its_number(write, tmp_path):
    """As in the data set of Kaggle, whose empty cells pandas writes as NaN."""
    rows = [("Sentence: 1", "Anna", "NNP", "B-PER"), ("", "Berg", "NNP", "I-PER"), ("", "lives", "VBZ", "O"),
            ("Sentence: 2", "Peter", "NNP", "B-PER"), ("", ".", ".", "O")]  # fmt: skip
    names = ("Sentence #", "Word", "POS", "Tag")
    assert sentences(read_tagging_file(write("k.csv", table(rows, names)))[0]) == SENTENCES
    assert sentences(read_tagging_file(write("k.tsv", table(rows, names, "\t")))[0]) == SENTENCES
    columns = {name: [row[n] or None for row in rows] for n, name in enumerate(names)}
    columns["Sentence #"] = [1.0, None, None, 2.0, None]
    pq.write_table(pa.table(columns), tmp_path / "k.parquet")
    assert sentences(read_tagging_file(tmp_path / "k.parquet")[0]) == SENTENCES


def test_a_table_without_tags_is_grouped_for_prediction(write):
    file = write("t.csv", "sentence_id,word\n3,Anna\n3,lives\n7,Peter\n")
    assert sentences(read_tagging_file(file, target=False)[0]) == [
        (["Anna", "lives"], None),
        (["Peter"], None),
    ]


def test_a_column_of_any_name_is_named_by_the_user(write):
    text = table(NUMBERED, ("sid", "word", "tag"))
    with pytest.raises(DataError, match=r"each row is one word .*data\.columns=\{sentence_id: sid\}"):
        read_tagging_file(write("t.csv", text))
    rows, _ = read_tagging_file(write("t.csv", text), columns={"sentence_id": "sid"})
    assert sentences(rows) == SENTENCES
    with pytest.raises(DataError, match="no column 'side' for 'sentence_id'; did you mean 'sid'"):
        read_tagging_file(write("t.csv", text), columns={"sentence_id": "side"})


def test_blank_lines_and_empty_rows_divide_sentences(write):
    lines = [f"{word},{tag}" for _, word, tag in NUMBERED]
    for between in ("", ","):
        text = "\n".join(["word,tag", *lines[:3], between, *lines[3:], ""])
        rows, notes = read_tagging_file(write("t.csv", text))
        assert sentences(rows) == SENTENCES
        assert "5 rows grouped to 2 sentences at blank lines and rows" in notes[-1]


def test_without_any_sign_of_sentences_it_is_refused_or_cut(write):
    file = write("t.csv", table([row[1:] for row in NUMBERED], ("word", "tag")))
    with pytest.raises(DataError, match="nothing says where a sentence ends; name the column"):
        read_tagging_file(file)
    rows, notes = read_tagging_file(file, sentence_ends=["lives", "."])
    assert sentences(rows) == SENTENCES
    assert "after data.sentence_ends" in notes[-1]


def test_parts_of_speech_a_row(write):
    rows = [("She", "PRON"), ("runs", "VERB"), (".", "PUNCT")] * 2
    with pytest.raises(DataError, match="nothing says where a sentence ends"):
        read_tagging_file(write("t.csv", table(rows, ("word", "pos"))))
    numbered = [(n // 3, *row) for n, row in enumerate(rows)]
    found, _ = read_tagging_file(write("t.csv", table(numbered, ("sent_id", "word", "pos"))))
    assert sentences(found) == [(["She", "runs", "."], ["PRON", "VERB", "PUNCT"])] * 2


def test_numbers_may_have_gaps_and_begin_anew(write):
    rows, notes = read_tagging_file(
        write("t.csv", "sentence_id,word,tag\n4,a,O\n4,b,O\n9,c,O\n4,d,O\n4,e,O\n")
    )
    assert [text for text, _ in sentences(rows)] == [["a", "b"], ["c"], ["d", "e"]]
    assert "begin anew 1 times" in notes[-1]


@pytest.mark.parametrize("numbers", ["0101", "112232", "00112210", "5675"])
def test_rows_of_a_sentence_that_stand_apart_are_refused(numbers, write):
    text = table([(number, "w", "O") for number in numbers])
    with pytest.raises(
        DataError, match=r"t\.csv:\d+: sentence \d .* goes on here, after other sentences: sort"
    ):
        read_tagging_file(write("t.csv", text))


def test_documents_have_numbers_of_their_own(write):
    text = "doc_id,sentence_id,word,tag\na,1,x,O\na,1,y,O\nb,1,z,O\nb,1,w,O\n"
    assert [text for text, _ in sentences(read_tagging_file(write("t.csv", text))[0])] == [
        ["x", "y"],
        ["z", "w"],
    ]


def test_a_bad_row_costs_its_sentence(write):
    text = "sentence_id,word,tag\n0,a,O\n0,b,O,x\n0,c,O\n1,d,O\n1,e,O\n"
    with pytest.raises(DataError, match=r"t\.csv:3: 4 columns where 3 are expected"):
        read_tagging_file(write("t.csv", text))
    rows, notes = read_tagging_file(write("t.csv", text), bad=BadRows(skip=True))
    assert sentences(rows) == [(["d", "e"], ["O", "O"])]
    assert "a row of this sentence cannot be used" in notes[-1]


TEXTS = {
    "every text has a number": [
        {"sentence_id": n, "text": text, "label": tag}
        for n, (text, tag) in enumerate([("Anna", "B-PER"), ("dog", "O"), (".", "O"), (".", "O")])
    ],
    "names": [
        {"text": name, "label": tag} for name, tag in (("Anna", "B-PER"), ("dog", "O"), ("Bo", "B-PER"))
    ],
    "IOB1": [{"text": name, "label": "I-PER"} for name in ("Anna", "Bo", "Kim")],
    "plain texts": [{"text": "Anna"}, {"text": "."}, {"text": "."}],
    "several words": [{"sentence_id": 1, "text": "a b", "label": "O O"}] * 3,
    "spans": [{"sentence_id": 1, "text": "Anna", "label": [[0, 4, "PER"]]}] * 3,
    "Chinese": [{"sentence_id": 1, "text": "高勇来了", "label": "B-N E-N O O"}] * 3,
    "lists": [{"sentence_id": 1, "words": ["a"], "tags": ["O"]}] * 3,
}


@pytest.mark.parametrize("name", TEXTS)
def test_rows_that_are_whole_texts_stay_as_they_are(name, write):
    given = TEXTS[name]
    rows, notes = read_tagging_file(write("t.jsonl", given), target=name != "plain texts")
    assert [row.raw for row in rows] == given
    assert not any(row.word_records for row in rows)
    assert not any("a word a row" in note for note in notes)


def test_columns_are_named_in_the_singular_too(write):
    rows, _ = read_tagging_file(write("t.jsonl", [{"token": ["a", "b"], "upos": ["DET", "NOUN"], "id": 4}]))
    assert sentences(rows) == [(["a", "b"], ["DET", "NOUN"])]


def test_a_setting_without_effect_is_named(write):
    _, notes = read_tagging_file(write("t.jsonl", [{"text": ["a"], "label": ["O"]}]), sentence_ends=["."])
    assert any("data.sentence_ends has no effect" in note for note in notes)


def test_the_text_of_a_sentence_beside_each_of_its_words(write):
    rows = [("Anna in 2010", "Anna", "B-x"), ("Anna in 2010", "in", "O"), ("Anna in 2010", "2010", "O"),
            ("So what", "So", "O"), ("So what", "what", "O"), ("Anna in 2010", "Anna", "B-x")]  # fmt: skip
    file = write("t.csv", table(rows, ("sentence", "word", "tag")))
    found = sentences(read_tagging_file(file)[0])
    assert [text for text, _ in found] == [["Anna", "in", "2010"], ["So", "what"], ["Anna"]]


def test_an_id_that_rows_share_is_no_id_of_rows(write):
    rows = [(1, "Anna", "B-x"), (1, "lives", "O"), (2, "Bo", "B-x"), (2, "eats", "O")]
    with pytest.raises(DataError, match=r"each row is one word .*data\.columns=\{sentence_id: id\}"):
        read_tagging_file(write("t.csv", table(rows, ("id", "word", "tag"))))
    found, _ = read_tagging_file(write("t.csv", table(rows, ("year", "word", "tag"))))
    assert len(found) == 4


def test_many_rows_of_one_word_are_said(write):
    rows = [("Anna", "B-x"), ("dog", "O")] * 10
    found, notes = read_tagging_file(write("t.csv", table(rows, ("text", "label"))))
    assert len(found) == 20
    assert any("each row is a text of one word" in note for note in notes)


def test_names_of_columns_may_be_listed(write):
    file = write("t.csv", table(NUMBERED[1:], NUMBERED[0]))
    found, _ = read_tagging_file(file, columns=["sentence_id", "text", "label"])
    assert sentences(found) == SENTENCES
