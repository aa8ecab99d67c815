"""Exports of annotation tools are read as texts with spans; what was not accepted is left out and counted."""

from __future__ import annotations

import json

import pytest
from tests.builders import read_tagging_file

from bertune.commands.train import prepare
from bertune.errors import DataError
from bertune.types import Span

PERSON = [{"start": 0, "end": 4, "label": "PER"}]
TASK = prepare("tag", ["data.train=rows.jsonl"])[1]


def targets(write, name: str, content: object):
    """The entities of each row of a file, and the notes about it."""
    rows, notes = read_tagging_file(
        write(name, content if isinstance(content, list | str) else json.dumps(content))
    )
    return [TASK.read(row).target for row in rows], notes


def studio_task(*annotations, key="text", **data):
    """A task of Label Studio's full export: Anna lives."""
    regions = [{"type": "labels", "value": {"start": 0, "end": 4, "text": "Anna", "labels": ["PER"]}}]
    given = annotations or ({"result": regions},)
    return {"id": 1, "data": {key: "Anna lives", **data}, "annotations": list(given), "predictions": []}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("key", ["text", "body"])
def test_label_studio(key, indent, write):
    found, notes = targets(write, "t.json", json.dumps([studio_task(key=key)] * 3, indent=indent))
    assert found == [(Span(0, 4, "PER"),)] * 3
    assert any("3 tasks of Label Studio's export" in note for note in notes)


def test_label_studio_reads_one_annotation_of_several(write):
    nothing, cancelled = {"result": []}, {"result": [], "was_cancelled": True}
    right = {**studio_task()["annotations"][0], "ground_truth": True}
    choice = {"result": [{"type": "choices", "value": {"choices": ["x"]}}, *right["result"]]}
    rows = [
        studio_task(nothing, right),
        studio_task(cancelled, right),
        studio_task(choice),
        studio_task(nothing),
    ]
    found, notes = targets(write, "t.json", rows)
    assert found == [(Span(0, 4, "PER"),)] * 3 + [()]
    assert any("1 tasks have several annotations" in note for note in notes)


def test_label_studio_names_tasks_that_it_cannot_read(write):
    with pytest.raises(DataError, match=r"t\.jsonl:1: this task .* texts found: 'a', 'b'"):
        read_tagging_file(write("t.jsonl", [{"data": {"a": "x", "b": "y"}, "annotations": []}]))
    rows, _ = read_tagging_file(write("t.jsonl", [studio_task(), {**studio_task(), "annotations": []}]))
    assert [TASK.read(row).target for row in rows] == [(Span(0, 4, "PER"),), None]


def prodigy(answer="accept", **more):
    tokens = [
        {"text": "Anna", "start": 0, "end": 4, "id": 0},
        {"text": "lives", "start": 5, "end": 10, "id": 1},
    ]
    return {
        "text": "Anna lives",
        "_input_hash": 1,
        "_task_hash": 2,
        "tokens": tokens,
        "answer": answer,
        **more,
    }


def test_prodigy(write):
    rows = [prodigy(spans=PERSON), prodigy(), prodigy("reject", spans=PERSON), prodigy("ignore")]
    found, notes = targets(write, "t.jsonl", rows)
    assert found == [(Span(0, 4, "PER"),), ()]
    assert any("2 rows left out, whose answer in Prodigy is not 'accept'" in note for note in notes)


OTHERS = {
    "spaCy": {"text": "Anna lives", "entities": [[0, 4, "PER"]]},
    "doccano": {"id": 1, "text": "Anna lives", "label": [[0, 4, "PER"]], "Comments": []},
    "doccano, relations": {
        "text": "Anna lives", "entities": [{"id": 2, "label": "PER", "start_offset": 0, "end_offset": 4}],
        "relations": [],
    },
    "doccano, labels": {"id": 1, "text": "Anna lives", "labels": [[0, 4, "PER"]]},
    "displaCy": {"text": "Anna lives", "ents": PERSON, "title": None},
    "Doc.to_json": {"text": "Anna lives", "ents": PERSON, "tokens": [{"id": 0, "start": 0, "end": 4}]},
    "JSON-MIN": {"text": "Anna lives", "label": [{"start": 0, "end": 4, "labels": ["PER"]}], "id": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_tools(name, write):
    found, _ = targets(write, "t.jsonl", [OTHERS[name]] * 2)
    assert found == [(Span(0, 4, "PER"),)] * 2
