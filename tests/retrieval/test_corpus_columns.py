"""Which column of a corpus is read: the one that is named, else one of the training, else a well-known name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.console import Console
from bertune.retrieval.corpus import CORPUS_COLUMNS, Corpus, corpus_columns, corpus_data_config
from bertune.tasks.base.reading import read_and_fit
from bertune.tasks.embed import Embed
from bertune.tasks.match import Match

MULTI = {"title": "T", "question": "how to pay", "answer": "by card", "body": "long body"}
PAIRS = [
    ("how do I pay", "by card or cash"),
    ("where is it", "in the post office"),
    ("who are you", "a large shop"),
]


def rows_of(folder: Path, record: dict[str, Any], pipeline: Any, *overrides: str) -> tuple[list[str], str]:
    """The texts of a corpus of one row, and what is said of its columns."""
    file = folder / "corpus.jsonl"
    file.write_text(json.dumps(record) + "\n")
    said: list[str] = []
    console = Console(quiet=True)
    console.info = said.append  # type: ignore[method-assign]
    data = corpus_data_config(pipeline, str(file), overrides)
    corpus = Corpus(str(file), data, console, corpus_columns(pipeline))
    return [row.text for row in corpus.rows(verbose=True)], said[0].split("corpus.jsonl: ")[1]


def trained(folder: Path, task: str, names: tuple[str, str], *overrides: str) -> Any:
    """Something like a pipeline, whose task has learned from a file and was saved and opened again."""
    file = folder / "t.jsonl"
    rows = [{names[0]: a, names[1]: b, "label": n % 2} for n, (a, b) in enumerate(PAIRS)]
    if task == "embed":
        rows = [{k: v for k, v in row.items() if k != "label"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, learner = prepare(task, overrides)
    read_and_fit([str(file)], learner, run.data, lambda _: None)
    assert isinstance(learner, Embed | Match)
    again = type(learner)(learner.options, run.data)  # type: ignore[arg-type]
    again.load_state(json.loads(json.dumps(learner.state())))
    return SimpleNamespace(task=again)


@pytest.mark.parametrize("task", ["embed", "match"])
@pytest.mark.parametrize(
    ("names", "column"),
    [
        (("question", "answer"), "question"),
        (("Answer", "pos"), None),  # no names of a pair
        (("query", "answer"), "answer"),  # the corpus has only the second one
        (("title", "body"), "title"),
        (("sentence1", "sentence2"), "title"),  # neither: by well-known names
    ],
)
def test_columns_of_the_training_come_first(
    task: str, names: tuple[str, str], column: str | None, tmp_path: Path
) -> None:
    overrides = [] if column else [f"data.columns={{text: {names[0]}, text_b: {names[1]}}}"]
    pipeline = trained(tmp_path, task, names, *overrides)
    if column is None:  # named in the settings of the training
        pipeline.task.data = DataConfig()
        column = "answer"
    texts, said = rows_of(tmp_path, MULTI, pipeline)
    assert texts == [MULTI[column]]
    assert said.startswith(f"text = column {column!r}; not used: ")
    texts, _ = rows_of(tmp_path, MULTI, pipeline, "data.columns={text: body}")
    assert texts == ["long body"]


def test_title_and_text_are_joined_when_asked(tmp_path: Path) -> None:
    document = {"_id": "d0", "title": "Tracking", "text": "Where parcels are."}
    pipeline = SimpleNamespace(task=SimpleNamespace(data=DataConfig(), text_columns=()))
    assert rows_of(tmp_path, document, pipeline)[0] == ["Where parcels are."]
    joined = "data.columns={text: [title, text]}"
    texts, said = rows_of(tmp_path, document, pipeline, joined)
    assert (texts, said) == (
        ["Tracking Where parcels are."],
        "text = columns 'title', 'text'; not used: '_id'",
    )
    assert rows_of(tmp_path, {**document, "title": ""}, pipeline, joined)[0] == ["Where parcels are."]
    assert rows_of(tmp_path, {**document, "text": None}, pipeline, joined)[0] == ["Tracking"]
    # a model that was trained on joined texts reads a corpus in the same way
    columns = {"text": ["title", "text"]}
    pipeline = SimpleNamespace(task=SimpleNamespace(data=DataConfig(columns=columns), text_columns=()))
    assert rows_of(tmp_path, document, pipeline)[0] == ["Tracking Where parcels are."]


def test_models_of_other_tools_know_no_columns(tmp_path: Path) -> None:
    pipeline = SimpleNamespace(task=SimpleNamespace(data=DataConfig(), text_columns=()))
    assert corpus_columns(pipeline) == replace(CORPUS_COLUMNS, text_aliases=())
    assert rows_of(tmp_path, MULTI, pipeline)[0] == ["T"]
