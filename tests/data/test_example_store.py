"""Examples and encoded rows in files are the same as those in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.console import Console
from bertune.data import arrow, example_store
from bertune.data.dataset import EncodedDataset
from bertune.data.example_store import (
    ExampleWriter,
    example_digests,
    take,
    text_digest,
    value_from_json,
    value_to_json,
)
from bertune.data.mapped_dataset import DatasetWriter
from bertune.data.split import (
    factorize,
    factorize_digests,
    stratified_sample,
    train_dev_split,
    train_dev_split_codes,
)
from bertune.errors import DataError
from bertune.tasks.base import datasets, reading
from bertune.tasks.base.datasets import _fingerprint, write_dataset
from bertune.tasks.base.reading import read_examples, read_splits
from bertune.text.load import load_tokenizer
from bertune.types import Example, Location, Span

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.builds(Span, st.integers(), st.integers(), st.text(max_size=3))
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Many batches, and pages given back at every look."""
    monkeypatch.setattr(example_store, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(datasets, "CHUNK_SIZE", 5)
    monkeypatch.setattr(arrow, "RELEASE_THRESHOLD", 1)


@given(VALUES)
def test_values_come_back_as_they_were(value):
    again = value_from_json(value_to_json(value))
    assert again == value
    assert repr(again) == repr(value)  # 1 is not 1.0, and a tuple no list


def test_values_of_other_kinds_are_refused():
    for value in ({1, 2}, np.float64(3), {1: 2}, (object(),)):
        with pytest.raises(DataError, match=r"data\.cache=off"):
            value_to_json(value)


EXAMPLES = [
    Example(
        (f"text {n}", *(["second"] if n % 3 else [])),
        (f"l{n % 4}", 1.5) if n % 2 else None,
        Location(f"file{n % 2}.csv", n + 2, n % 2),
        ((0, 4), (5, 6)) if n % 5 else None,
    )
    for n in range(40)
] + [Example(("好 😀\x00\n", ""), Span(1, 2, "x"), Location("z", 2**40), ())]


@pytest.fixture
def kept(tmp_path):
    writer = ExampleWriter(tmp_path / "e.arrow")
    for example in EXAMPLES:
        writer.append(example)
    return writer.finish()


def test_examples_come_back_as_they_were(kept):
    assert list(kept) == EXAMPLES
    assert len(kept) == len(EXAMPLES)
    for n in (0, 6, 7, 8, 40, -1, -41):
        assert kept[n] == EXAMPLES[n]
    for part in (slice(3, 30), slice(None, None, 4), slice(None, None, -3), slice(5, 5), slice(-3, None)):
        assert kept[part] == EXAMPLES[part]
    for n in (41, -42):
        with pytest.raises(IndexError):
            kept[n]
    assert np.array_equal(example_digests(kept), example_digests(EXAMPLES))


def test_some_of_the_examples(kept):
    places = np.array([0, 1, 6, 7, 13, 14, 15, 16, 17, 18, 19, 20, 33, 40])
    some = take(kept, places)
    right = take(EXAMPLES, places)
    assert list(some) == right
    assert [some[n] for n in range(len(some))] == right
    assert list(take(some, np.array([2, 5, 13]))) == [right[2], right[5], right[13]]
    assert np.array_equal(example_digests(some), example_digests(right))


def test_digests_tell_texts_apart():
    texts = [("a", "b"), ("ab",), ("ab", ""), ("", "ab"), ("a\0b",), ("b", "a")]
    assert len({text_digest(t) for t in texts}) == len(texts)
    assert text_digest(("a", "b")) == text_digest(["a", "b"])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
def test_dividing_by_digests_is_dividing_by_texts(texts, share, seed):
    keys = [str(n % 3) for n in texts]
    numbers = factorize_digests(np.array([[n, 7] for n in texts], np.uint64))
    assert np.array_equal(numbers, factorize(texts))
    assert tuple(
        x.tolist() for x in train_dev_split_codes(numbers, factorize(keys), share, seed)
    ) == train_dev_split([str(n) for n in texts], keys, share, seed)


def test_dividing_is_what_it_was():
    """Places that the first version drew: a run of today divides its rows as one of then."""
    keys, texts = [n * n % 5 for n in range(30)], [f"t{n * 7 % 23}" for n in range(30)]
    assert stratified_sample(keys, 7, 3) == [8, 10, 12, 13, 16, 21, 26]
    assert train_dev_split(texts, keys, 0.2, 1)[1] == [3, 8, 9, 20, 21, 26]


WORDS = ["the", "dog", "is", "good", "and", "a", "cat", "was", "bad", "not", "very", "big", "tree"]


def sentence(n: int, length: int = 6) -> str:
    return " ".join(WORDS[(n * (k + 3) + k) % len(WORDS)] for k in range(1 + n % length))


def tagged(n: int) -> dict:
    tokens = sentence(n, 40).split()
    return {"tokens": tokens, "tags": ["B-x" if word == "dog" else "O" for word in tokens]}


TASKS = {
    "classify": (
        "classify",
        [{"text": sentence(n), "label": "ab"[n % 2]} for n in range(60)],
        ["data.max_length=6"],
    ),
    "multi": ("classify", [{"text": sentence(n), "label": ["a", "b"][: n % 3]} for n in range(60)], []),
    "pairs": (
        "classify",
        [{"text": sentence(n), "text_b": sentence(n + 1), "label": n % 3} for n in range(60)],
        ["data.max_length=10"],
    ),
    "regress": ("regress", [{"text": sentence(n), "label": n / 7} for n in range(60)], []),
    "tag": ("tag", [tagged(n) for n in range(60)], ["data.max_length=16"]),
    "match": (
        "match",
        [{"text": sentence(n), "text_b": sentence(n % 7), "label": n % 5 / 4} for n in range(60)],
        [],
    ),
    "softmax": (
        "match",
        [{"text": sentence(n), "text_b": sentence(n % 7), "label": "xy"[n % 2]} for n in range(60)],
        ["options.loss=softmax"],
    ),
    "SimCSE": ("embed", [{"text": sentence(n)} for n in range(60)], []),
    "pretrain": ("pretrain", [{"text": sentence(n)} for n in range(60)], ["data.max_length=6"]),
    "embed": (
        "embed",
        [{"text": sentence(n), "text_b": sentence(n + 4), "negative": sentence(n + 9)} for n in range(60)],
        [],
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_rows_and_splits_are_the_same_in_files(name, tiny, tmp_path):
    task_name, rows, settings = TASKS[name]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for folder in (None, tmp_path):
        run, task = prepare(task_name, [f"data.train={file}", f"model={tiny}", "data.limit=40", *settings])
        notes: list[str] = []
        splits = read_splits(task, run.data, run.seed, notes.append, folder)
        tokenizer = load_tokenizer(tiny, 64, run.data)
        encoded = []
        for split_name in ("train", "dev"):
            examples = getattr(splits, split_name)
            if folder is None:
                encoded.append(EncodedDataset(task.encode(examples, tokenizer)))
            else:
                encoded.append(
                    write_dataset(folder, split_name, task, tokenizer, examples, Console(quiet=True))
                )
        found.append((task, notes, splits, encoded, task.report(), tokenizer))
    (task, notes, splits, encoded, report, tokenizer), (_, notes2, splits2, encoded2, report2, _) = found
    assert (notes, report) == (notes2, report2)
    assert _fingerprint(splits) == _fingerprint(splits2)
    for split_name in ("train", "dev"):
        assert list(getattr(splits, split_name)) == list(getattr(splits2, split_name))
    for here, there in zip(encoded, encoded2, strict=True):
        same_rows(here, there, task, tokenizer)


def same_rows(here: EncodedDataset, there: EncodedDataset, task, tokenizer) -> None:
    assert len(here) == len(there)
    assert (list(here.targets), list(here.contexts)) == (list(there.targets), list(there.contexts))
    for name in ("num_truncated", "lengths", "text_lengths"):
        assert np.array_equal(getattr(here, name), getattr(there, name)), name
    assert (here.num_truncated_rows, here.is_multi_text) == (there.num_truncated_rows, there.is_multi_text)
    assert np.array_equal(here.used_ids(), there.used_ids())
    assert here.diagnostics(tokenizer.unk_token_id, 6) == there.diagnostics(tokenizer.unk_token_id, 6)
    random = np.random.default_rng(0)
    for size in (1, 4, 11):
        places = random.permutation(len(here))[:size].tolist()
        a, b = here.get_batch(places, task.collate_target), there.get_batch(places, task.collate_target)
        assert (a.rows, a.contexts, a.ragged.lengths, a.ragged.num_words) == (
            b.rows,
            b.contexts,
            b.ragged.lengths,
            b.ragged.num_words,
        )
        for name in ("input_ids", "token_type_ids", "offsets", "word_positions"):
            first, second = getattr(a.ragged, name), getattr(b.ragged, name)
            assert (first is None) == (second is None)
            assert first is None or (first.dtype == second.dtype and first.tolist() == second.tolist()), name
        assert (a.target is None) == (b.target is None)
        assert a.target is None or a.target.tolist() == b.target.tolist()
        assert (a.pair_index is None) == (b.pair_index is None)
        if a.pair_index is not None:
            assert [p.tolist() for p in a.pair_index.text_index] == [
                p.tolist() for p in b.pair_index.text_index
            ]
            assert a.pair_index.text_ids.tolist() == b.pair_index.text_ids.tolist()


def test_what_cannot_be_kept_is_refused(tmp_path, tiny):
    from bertune.types import EncodedExample, Encoding

    writer = DatasetWriter(tmp_path, "x", 10)
    with pytest.raises(DataError, match="beyond 9"):
        writer.write([EncodedExample((Encoding([3, 10], [0, 0]),))])
    one, two = EncodedExample((Encoding([1], [0]),)), EncodedExample((Encoding([1], [0]), Encoding([2], [0])))
    with pytest.raises(DataError, match="some rows have one input and others several"):
        writer.write([one, two])


def test_scored_pairs_of_embed_are_not_parted(tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"a {n}", "text_b": "b", "label": int(n < 50)}) + "\n" for n in range(60))
    )
    run, task = prepare("embed", [f"data.train={file}"])
    examples = read_examples([str(file)], task, run.data, lambda _: None, arrow_path=tmp_path / "e.arrow")
    assert not task.is_chunkable(examples)
    assert task.is_chunkable(examples[:50])


