"""What a whole run masks: the same in one micro-batch and in several, in several processes, and resumed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import make_encoder

import bertune
from bertune.commands.train import prepare
from bertune.data.batching import process_shares
from bertune.data.dataset import EncodedDataset
from bertune.errors import Interrupted, MissingExtra
from bertune.tasks import pretrain
from bertune.tasks.base.masking import hidden_word_begins
from bertune.tasks.base.reading import read_and_fit
from bertune.tasks.pretrain import EVALUATION_SEED
from bertune.text.load import load_tokenizer
from bertune.training.history import History

NAMES = ["dogs", "cats", "tree", "houses", "car", "books", "天地", "大人"]
TEXTS = [
    f"the {a} {n} is {m}" for n in NAMES for a in ("good", "bad", "great") for m in ("big", "small", "我的")
]
Masks = Counter[tuple[int, tuple[int, ...], tuple[int, ...]]]
"""Seed, tokens and masked tokens of each window of a run."""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def masks(monkeypatch) -> Masks:
    """Everything that is masked in training."""
    seen: Masks = Counter()
    mask_tokens = pretrain.mask_tokens

    def spy(ragged, seed, *others):
        masked, target = mask_tokens(ragged, seed, *others)
        if seed != EVALUATION_SEED:
            before, after = (each.input_ids.split(list(ragged.lengths)) for each in (ragged, masked))
            pairs = zip(before, after, strict=True)
            seen.update((seed, tuple(one.tolist()), tuple(other.tolist())) for one, other in pairs)
        return masked, target

    monkeypatch.setattr(pretrain, "mask_tokens", spy)
    return seen


def train(tiny: Path, file: Path, out: Path, *settings: str, **more):
    return bertune.train(
        "pretrain",
        [
            f"data.train={file}", f"model={tiny}", f"out={out}", "train.batch_size=6", "train.max_steps=8",
            "data.max_length=24", *settings,
        ],
        quiet=True,
        **more,
    )  # fmt: skip


def taken(masks: Masks) -> Masks:
    """What was masked since the last call."""
    copy = Counter(masks)
    masks.clear()
    return copy


@pytest.mark.parametrize(
    "settings", [[], ["options.masking=whole_words", "options.ngrams=[0.4, 0.3, 0.2, 0.1]"]]
)
def test_micro_batches_and_runs_mask_the_same(settings, tiny, file, tmp_path, masks):
    train(tiny, file, tmp_path / "whole", *settings)
    whole = taken(masks)
    assert len({seed for seed, _, _ in whole}) == 8  # each step has its own masks
    assert sum(whole.values()) > 48  # several texts a row
    for name, setting in (("parts", "train.micro_batches=4"), ("tokens", "train.micro_batch_tokens=30")):
        train(tiny, file, tmp_path / name, setting, *settings)
        assert taken(masks) == whole
    train(tiny, file, tmp_path / "other", "seed=5", *settings)
    assert not {seed for seed, _, _ in taken(masks)} & {seed for seed, _, _ in whole}


def test_a_text_is_masked_otherwise_in_each_epoch(tiny, file, tmp_path, masks):
    train(tiny, file, tmp_path / "out", "options.packing=none", "train.max_steps=40")
    by_text: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for _, before, after in masks:
        by_text.setdefault(before, set()).add(after)
    assert np.mean([len(found) for found in by_text.values()]) > 2


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_masks_what_a_straight_one_does(stop, tiny, file, tmp_path, masks, monkeypatch):
    settings = ("options.masking=whole_words", "train.micro_batches=2", "train.dropout=0.1")
    straight = train(tiny, file, tmp_path / "straight", *settings)
    whole = taken(masks)
    with monkeypatch.context() as patch:
        patch.setattr(
            History,
            "on_step",
            lambda _, step, total: os.kill(os.getpid(), signal.SIGINT) if step == stop else None,
        )
        with pytest.raises(Interrupted):
            train(tiny, file, tmp_path / "out", *settings)
    first = taken(masks)
    assert 0 < len({seed for seed, _, _ in first}) < 8
    resumed = train(tiny, file, tmp_path / "out", *settings, resume=True)
    again = taken(masks)
    assert {seed for seed, _, _ in again} & {seed for seed, _, _ in first} == set()
    assert first + again == whole
    one, other = ((r.folder / "last" / "model.safetensors").read_bytes() for r in (straight, resumed))
    assert one == other


def build(folder: Path, file: Path, *settings: str):
    run, task = prepare("pretrain", [f"data.train={file}", f"model={folder}", *settings])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    tokenizer = load_tokenizer(folder, 64, run.data)
    task.see_tokenizer(tokenizer)
    rows = task.pack(task.encode(examples, tokenizer))
    return task, EncodedDataset(rows), tokenizer


@pytest.mark.parametrize("masking", ["tokens", "whole_words", "chinese_words"])
def test_processes_mask_their_shares_as_one_process_does(masking, tiny, file):
    if masking == "chinese_words":
        pytest.importorskip("rjieba")
    task, dataset, _ = build(tiny, file, f"options.masking={masking}", "data.max_length=24")

    def windows(rows: list[int]) -> list[tuple[int, ...]]:
        ragged = task.prepare(dataset.get_batch(rows, task.collate_target), 11).ragged
        return [tuple(ids.tolist()) for ids in ragged.input_ids.split(list(ragged.lengths))]

    rows = list(range(len(dataset)))
    shares = process_shares(rows, dataset.lengths, 3)
    assert sorted(windows(rows)) == sorted(window for share in shares for window in windows(share))


def test_chinese_words_are_masked_whole(tiny, tmp_path):
    """Words of the segmenter, in packed rows, cut texts and behind pairs; and they count as words in scores."""
    segmenter = pytest.importorskip("rjieba")
    texts = ["我的天地很大", "你是好人，不是坏人", "天地大小", "dogs 天地 cats", "人大地大天大" * 12]
    path = tmp_path / "texts.jsonl"
    rows = [{"text": text, "text_b": texts[0]} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ["options.masking=chinese_words", "options.fraction=0.4", "data.max_length=20"]
    task, dataset, tokenizer = build(tiny, path, *settings)
    words = {word for text in texts for word in segmenter.cut(text)}
    assert {"天地", "坏人", "不是"} & words
    batch = dataset.get_batch(range(len(dataset)), task.collate_target)
    starts = set(batch.ragged.word_positions.tolist())
    ids, special = batch.ragged.input_ids.tolist(), set(tokenizer.special_ids())
    seen = 0
    for seed in range(30):
        masked = task.prepare(batch, seed)
        places = set(masked.target[0].tolist())
        for place in range(1, len(ids)):
            if place not in starts and ids[place] not in special and ids[place - 1] not in special:
                assert (place in places) == (place - 1 in places)
                seen += place in places
        begins = hidden_word_begins(masked.ragged, masked.target.numpy(), task._known_vocabulary)
        expected = [p in starts or p - 1 not in places for p in masked.target[0].tolist()]
        assert begins.tolist() == expected
    assert seen > 50


def test_words_of_scores_follow_the_marks_without_a_segmenter(tiny, file):
    task, dataset, tokenizer = build(tiny, file, "options.fraction=0.9")
    batch = task.prepare(dataset.get_batch(range(len(dataset)), task.collate_target), 0)
    begins = hidden_word_begins(batch.ragged, batch.target.numpy(), task._known_vocabulary)
    places, ids = batch.target.tolist()
    tokens = tokenizer.convert_ids_to_tokens(ids)
    inside = {n for n in range(1, len(ids)) if tokens[n].startswith("##") and places[n] == places[n - 1] + 1}
    assert inside and begins.tolist() == [n not in inside for n in range(len(ids))]


def test_a_segmenter_that_is_missing_is_named_before_anything_is_written(tiny, file, tmp_path, monkeypatch):
    for package in ("rjieba", "jieba"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match="chinese-words"):
        train(tiny, file, tmp_path / "out", "options.masking=chinese_words")
    assert not (tmp_path / "out").exists()


def test_a_model_fills_gaps_without_the_segmenter_of_its_training(tiny, file, tmp_path, monkeypatch):
    pytest.importorskip("rjieba")
    folder = train(tiny, file, tmp_path / "out", "options.masking=chinese_words", "train.max_steps=1").folder
    for package in ("rjieba", "jieba"):
        monkeypatch.setitem(sys.modules, package, None)
    assert bertune.load(folder).fill("天[MASK]", k=1)
    with pytest.raises(MissingExtra, match="chinese-words"):
        bertune.evaluate(folder, str(file))


def test_another_version_of_the_segmenter_takes_no_tokens_from_the_cache(tiny, file, tmp_path, monkeypatch):
    pytest.importorskip("rjieba")
    from bertune.text import segment

    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    calls = []
    word_starts = pretrain.word_starts
    monkeypatch.setattr(pretrain, "word_starts", lambda *a: calls.append(1) or word_starts(*a))
    settings = ("options.masking=chinese_words", "data.cache=on", "data.workers=1", "train.max_steps=2")
    counts = []
    for number, version in enumerate(["1.0", "1.0", "2.0"]):
        monkeypatch.setattr(segment, "version", lambda _, v=version: v)
        train(tiny, file, tmp_path / f"out{number}", *settings)
        counts.append(len(calls))
    assert counts[0] > 0
    assert counts[1] == counts[0] < counts[2]


def test_a_chinesebert_hides_the_readings_too(tmp_path, file):
    from tests.chinesebert_folder import write_folder

    folder = write_folder(tmp_path / "chinesebert")
    run, task = prepare("pretrain", [f"data.train={file}", f"model={folder}"])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    tokenizer = load_tokenizer(folder, 64, run.data, "pinyin")
    task.see_tokenizer(tokenizer)
    dataset = EncodedDataset(task.pack(task.encode(examples, tokenizer)))
    batch = dataset.get_batch(range(len(dataset)), task.collate_target)
    masked = task.prepare(batch, 4)
    mask = tokenizer.vocabulary["[MASK]"]
    places = masked.target[0]
    hidden = places[masked.ragged.input_ids[places] == mask]
    assert (batch.ragged.pinyin_ids[hidden] != 0).any()
    assert (masked.ragged.pinyin_ids[hidden] == 0).all()
    rest = torch.ones(len(batch.ragged.input_ids), dtype=torch.bool)
    rest[places] = False
    assert torch.equal(masked.ragged.pinyin_ids[rest], batch.ragged.pinyin_ids[rest])


def test_a_tokenizer_without_a_mask_token(file, tmp_path):
    """The message says what to type, and what it says works."""
    folder = make_encoder(tmp_path / "tiny")
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["added_tokens"] = [token for token in found["added_tokens"] if token["content"] != "[MASK]"]
    vocabulary = found["model"]["vocab"]
    found["model"]["vocab"] = {("[unused1]" if t == "[MASK]" else t): n for t, n in vocabulary.items()}
    path.write_text(json.dumps(found), encoding="utf-8")
    settings.write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}', encoding="utf-8"
    )
    with pytest.raises(
        bertune.ConfigError,
        match=r"no mask token.*options\.mask_token.*such as options.mask_token=.\[unused1\]",
    ):
        train(folder, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = train(folder, file, tmp_path / "out", "options.mask_token=[unused1]", "train.max_steps=2")
    assert result.scores["dev"].values["perplexity"] > 1
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(result.folder)
    assert saved.mask_token == "[unused1]" and saved.mask_token_id == vocabulary["[MASK]"]
    assert saved("dog [unused1]", add_special_tokens=False)["input_ids"][-1] == vocabulary["[MASK]"]
    assert bertune.load(result.folder).fill("the [MASK] is big", k=2)


@pytest.mark.parametrize(
    ("texts", "masking", "said"),
    [
        (["我的天地很大", "good dog"], "whole_words", ["46% of the characters are Chinese"]),
        (["我的天地很大", "good dog"], "tokens", []),
        (["the good dog", "是 the big house is a small tree"], "whole_words", []),
    ],
)
def test_whole_words_of_chinese_texts_say_what_they_are(texts, masking, said, tiny, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    run, task = prepare("pretrain", [f"data.train={path}", f"model={tiny}", f"options.masking={masking}"])
    notes: list[str] = []
    read_and_fit([str(path)], task, run.data, notes.append)
    found = [note for note in notes if "chinese_words" in note]
    assert len(found) == len(said) and all(part in note for part, note in zip(said, found, strict=True))
