"""A task that learns from a part of its rows: the same for all of them, and it still knows all labels."""

from __future__ import annotations

import pytest

from bertune.commands.train import prepare
from bertune.console import Console
from bertune.tasks.base.datasets import read_datasets

NOUNS = ["dog", "cat", "tree", "house", "car", "book", "red", "blue", "green", "big"]
KINDS = {
    "single label": (
        "classify",
        [{"text": f"a {n}", "label": "xyz"[i % 3]} for i, n in enumerate(NOUNS)],
        {},
    ),
    "balanced": (
        "classify",
        [{"text": f"a {n}", "label": "xy"[i % 3 == 0]} for i, n in enumerate(NOUNS)],
        {"class_weights": "balanced"},
    ),
    "several labels": (
        "classify",
        [{"text": f"a {n}", "label": ["x"] if i % 2 else ["y", "z"]} for i, n in enumerate(NOUNS)],
        {},
    ),
    "flags": ("classify", [{"text": n, "label": [i % 2, 1, 0]} for i, n in enumerate(NOUNS)], {}),
    "numbers": ("regress", [{"text": f"a {n}", "label": i / 2} for i, n in enumerate(NOUNS)], {}),
    "entities": (
        "tag",
        [
            {"tokens": ["the", n], "tags": ["O", f"B-{'per' if i % 2 else 'loc-in'}"]}
            for i, n in enumerate(NOUNS)
        ],
        {},
    ),
    "scores": ("match", [{"text": n, "text_b": "dog", "label": i / 2} for i, n in enumerate(NOUNS)], {}),
    "classes of pairs": (
        "match",
        [{"text": n, "text_b": "dog", "label": i % 3} for i, n in enumerate(NOUNS)],
        {},
    ),
    "labels in words": (
        "match",
        [{"text": n, "text_b": "dog", "label": "yes" if i % 3 else "no"} for i, n in enumerate(NOUNS)],
        {},
    ),
    "pairs": ("embed", [{"text": n, "text_b": f"the {n}"} for n in NOUNS], {}),
    "texts": ("embed", [{"text": n} for n in NOUNS], {}),
}


@pytest.fixture
def read(tiny, write):
    def read(kind):
        task, rows, options = KINDS[kind]
        file = write("rows.jsonl", rows)
        run, fitted = prepare(
            {
                "task": task,
                "model": str(tiny),
                "data": {"train": str(file), "dev": str(file)},
                "options": options,
            }
        )
        return fitted, read_datasets(run, fitted, Console(quiet=True))

    return read


@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_teach_the_same_again(kind, read):
    task, splits = read(kind)
    before = task.state()
    again = task.refit(splits.train, lambda _: None)
    assert again is not task
    assert again.state() == task.state() == before
    assert (again.data, again.options) == (task.data, task.options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_keeps_what_a_row_can_be(kind, read):
    task, splits = read(kind)
    part = task.refit(splits.train[:4], lambda _: None)
    for example in splits.train:
        part.check(example)
        part.encode_target(example.target)
    assert part.known_labels() == task.known_labels()
    for name in ("labels", "entity_types", "loss_name", "score_range", "is_binary", "scheme", "unit"):
        assert getattr(part, name, None) == getattr(task, name, None)


def test_weights_and_means_are_those_of_the_part(read):
    task, splits = read("balanced")
    part = task.refit(splits.train[:4], lambda _: None)
    assert part.class_weights != task.class_weights
    task, splits = read("numbers")
    assert task.refit(splits.train[:4], lambda _: None).target_mean == 0.75