def test_repeats_are_counted_as_before():
    def example(text: str, target: object) -> Example:
        return Example((text,), target, Location("f", 1))

    train = [
        example("a", "x"),
        example("b", "x"),
        example("a", "y"),
        example("a", "y"),
        example("a", "x"),
        example("c", 1),
    ]
    said: list[str] = []
    reading._note_repeats(train, [example("c", "x"), example("d", "x")], [], said.append)
    assert said == [
        "3 of 6 training rows repeat the text of an earlier one, 2 of them with another target",
        "1 of 2 dev rows have a text that is also a training row, which flatters the dev scores",
    ]


def test_large_ids_need_more_room(tmp_path):
    from bertune.types import EncodedExample, Encoding

    writer = DatasetWriter(tmp_path, "x", 250_000)
    writer.write([EncodedExample((Encoding([1, 249_999], [0, 1], 2),), 3)])
    rows = writer.finish()
    assert rows.get_batch([0], list).ragged.input_ids.tolist() == [1, 249_999]
    assert rows.get_batch([0], list).ragged.token_type_ids.tolist() == [0, 1]
    assert rows.used_ids().tolist() == [1, 249_999]
    assert rows.num_truncated_rows == 1


def test_settings_have_their_defaults():
    assert (DataConfig().cache, DataConfig().workers) == ("auto", "auto")
