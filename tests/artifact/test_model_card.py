"""The code in the README of a saved folder runs as it stands."""

from __future__ import annotations

import re

import pytest
from tests.sentence_folders import PAIRS, write_rows

import bertune

WORDS = [{"words": row["text"].split(), "tags": ["O", "B-X", "O", "O"]} for row in PAIRS]


def labelled(label, pair=True):
    parts = ("text", "text_b") if pair else ("text",)
    return [{**{part: row[part] for part in parts}, "label": label(n)} for n, row in enumerate(PAIRS)]


CASES = {
    "classify": ("classify", labelled(lambda n: n % 2, pair=False), []),
    "classify pairs": ("classify", labelled(lambda n: n % 2), ["options.pooling=mean"]),
    "regress": ("regress", labelled(lambda n: n % 5, pair=False), []),
    "regress pairs": ("regress", labelled(lambda n: n % 5), []),
    "match": ("match", labelled(lambda n: n % 5), []),
    "match by labels": ("match", labelled(lambda n: "ab"[n % 2]), ["options.loss=softmax"]),
    "embed": ("embed", PAIRS, []),
    "tag": ("tag", WORDS, []),
    "pretrain": ("pretrain", [{"text": row["text"]} for row in PAIRS], []),
}


@pytest.mark.parametrize("kind", CASES)
def test_its_code_runs(kind, tiny, tmp_path, monkeypatch):
    task, rows, settings = CASES[kind]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'model'}"]
    folder = bertune.train(task, [*files, "train.max_steps=1", *settings], quiet=True).folder
    monkeypatch.chdir(tmp_path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(import bertune.*?)```", card, re.DOTALL)
    assert len(code) == 1
    exec(code[0], {})
    assert ("predict([(" in code[0]) == ("pairs" in kind or task == "match")
