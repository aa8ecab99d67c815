"""embed: one text, those that belong to it, and those that do not, in every number; and texts that no field reads."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import build_run

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.data.mapped_dataset import DatasetWriter
from bertune.errors import DataError
from bertune.heads.sentence import SentenceOutput
from bertune.tasks.base.reading import check_examples, read_and_fit, read_examples, read_splits
from bertune.tasks.base.task import Task
from bertune.tasks.embed import Embed, EmbedOptions
from bertune.types import EncodedExample, Encoding, Example, Location, Prediction

QUESTIONS = [
    "How do I reset my password?",
    "Where is my parcel?",
    "Can I pay by card?",
    "Do you ship abroad?",
]
ANSWERS = [
    "Resetting a forgotten password",
    "Tracking a delivery",
    "Cards are accepted",
    "We ship everywhere",
]
OTHERS = [
    "Changing your user name",
    "Delivery fees in winter",
    "Paying by invoice",
    "Weight limits of parcels",
]


def rows_of(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write(folder: Path, rows: Sequence[dict[str, Any]], name: str = "t.jsonl") -> str:
    file = folder / name
    if name.endswith(".csv"):
        import csv

        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(file)


def learn(
    folder: Path, rows: Sequence[dict[str, Any]], *overrides: str, name: str = "t.jsonl", task: str = "embed"
) -> tuple[Task, list[Example], list[str]]:
    """Let a task learn from a file; return the task, the examples, and what was said."""
    notes: list[str] = []
    run, learner = prepare(task, overrides)
    examples = read_and_fit([write(folder, rows, name)], learner, run.data, notes.append)
    return learner, list(examples), notes


def parts(example: Example) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The first text, those that belong to it, and those that do not."""
    first, *others = example.texts
    return first, tuple(others[: example.num_positives]), tuple(others[example.num_positives :])


# ---------------------------------------------------------------- names of columns


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("question", "answer"), ("query", "response"), ("query", "pos"), ("anchor", "positive"), ("query", "doc"),
        ("sentence_0", "sentence_1"), ("sent0", "sent1"), ("sent1", "sent2"), ("text", "text2"), ("title", "body"),
        ("title", "abstract"), ("summary", "text"), ("source", "target"), ("input_text", "target_text"),
        ("prompt", "response"), ("Query", "Passage"), ("问题", "回答"), ("问题", "答案"), ("标题", "正文"),
    ],
)  # fmt: skip
def test_names_of_texts_that_belong_together(first: str, second: str, tmp_path: Path) -> None:
    rows = rows_of(**{first: QUESTIONS, second: ANSWERS})
    for name in ("t.jsonl", "t.csv"):
        task, examples, notes = learn(tmp_path, rows, name=name)
        assert [e.texts for e in examples] == list(zip(QUESTIONS, ANSWERS, strict=True))
        assert notes == [f"{tmp_path / name}: text = column {first!r}, text_b = column {second!r}"]
        assert task.describe() == "sentence vectors from pairs of texts that belong together"


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_other_tasks_read_a_question_alone_and_say_how_to_read_both(task: str, tmp_path: Path) -> None:
    rows = rows_of(question=QUESTIONS, answer=ANSWERS, label=[0, 1, 0, 1])
    _, examples, notes = learn(tmp_path, rows, task=task)
    assert [e.texts for e in examples] == [(q,) for q in QUESTIONS]
    assert notes[0].endswith(
        "text = column 'question', label = column 'label'; not used: 'answer' "
        "(data.columns={text: question, text_b: answer, label: label} reads both texts)"
    )
    _, examples, notes = learn(
        tmp_path, rows, "data.columns={text: question, text_b: answer, label: label}", task=task
    )
    assert [e.texts for e in examples] == list(zip(QUESTIONS, ANSWERS, strict=True))
    assert "reads both" not in notes[0]


def test_a_source_beside_a_text_is_no_pair(tmp_path: Path) -> None:
    rows = rows_of(text=QUESTIONS, source=["web", "mail", "web", "mail"], target=["a", "b", "c", "d"])
    _, examples, _ = learn(tmp_path, rows)
    assert [e.texts for e in examples] == [(q,) for q in QUESTIONS]


