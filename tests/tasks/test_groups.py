"""The group of each row, found again in its file: by file, line and texts."""

from __future__ import annotations

import copy
import json

import pytest

from bertune.commands.train import prepare
from bertune.console import Console
from bertune.data.rows import resolve_files
from bertune.errors import ConfigError, DataError
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.groups import read_groups

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2], "g": f"g{n // 3}"} for n in range(12)]


def groups_of(train, task="classify", column="g", **data):
    """The texts of the rows that training reads, and the number of the group of each."""
    settings = {"task": task, "data": {"train": train, "dev_fraction": 0, **data}}
    run, task = prepare(settings)
    blank = copy.deepcopy(task)
    rows = read_datasets(run, task, Console(quiet=True)).train
    files = resolve_files(run.data.train, "train")
    return [e.texts[0] for e in rows], read_groups(files, blank, run.data, column, rows).tolist()


def expect(texts, groups, rows=ROWS):
    """Every row has the group of its row in the file."""
    name_of = {row["text"]: row["g"] for row in rows}
    names = [name_of[text] for text in texts]
    assert [names.index(name) for name in names] == [groups.index(number) for number in groups]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"limit": 7},
        {"drop_labels": ["c"]},
        {"bad_rows": "skip"},
        {"cache": "on"},
        {"cache": "on", "limit": 7},
    ],
    ids=str,
)
def test_rows_keep_their_group_whatever_is_left_out(write, tmp_path, monkeypatch, data):
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    extra = [{"text": "left out", "label": "c", "g": ""}] if "drop_labels" in data else []
    bad = [{"text": "", "label": "a", "g": None}] if "bad_rows" in data else []
    for _ in range(2):  # the second time rows may come from the cache
        texts, groups = groups_of(write("r.jsonl", [*extra, *ROWS[:5], *bad, *ROWS[5:]]), **data)
        assert len(texts) == data.get("limit", 12)
        expect(texts, groups)


def test_several_files_share_groups(write):
    texts, groups = groups_of([write("a.jsonl", ROWS[:4]), write("b.jsonl", ROWS[4:])])
    expect(texts, groups)
    assert len(set(groups)) == 4


def test_rows_of_one_line_are_told_apart_by_their_texts(write):
    texts, groups = groups_of(write("r.json", json.dumps(ROWS)))
    expect(texts, groups)
    twice = [{"text": "same", "label": "a", "g": "x"}, {"text": "same", "label": "b", "g": "y"}]
    others = [{"text": "x", "label": "a", "g": "x"}, {"text": "y", "label": "b", "g": "y"}]
    _, groups = groups_of(write("r.json", json.dumps([*twice, *others])))
    assert len(set(groups)) == 1  # which group the first has cannot be told, and their texts tie them anyway


def test_numbers_and_csv_and_tables_with_a_word_a_row(write):
    csv = "text,label,g\n" + "".join(f"{r['text']},{r['label']},{n % 3}\n" for n, r in enumerate(ROWS))
    assert groups_of(write("r.csv", csv))[1] == [0, 1, 2] * 4
    rows = [{"text": f"t {n}", "label": "ab"[n % 2], "g": [1, 1.0, "1", 2][n % 4]} for n in range(8)]
    assert groups_of(write("n.jsonl", rows))[1] == [0, 0, 0, 1] * 2
    words = "sentence_id,word,tag,g\n" + "".join(
        f"{n},w{n},B-X,{n % 2}\n{n},of,O,{n % 2}\n" for n in range(4)
    )
    assert groups_of(write("w.csv", words), "tag")[1] == [0, 1, 0, 1]


def test_what_has_no_group_is_refused_by_file_and_line(write):
    with pytest.raises(
        ConfigError, match=r"no column 'gg'; did you mean 'g'\?; columns: 'text', 'label', 'g'"
    ):
        groups_of(write("r.jsonl", ROWS), column="gg")
    with pytest.raises(DataError, match=r"r.jsonl:3: column 'g' .--group. is empty"):
        groups_of(write("r.jsonl", [*ROWS[:2], {**ROWS[2], "g": " "}, *ROWS[3:]]))
    with pytest.raises(ConfigError, match="in CoNLL columns, of which none holds for a whole sentence"):
        groups_of(write("t.conll", "a B-X\nb O\n\nc O\nd B-X\n\n"), "tag")
    words = "sentence_id,word,tag,g\n0,a,B-X,1\n0,b,O,2\n1,c,O,3\n"
    with pytest.raises(
        DataError, match="words of this sentence have different groups in column 'g': '1', '2'"
    ):
        groups_of(write("w.csv", words), "tag")


def test_a_file_that_has_changed_is_noticed(write):
    path = write("r.jsonl", ROWS)
    run, task = prepare({"task": "classify", "data": {"train": path, "dev_fraction": 0}})
    blank = copy.deepcopy(task)
    rows = read_datasets(run, task, Console(quiet=True)).train
    write("r.jsonl", [{**ROWS[0], "text": "new"}, *ROWS[1:]])
    with pytest.raises(DataError, match=r"r.jsonl:1: the file has changed since it was read"):
        read_groups([path], blank, run.data, "g", rows)
