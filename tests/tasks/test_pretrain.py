"""Pretraining: what it learns, and that cutting, packing and order change no number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import bertune
from bertune.commands.train import prepare
from bertune.data.dataset import EncodedDataset
from bertune.encoders.load import load_encoder
from bertune.errors import ConfigError, DataError
from bertune.heads.model import Model
from bertune.inference.predict import predict_dataset
from bertune.tasks.base.reading import read_and_fit
from bertune.text.load import load_tokenizer

NAMES = ["dog", "cat", "tree", "house", "car", "book", "天", "地"]
TEXTS = [
    f"the {a} {n} is {m}" for n in NAMES for a in ("good", "bad", "great") for m in ("big", "small", "fine")
]


def file_of(folder: Path, texts=TEXTS) -> Path:
    file = folder / "texts.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def build(tiny: Path, file: Path, *settings: str):
    """Return task, packed rows, rows as they are, and a model."""
    run, task = prepare("pretrain", [f"data.train={file}", f"model={tiny}", *settings])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    torch.manual_seed(0)
    encoder, report = load_encoder(tiny)
    tokenizer = load_tokenizer(tiny, encoder.max_positions, run.data)
    task.see_tokenizer(tokenizer)
    encoded = task.encode(examples, tokenizer)
    model = Model(encoder, task.head(encoder, report.pooler)).eval()
    return task, EncodedDataset(task.pack(encoded)), EncodedDataset(encoded), model


def train(tiny: Path, file: Path, out: Path, *settings: str, **more):
    return bertune.train(
        "pretrain",
        [f"data.train={file}", f"model={tiny}", f"out={out}", "train.batch_size=4", "train.max_steps=6", *settings],
        quiet=True,
        **more,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "last" / "model.safetensors")


def test_training_lowers_the_perplexity(tiny, tmp_path):
    file = file_of(tmp_path)
    result = train(
        tiny, file, tmp_path / "out", f"data.dev={file}", "train.max_steps=150", "train.learning_rate=3e-3"
    )
    scores = result.scores["dev"]
    assert scores.main_metric == "perplexity"
    assert not scores.higher_is_better
    assert scores.values["perplexity"] < scores.baseline.values["perplexity"] / 4
    assert scores.baseline.is_untrained


@pytest.mark.parametrize("packing", ["separate", "joined", "none"])
def test_packing_keeps_every_token(packing, tiny, tmp_path):
    texts = [*TEXTS[:20], " ".join(TEXTS[20:40])]
    task, packed, rows, _ = build(
        tiny, file_of(tmp_path, texts), f"options.packing={packing}", "data.max_length=16"
    )

    def ordinary(dataset: EncodedDataset) -> list[int]:
        ids = np.concatenate([dataset.get_batch([n], list).ragged.input_ids for n in range(len(dataset))])
        return sorted(ids[task._known_vocabulary.is_ordinary[ids]].tolist())

    assert ordinary(packed) == ordinary(rows)
    if packing != "none":
        assert max(packed.lengths) <= 16
        assert len(packed) < len(rows)
        assert packed.lengths.sum() > 0.8 * 16 * len(packed)
    else:
        assert len(packed) == len(texts)


def test_an_evaluation_does_not_depend_on_packing_or_batches(tiny, tmp_path):
    file = file_of(tmp_path)
    found = []
    for packing in ("separate", "none"):
        task, packed, rows, model = build(tiny, file, f"options.packing={packing}", "data.max_length=24")
        for dataset in (packed, rows):
            result = predict_dataset(model, task, dataset, torch.device("cpu"))
            found.append((task.score(result.predictions, [], intervals=False).values, result.loss))
    for values, loss in found[1:]:
        assert values == pytest.approx(found[0][0], rel=1e-5)
        assert loss == pytest.approx(found[0][1], rel=1e-5)
    assert found[0][0]["perplexity"] == pytest.approx(math.exp(found[0][1]), rel=1e-5)


def test_evaluate_repeats_the_score_of_the_run(tiny, tmp_path):
    file = file_of(tmp_path)
    result = train(tiny, file, tmp_path / "out", f"data.dev={file}")
    evaluation = bertune.evaluate(result.folder, str(file))
    assert evaluation.scores.values == pytest.approx(result.scores["dev"].values, rel=1e-4)
    assert math.exp(evaluation.loss) == pytest.approx(evaluation.scores.values["perplexity"], rel=1e-4)


def test_micro_batches_change_nothing(tiny, tmp_path):
    file = file_of(tmp_path)
    whole = train(tiny, file, tmp_path / "whole", "train.precision=fp32", "train.dropout=0.0")
    cut = train(
        tiny, file, tmp_path / "cut", "train.precision=fp32", "train.dropout=0.0", "train.micro_batches=3"
    )
    one, other = weights(whole.folder), weights(cut.folder)
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=2e-4, atol=2e-6, msg=lambda text, n=name: n + text
        )


def test_each_step_masks_other_tokens(tiny, tmp_path):
    task, packed, _, _ = build(tiny, file_of(tmp_path))
    batch = packed.get_batch(range(3), task.collate_target)
    masks = {tuple(task.prepare(batch, seed).target[0].tolist()) for seed in range(20)}
    assert len(masks) == 20
    fixed = {tuple(task.prepare(batch, None).target[0].tolist()) for _ in range(3)}
    assert len(fixed) == 1


def test_the_target_is_what_stood_there(tiny, tmp_path):
    task, packed, _, _ = build(tiny, file_of(tmp_path), "options.packing=joined")
    batch = packed.get_batch(range(len(packed)), task.collate_target)
    masked = task.prepare(batch, 3)
    positions, ids = masked.target
    assert torch.equal(batch.ragged.input_ids[positions], ids)
    same = torch.ones(len(batch.ragged.input_ids), dtype=torch.bool)
    same[positions] = False
    assert torch.equal(batch.ragged.input_ids[same], masked.ragged.input_ids[same])
    share = len(ids) / task._known_vocabulary.is_ordinary[batch.ragged.input_ids.numpy()].sum()
    assert share == pytest.approx(0.15, abs=0.02)


def test_the_result_opens_in_transformers_and_in_other_tasks(tiny, tmp_path):
    from transformers import AutoModelForMaskedLM

    file = file_of(tmp_path)
    result = train(tiny, file, tmp_path / "out")
    _, notes = AutoModelForMaskedLM.from_pretrained(result.folder, output_loading_info=True)
    assert not any(notes[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    labelled = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": "good" if "good" in text else "other"} for text in TEXTS]
    labelled.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    after = bertune.train(
        "classify",
        [f"data.train={labelled}", f"model={result.folder}", f"out={tmp_path / 'classifier'}", "train.max_steps=2"],
        quiet=True,
    )  # fmt: skip
    assert bertune.load(after.folder).predict(["the good dog is big"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["options.mask_token=nosuchtoken"], "nosuchtoken"),
        (["options.replace_by_mask=0.9", "options.replace_by_random=0.2"], "more than 1"),
        (["options.ngrams=[0.0]"], "all weights are 0"),
        (["options.fraction=1.5"], "fraction"),
        (["data.labels=[a, b]"], "labels"),
    ],
)
def test_bad_settings_are_refused(settings, message, tiny, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(tiny, file_of(tmp_path), tmp_path / "out", *settings)


def test_texts_that_the_vocabulary_does_not_know_are_refused(tiny, tmp_path):
    file = file_of(tmp_path, ["☃☃☃", "☂☂"] * 6)
    with pytest.raises(DataError, match="has a token that could be predicted"):
        train(tiny, file, tmp_path / "out")


def test_crossval_scores_every_text(tiny, tmp_path):
    result = bertune.crossval(
        "pretrain",
        [f"data.train={file_of(tmp_path)}", f"model={tiny}", "train.max_steps=3", f"out={tmp_path / 'cv'}"],
        folds=3,
    )
    assert result is not None
    lines = next((tmp_path / "cv").glob("out_of_fold.*")).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) in {len(TEXTS), len(TEXTS) + 1}