@pytest.mark.parametrize(
    ("columns", "text", "other"),
    [
        ({"text": QUESTIONS, "frage_zwei": ANSWERS}, "text", "frage_zwei"),
        ({"title": ANSWERS, "content": OTHERS, "id": [1, 2, 3, 4]}, "content", "title"),
        ({"query": QUESTIONS, "target": ANSWERS}, "query", "target"),
        ({"question": QUESTIONS, "answers": [[a] for a in ANSWERS]}, "question", "answers"),
        ({"句子": ["今天天气很好吗", "你叫什么名字呢", "我想要退货吗", "包裹在哪里呢"],
          "备注": ["今天的天气确实很不错", "我的名字叫作小明", "可以在七天内退货", "包裹正在运输途中"]}, "句子", "备注"),
    ],
)  # fmt: skip
def test_texts_that_would_go_unread_are_refused(
    columns: dict[str, list[Any]], text: str, other: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        learn(tmp_path, rows_of(**columns))
    assert f"column {other!r} not read, but holds texts too" in str(caught.value)
    assert f"data.columns={{text: {text}, text_b: {other}}}" in str(caught.value)
    for settings_given, number in (
        (f"{{text: {text}, text_b: {other}}}", 2),
        (f"{{text: {text}}}", 1),
    ):
        _, examples, _ = learn(tmp_path, rows_of(**columns), f"data.columns={settings_given}")
        assert len(examples[0].texts) == number


def test_titles_beside_long_texts_are_said(tmp_path: Path) -> None:
    articles = [f"{text}, and {' and '.join(OTHERS)}" for text in QUESTIONS]
    task, examples, notes = learn(tmp_path, rows_of(title=ANSWERS, content=articles))
    assert task.describe().startswith("sentence vectors from single texts")
    assert [e.texts[0] for e in examples] == articles
    assert "column 'title' not read, but holds texts too" in notes[1]
    assert "data.columns={text: [content, title]} for both joined" in notes[1]


@pytest.mark.parametrize(
    "column",
    [
        ["shop", "shop", "news", "news"],  # few values
        ["a long name of a category", "a long name of a category", "another long name of one", "another long name of one"],
        ["Jane Doe", "John Roe", "Ann Poe", "Tim Coe"],  # short
        ["https://a.example/1", "https://a.example/2", "https://a.example/3", "https://a.example/4"],
        ["2024-01-01 10:00", "2024-01-02 11:00", "2024-01-03 12:00", "2024-01-04 13:00"],
        [1.5, 2, 3, 4],
        [["login", "user", "help"], ["post", "box", "way"], ["card", "cash", "fee"], []],
        ["one long remark about a single row", None, None, None],
    ],
)  # fmt: skip
def test_other_columns_beside_single_texts_are_no_texts(column: list[Any], tmp_path: Path) -> None:
    task, _, notes = learn(tmp_path, rows_of(text=QUESTIONS, other=column))
    assert task.describe().startswith("sentence vectors from single texts")
    assert notes == [f"{tmp_path / 't.jsonl'}: text = column 'text'; not used: 'other'"]


def test_texts_beside_a_pair_are_said(tmp_path: Path) -> None:
    _, _, notes = learn(tmp_path, rows_of(question=QUESTIONS, answer=ANSWERS, remark=OTHERS))
    assert "data.columns={text: question, text_b: answer, negative: remark}" in notes[1]
    rows = rows_of(query=QUESTIONS, pos=[[a] for a in ANSWERS], prompt=["Represent this: "] * 4)
    _, _, notes = learn(tmp_path, rows)
    assert notes[1:] == ["column 'prompt' is not used: options.prompts are the prompts of all rows"]


def test_texts_of_several_columns_are_joined(tmp_path: Path) -> None:
    rows = rows_of(_id=["a", "b", "c", "d"], title=[*ANSWERS[:3], ""], text=OTHERS)
    _, examples, notes = learn(tmp_path, rows, "data.columns={text: [title, text]}")
    joined = [*(f"{a} {o}" for a, o in zip(ANSWERS[:3], OTHERS, strict=False)), OTHERS[3]]
    assert [e.texts for e in examples] == [(text,) for text in joined]
    assert notes[0].endswith("text = columns 'title', 'text'; not used: '_id'")
    both = "data.columns={text: _id, text_b: [title, text]}"
    for task, rest in (("embed", {}), ("match", {"label": [1, 2, 4, 3]})):
        _, examples, _ = learn(
            tmp_path, rows_of(**{k: [r[k] for r in rows] for k in rows[0]}, **rest), both, task=task
        )
        assert [e.texts[1] for e in examples] == joined
    with pytest.raises(DataError, match=r"t\.jsonl:2: 'text' is empty"):
        learn(
            tmp_path, [rows[0], {**rows[1], "title": " ", "text": None}], "data.columns={text: [title, text]}"
        )
    with pytest.raises(DataError, match=r"t\.jsonl:1: 'text' must be text, got dict"):
        learn(tmp_path, [{**rows[0], "title": {"a": "b"}}], "data.columns={text: [title, text]}")


# ---------------------------------------------------------------- several of a kind


def test_negatives_of_several_columns(tmp_path: Path) -> None:
    rows = rows_of(anchor=QUESTIONS, positive=ANSWERS, negative_1=OTHERS, negative_2=[*OTHERS[1:], ""])
    rows[1]["negative_2"] = rows[1]["negative_1"]
    for name in ("t.jsonl", "t.csv"):
        task, examples, _ = learn(tmp_path, rows, name=name)
        assert [parts(e) for e in examples] == [
            (QUESTIONS[0], (ANSWERS[0],), (OTHERS[0], OTHERS[1])),
            (QUESTIONS[1], (ANSWERS[1],), (OTHERS[1],)),  # twice the same
            (QUESTIONS[2], (ANSWERS[2],), (OTHERS[2], OTHERS[3])),
            (QUESTIONS[3], (ANSWERS[3],), (OTHERS[3],)),
        ]
        assert task.describe().endswith("belong together, each with 1 to 2 hard negatives")
        assert task.min_batch_size == 1


@pytest.mark.parametrize(
    "name", ["neg", "negatives", "hard_negatives", "hard_neg", "hard-negative-1", "neg_2"]
)
def test_names_of_negatives(name: str, tmp_path: Path) -> None:
    _, examples, _ = learn(tmp_path, rows_of(**{"query": QUESTIONS, "pos": ANSWERS, name: OTHERS}))
    assert [parts(e)[2] for e in examples] == [(o,) for o in OTHERS]


def test_lists_of_texts(tmp_path: Path) -> None:
    rows = [
        {"query": QUESTIONS[0], "pos": ANSWERS[:2], "neg": OTHERS[:3]},
        {"query": QUESTIONS[1], "pos": [ANSWERS[1]], "neg": []},
        {"query": QUESTIONS[2], "pos": [ANSWERS[2], ANSWERS[2]], "neg": [ANSWERS[2]]},
        {"query": QUESTIONS[3], "pos": ANSWERS[3], "neg": None},
    ]
    task, examples, notes = learn(tmp_path, rows)
    assert [parts(e) for e in examples] == [
        (QUESTIONS[0], tuple(ANSWERS[:2]), tuple(OTHERS[:3])),
        (QUESTIONS[1], (ANSWERS[1],), ()),
        (QUESTIONS[2], (ANSWERS[2],), (ANSWERS[2],)),
        (QUESTIONS[3], (ANSWERS[3],), ()),
    ]
    assert task.describe() == (
        "sentence vectors from texts, each with 1 to 2 that belong to it and 0 to 3 hard negatives"
    )
    assert task.min_batch_size == 2
    assert notes[1:] == [
        "1 of 4 rows have a negative that is also the text or belongs to it",
        "1 of 4 rows have several texts that belong to one: each is a pair of its own, "
        "and the others are no negatives of it",
    ]


def test_rows_may_lack_the_column_of_negatives(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = rows_of(query=QUESTIONS, pos=ANSWERS)
    rows[1]["neg"] = OTHERS[:2]
    rows[3] |= {"neg": OTHERS[2], "neg_2": OTHERS[3]}
    for order in (rows, rows[::-1]):
        task, examples, notes = learn(tmp_path, order)
        found = {e.texts[0]: parts(e)[2] for e in examples}
        negatives = [(), tuple(OTHERS[:2]), (), tuple(OTHERS[2:])]
        assert found == dict(zip(QUESTIONS, negatives, strict=True))
        assert task.describe().endswith("each with 0 to 2 hard negatives")
        assert len(notes) == 1
    with pytest.raises(DataError, match=r"t\.jsonl:2: has other fields than the first row \(text_b\)"):
        learn(tmp_path, [{"text": "a"}, {"text": "b", "text_b": "c"}])


def test_passages_with_titles(tmp_path: Path) -> None:
    """The layout of DPR and of Tevatron."""
    found = [
        {"docid": n, "title": a, "text": o} for n, (a, o) in enumerate(zip(ANSWERS, OTHERS, strict=True))
    ]
    rows = rows_of(
        question=QUESTIONS,
        answers=[["a"], ["b"], ["c"], ["d"]],
        positive_ctxs=[[passage] for passage in found],
        negative_ctxs=[[], [{"text": "only a text"}], [], []],
        hard_negative_ctxs=[found[1:3], [], found[:1], []],
    )
    joined = [f"{a} {o}" for a, o in zip(ANSWERS, OTHERS, strict=True)]
    _, examples, _ = learn(tmp_path, rows)
    assert [parts(e)[1:] for e in examples] == [
        ((joined[0],), (joined[1], joined[2])),
        ((joined[1],), ("only a text",)),
        ((joined[2],), (joined[0],)),
        ((joined[3],), ()),
    ]


def test_lists_written_as_text(tmp_path: Path) -> None:
    rows = rows_of(
        query=QUESTIONS,
        pos=[f"['{ANSWERS[0]}']", json.dumps(ANSWERS[1:3]), ANSWERS[2], "[late] where is it?"],
        neg=[str(OTHERS[:2]), "[]", "", f"['{OTHERS[3]}' '{OTHERS[0]}']"],
    )
    _, examples, notes = learn(tmp_path, rows, name="t.csv")
    assert [parts(e)[1:] for e in examples] == [
        ((ANSWERS[0],), tuple(OTHERS[:2])),
        (tuple(ANSWERS[1:3]), ()),
        ((ANSWERS[2],), ()),
        (("[late] where is it?",), (OTHERS[3], OTHERS[0])),
    ]
    assert notes[1] == f"lists written as text are read as lists (3 rows, such as {tmp_path / 't.csv'}:2)"
    labelled = [
        {"query": q, "documents": str([a, o]), "labels": "[1, 0]"}
        for q, a, o in zip(QUESTIONS, ANSWERS, OTHERS, strict=True)
    ]
    _, examples, _ = learn(tmp_path, labelled, name="t.csv")
    assert [parts(e)[1:] for e in examples] == [((a,), (o,)) for a, o in zip(ANSWERS, OTHERS, strict=True)]
    _, examples, notes = learn(tmp_path, rows_of(text=QUESTIONS, text_b=["[1]", "[2, 3]", "[]x", "[a]"]))
    assert ([e.texts[1] for e in examples], len(notes)) == (["[1]", "[2, 3]", "[]x", "[a]"], 1)


def test_documents_with_labels(tmp_path: Path) -> None:
    rows = rows_of(
        query=QUESTIONS,
        documents=[[a, o, b] for a, o, b in zip(ANSWERS, OTHERS, reversed(ANSWERS), strict=True)],
        labels=[[1, 0, 0], [True, False, True], [0.0, 0, 1], [0, 1, 0]],
    )
    _, examples, _ = learn(tmp_path, rows)
    assert [parts(e)[1:] for e in examples] == [
        ((ANSWERS[0],), (OTHERS[0], ANSWERS[3])),
        ((ANSWERS[1], ANSWERS[2]), (OTHERS[1],)),
        ((ANSWERS[1],), (ANSWERS[2], OTHERS[2])),
        ((OTHERS[3],), (ANSWERS[3], ANSWERS[0])),
    ]
    assert all(e.target is None for e in examples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [[0, 0]]}, "no text is labelled 1"),
        ({"labels": [[1]]}, "2 texts in 'text_b', but 1 in 'label'"),
        ({"labels": [[1, 3]]}, "'label' has 3; in a list of labels 1 is for texts that belong"),
        ({"documents": [["a", " "]]}, "'text_b' is empty"),
        ({"documents": [["a", None]]}, "'text_b' is missing"),
        ({"documents": [[]], "labels": [[]]}, "'text_b' is an empty list"),
        ({"documents": [[{"id": "a"}, "b"]]}, "'text_b' must be text, got dict"),
    ],
)
def test_lists_that_cannot_be_used(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = {"query": ["a"], "documents": [["b", "c"]], "labels": [[1, 0]], **changes}
    with pytest.raises(DataError) as caught:
        learn(tmp_path, rows_of(**row))
    assert f"t.jsonl:1: {message}" in str(caught.value)


# ---------------------------------------------------------------- nothing to tell apart


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": QUESTIONS, "title": ["the same"] * 4}, "'the same' belongs to the text of every row"),
        ({"query": QUESTIONS, "pos": ["the same"] * 4, "neg": ["the same"] * 4}, "belongs to the text of every row"),
        ({"query": ["the same"] * 4, "title": ANSWERS}, "every row has the same text"),
        ({"text": QUESTIONS, "text_b": QUESTIONS}, "both texts of every row are the same"),
        ({"text": ["the same"] * 4}, "every row has the same text"),
    ],
)  # fmt: skip
def test_rows_with_nothing_to_tell_apart_are_refused(
    columns: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        learn(tmp_path, rows_of(**columns))


def test_one_partner_with_negatives_is_something_to_learn(tmp_path: Path) -> None:
    learn(tmp_path, rows_of(query=QUESTIONS, pos=["the same"] * 4, neg=OTHERS))


def test_one_text_to_find_is_no_search(tmp_path: Path) -> None:
    task, examples, _ = learn(tmp_path, rows_of(text=QUESTIONS, text_b=ANSWERS))
    same = [Example((q, "the same"), None, Location("d.jsonl", n)) for n, q in enumerate(QUESTIONS, 1)]
    with pytest.raises(DataError, match=r"d\.jsonl: all 4 rows have the same text to find"):
        task.check_scorable(same)
    task.check_scorable(same[:1])  # the dev set of a small file
    task.check_scorable([*same, examples[0]])


def test_single_texts_to_score_beside_pairs_are_said(tmp_path: Path) -> None:
    write(tmp_path, rows_of(text=QUESTIONS, text_b=ANSWERS), "t.jsonl")
    for dev, said in (({"text": OTHERS}, True), ({"text": OTHERS, "text_b": ANSWERS}, False)):
        run, task = prepare(
            "embed",
            [f"data.train={tmp_path / 't.jsonl'}", f"data.dev={write(tmp_path, rows_of(**dev), 'd.jsonl')}"],
        )
        notes: list[str] = []
        read_splits(task, run.data, 0, notes.append)
        assert any("rows to score are single texts" in line for line in notes) == said


@pytest.mark.parametrize("texts", [["one"], ["one", "one"]])
def test_one_text_has_no_uniformity(texts: list[str], tmp_path: Path) -> None:
    task, examples, _ = learn(tmp_path, rows_of(text=QUESTIONS))
    dev = [Example((text,), None, Location("d.jsonl", n)) for n, text in enumerate(texts, 1)]
    with pytest.raises(DataError, match=r"d\.jsonl: there is only one text to score, so how far"):
        task.check_scorable(dev)
    task.check_scorable(examples)


# ---------------------------------------------------------------- labels of NLI data


NLI = rows_of(
    premise=[q for q in QUESTIONS for _ in range(3)],
    hypothesis=[text for row in zip(ANSWERS, OTHERS, reversed(ANSWERS), strict=True) for text in row],
    label=[0, 1, 2] * 4,
)
WORDS = ["entailment", "neutral", "contradiction"]
WORDED = [{**row, "label": WORDS[row["label"]]} for row in NLI]
ENTAILED = list(zip(QUESTIONS, ANSWERS, strict=True))


def test_entailed_pairs_belong_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the labels '0', '1', '2' look like classes; .*drop_labels=\[1,2\]"):
        learn(tmp_path, NLI)
    with pytest.raises(DataError, match=r"'neutral', and .*drop_labels=\[contradiction,neutral\]"):
        learn(tmp_path, WORDED)
    for rows, dropped in ((NLI, "[1,2]"), (WORDED, "[contradiction,neutral]")):
        task, examples, notes = learn(tmp_path, rows, f"data.drop_labels={dropped}")
        assert [e.texts for e in examples] == ENTAILED
        assert task.describe() == "sentence vectors from pairs of texts that belong together"
        assert any("labelled 0 belong together (entailment)" in line for line in notes) == (rows is NLI)
        dev = list(
            read_examples([write(tmp_path, rows, "d.jsonl")], task, task.data, lambda _: None, to_score=True)
        )
        assert len(dev) == 12
        check_examples(dev, task, task.data, lambda _: None)
        best = [Prediction(1.0 if n % 3 == 0 else 0.0) for n in range(12)]
        assert task.score(best, dev, intervals=False).values["average_precision"] == 1
        worst = [Prediction(1.0 if n % 3 == 2 else 0.0) for n in range(12)]
        assert task.score(worst, dev, intervals=False).values["average_precision"] < 0.5
        again = Embed(EmbedOptions(), task.data)
        again.load_state(json.loads(json.dumps(task.state())))
        assert again.score(best, dev, intervals=False).values["average_precision"] == 1


def test_neutral_pairs_are_said(tmp_path: Path) -> None:
    for dropped, said in (("[0,2]", True), ("[1,2]", False)):
        _, _, notes = learn(tmp_path, NLI, f"data.drop_labels={dropped}")
        assert any("in NLI data 1 is mostly neutral" in line for line in notes) == said


def test_a_number_that_says_nothing_of_pairs_can_be_left_unread(tmp_path: Path) -> None:
    rows = rows_of(title=QUESTIONS, body=ANSWERS, score=[3, 12, 0, 1])
    setting = "data.columns={text: title, text_b: body, label: _}"
    with pytest.raises(
        DataError, match="if column 'score' does not say whether texts belong together: "
    ) as caught:
        learn(tmp_path, rows)
    assert str(caught.value).endswith(setting)
    _, examples, _ = learn(tmp_path, rows, setting)
    assert [(e.texts, e.target) for e in examples] == [
        (pair, None) for pair in zip(QUESTIONS, ANSWERS, strict=True)
    ]


def test_classes_of_dev_rows_are_no_scores(tmp_path: Path) -> None:
    task, _, _ = learn(tmp_path, rows_of(premise=QUESTIONS, hypothesis=ANSWERS))
    dev = list(read_examples([write(tmp_path, NLI, "d.jsonl")], task, task.data, lambda _: None))
    with pytest.raises(DataError, match=r"labels '0', '1', '2' look like classes.*options.metric=spearman"):
        task.check_scorable(dev)
    Embed(EmbedOptions(metric="spearman"), DataConfig()).check_scorable(dev)
    with pytest.raises(DataError, match=r"t\.jsonl:1: 'label' is '-', as NLI data has it"):
        learn(tmp_path, [{**WORDED[0], "label": "-"}])


# ---------------------------------------------------------------- the loss


def ragged_batch(rows: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> Any:
    """A batch of rows of texts by number: the first, those that belong to it, those that do not."""
    encoded = [
        EncodedExample(
            tuple(Encoding([text], [0]) for text in (first, *positives, *negatives)),
            context=len(positives) if len(positives) > 1 else None,
        )
        for first, positives, negatives in rows
    ]
    return EncodedDataset(encoded).get_batch(range(len(rows)), list)


def reference_loss(
    vectors: torch.Tensor, rows: Sequence[tuple[int, Sequence[int], Sequence[int]]], o: EmbedOptions
) -> float:
    """The loss of a list of pairs, one number after the other."""

    def cos(a: int, b: int) -> float:
        return float(vectors[a] @ vectors[b] / (vectors[a].norm() * vectors[b].norm()))

    pairs = [(n, first, own) for n, (first, positives, _) in enumerate(rows) for own in positives]
    candidates = [
        (n, text, kind)
        for n, (_, p, q) in enumerate(rows)
        for kind, texts in (("+", p), ("-", q))
        for text in texts
    ]
    belong = {(first, own) for _, first, own in pairs}

    def is_negative(row: int, first: int, other_row: int, text: int, kind: str) -> bool:
        if row == other_row and kind == "+":  # of the same row, also where nothing is masked
            return False
        return not o.mask_false_negatives or (text != first and (first, text) not in belong)

    def search(own: float, others: list[float]) -> float:
        own = o.scale * (own - o.margin)
        return math.log(sum(math.exp(x) for x in [own, *(o.scale * x for x in others)])) - own

    forth = back = 0.0
    for row, first, own in pairs:
        negatives = [text for other, text, kind in candidates if is_negative(row, first, other, text, kind)]
        forth += search(cos(first, own), [cos(first, text) for text in negatives])
        askers = [other for n, other, _ in pairs if n != row and is_negative(n, other, row, own, "+")]
        back += search(cos(first, own), [cos(own, other) for other in askers])
    return (forth + back) / 2 if o.symmetric else forth


texts_of_rows = st.tuples(
    st.integers(0, 9),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 9), max_size=4, unique=True),
)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_loss_of_ragged_rows_is_the_formula(data: st.DataObject) -> None:
    rows = data.draw(st.lists(texts_of_rows, min_size=1, max_size=6))
    options = EmbedOptions(
        margin=data.draw(st.sampled_from([0.0, 0.3])),
        scale=data.draw(st.sampled_from([1.0, 9.0])),
        symmetric=data.draw(st.booleans()),
        mask_false_negatives=data.draw(st.booleans()),
    )
    vectors = torch.randn(10, 5, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    batch = ragged_batch(rows)
    task = Embed(options, DataConfig())
    out = SentenceOutput(vectors[batch.ragged.input_ids], batch.pair_index)
    assert task.loss_denominator(batch) == sum(len(positives) for _, positives, _ in rows)
    expected = reference_loss(vectors.double(), rows, options)
    assert float(task.loss(out, batch)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_row_with_two_texts_that_belong_to_it_is_two_rows() -> None:
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    task = Embed(EmbedOptions(), DataConfig())

    def loss(rows: Any) -> float:
        batch = ragged_batch(rows)
        return float(task.loss(SentenceOutput(vectors[batch.ragged.input_ids], batch.pair_index), batch))

    assert loss([(0, [1, 2], []), (3, [4], [5])]) == pytest.approx(
        loss([(0, [1], []), (0, [2], []), (3, [4], [5])]), rel=1e-6
    )


def test_pairs_without_a_negative_are_said() -> None:
    task = Embed(EmbedOptions(), DataConfig())
    vectors = torch.randn(8, 5).requires_grad_()

    def report(rows: Any) -> list[str]:
        batch = ragged_batch(rows)
        task.loss(SentenceOutput(vectors[batch.ragged.input_ids], batch.pair_index), batch)
        return task.report()

    alone = "2 of 2 pairs had no negative left in their batch, so nothing was learned from them"
    assert alone in report([(0, [2], []), (1, [2], [])])[-1]
    assert alone in report([(0, [1, 2], [])])[-1]
    assert report([(0, [2], [4]), (1, [3], [])]) == []
    # two candidates of one row and one of the other are no texts that could be counted
    assert report([(0, [2], [4, 5, 6]), (1, [2], [])])[0].startswith("2 of 8 in-batch negatives (25.00%)")


RAGGED = [
    {
        "text": f"the {noun} is {mood}",
        "text_b": [f"a {mood} {noun}", f"one {noun}, very {mood}"][: 1 + n % 2],
        "negative": [f"no {noun}", "a house and a tree", f"{mood} is a word"][: n % 4],
    }
    for n, (noun, mood) in enumerate(itertools.product(["dog", "cat", "tree", "car"], ["good", "bad", "red"]))
]


@pytest.mark.parametrize("cut", [{"micro_batches": 4}, {"micro_batch_tokens": 1}])
def test_gradients_of_ragged_rows_do_not_depend_on_the_parts(cut: dict[str, int], tiny: Path) -> None:
    def gradients(**train: Any) -> tuple[float, dict[str, torch.Tensor]]:
        given = {
            "max_steps": 1,
            "batch_size": 12,
            "max_grad_norm": 0,
            "dropout": 0,
            "micro_batch_tokens": None,
        }
        built = build_run({"task": "embed", "model": str(tiny), "train": {**given, **train}}, RAGGED, seed=0)
        step = built.step()
        step.model.train()
        step.step(list(range(12)))
        return float(step.state.loss), {
            n: p.grad for n, p in step.model.named_parameters() if p.grad is not None
        }

    loss, whole = gradients()
    loss_of_parts, in_parts = gradients(**cut)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    largest = max(float(g.abs().max()) for g in whole.values())
    assert in_parts.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(in_parts[name], gradient, atol=2e-6 * max(1, largest), rtol=1e-4)


def test_ragged_rows_on_disk_are_those_in_memory(tmp_path: Path, tiny: Path) -> None:
    built = build_run({"task": "embed", "model": str(tiny)}, RAGGED)
    rows = built.task.encode(built.examples, built.tokenizer)
    writer = DatasetWriter(tmp_path, "train", built.tokenizer.max_token_id + 1)
    for start in range(0, len(rows), 5):  # the first chunk has fewer texts a row than the second
        writer.write(rows[start : start + 5])
    stored, memory = writer.finish(), built.dataset
    np.testing.assert_array_equal(stored.lengths, memory.lengths)
    assert stored.lengths.tolist() == [sum(len(e.input_ids) for e in row.inputs) for row in rows]
    for places in ([0], [3, 7, 1], list(range(12))):
        a, b = (dataset.get_batch(places, list) for dataset in (stored, memory))
        assert a.contexts == b.contexts
        assert a.ragged.lengths == b.ragged.lengths
        for of_a, of_b in zip(a.pair_index.text_index, b.pair_index.text_index, strict=True):
            assert of_a.tolist() == of_b.tolist()
        assert a.ragged.input_ids.tolist() == b.ragged.input_ids.tolist()


def test_examples_on_disk_keep_what_belongs_to_a_text(tmp_path: Path) -> None:
    run, task = prepare("embed", [])
    file = write(tmp_path, RAGGED)
    stored, memory = (
        list(read_examples([file], task, run.data, lambda _: None, arrow_path=path))
        for path in (tmp_path / "e.arrow", None)
    )
    assert stored == memory
    assert {e.num_positives for e in stored} == {1, 2}


# ---------------------------------------------------------------- scores


def test_every_text_that_belongs_to_a_query_is_to_be_found() -> None:
    """Two of three are found first: recall@1 is 1/3, and nDCG that of ranks 1, 2 and 4."""
    near = {
        "q": [1, 0],
        "p1": [1, 0],
        "p2": [0.99, 0.1],
        "n": [0.9, 0.4],
        "p3": [0.8, 0.6],
        "r": [0, 1],
        "s": [0, 1],
    }
    examples = [Example(("q", "p1", "p2", "p3", "n"), num_positives=3), Example(("r", "s"))]
    predictions = [
        Prediction(0.0, vectors=tuple(np.array(near[text], np.float32) for text in e.texts)) for e in examples
    ]
    task = Embed(EmbedOptions(), DataConfig())
    scores = task.score(predictions, examples, intervals=False)
    assert scores.values["recall@1"] == pytest.approx((1 / 3 + 1) / 2)
    gain = [1 / math.log2(1 + rank) for rank in range(1, 5)]
    expected = (gain[0] + gain[1] + gain[3]) / sum(gain[:3])
    assert scores.values["ndcg@10"] == pytest.approx((expected + 1) / 2)


def test_predictions_of_ragged_rows_have_the_vectors_of_their_texts(tiny: Path) -> None:
    built = build_run({"task": "embed", "model": str(tiny)}, RAGGED)
    built.model.eval()
    with torch.inference_mode():
        batch = built.dataset.get_batch(range(12), built.task.collate_target)
        out = built.model(batch)
        for example, row, prediction in zip(
            built.examples, range(12), built.task.decode(out, batch), strict=True
        ):
            assert len(prediction.vectors or ()) == len(example.texts)
            alone = built.dataset.get_batch([row], built.task.collate_target)
            own = built.task.decode(built.model(alone), alone)[0]
            for vector, other in zip(prediction.vectors or (), own.vectors or (), strict=True):
                np.testing.assert_allclose(vector, other, atol=1e-5)


def test_what_labels_in_words_mean_is_said(tmp_path: Path) -> None:
    rows = rows_of(
        premise=QUESTIONS,
        hypothesis=ANSWERS,
        label=["entailment", "contradiction", "neutral", "entailment"],
    )
    file = tmp_path / "dev.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task, notes = Embed(EmbedOptions(), DataConfig()), list[str]()
    read_examples([str(file)], task, DataConfig(), notes.append, to_score=True)
    assert notes[1] == (
        "labels say whether texts belong together: 'entailment' that they do, "
        "'contradiction', 'neutral' that they do not"
    )
