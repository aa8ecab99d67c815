"""Names of format 1 become today's, for every family whose weights had other names."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
import torch
from tests.chinesebert_folder import write_folder

from bertune.artifact.upgrade import upgrade_training_state
from bertune.encoders.load import load_encoder
from bertune.training.state import Progress

EMBEDDINGS = {
    "bert": ["words", "positions", "types", "norm"],
    "electra": ["words", "positions", "types", "norm", "project"],
    "distilbert": ["words", "positions", "norm"],
    "chinesebert": ["words", "positions", "types", "norm", "letters", "conv", "glyphs", "glyph_map", "fuse"],
}
LAYER = ["query", "key", "value", "mix", "mix_norm", "grow", "shrink", "shrink_norm"]
PROGRESS = {
    "step": 7, "epoch": 1, "position": 2, "since_log": {"total": 1.5, "count": 2.0},
    "since_epoch": {"total": 2.5, "count": 3.0},
    "best": 0.5, "best_loss": 0.25, "best_step": 4, "stale": 1, "reference": 0.75, "told": 6,
    "settled": 5, "cuts": 2, "skipped": 3,
}  # fmt: skip


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_weights_of_checkpoints(kind, encoder_of, tmp_path):
    folder = write_folder(tmp_path / kind) if kind == "chinesebert" else encoder_of(kind)
    encoder, _ = load_encoder(folder)
    now = {f"model.encoder.{name}" for name in encoder.state_dict()}
    before = {f"embeddings.{part}" for part in EMBEDDINGS[kind]}
    before |= {f"layers.{n}.{part}" for n in range(2) for part in LAYER}
    tensors = {f"model.encoder.{name}.weight": torch.zeros(0) for name in before}
    upgraded, _ = upgrade_training_state(tensors, {"progress": PROGRESS})
    assert set(upgraded) == {name for name in now if name.endswith(".weight")}
    again, _ = upgrade_training_state(upgraded, {"progress": PROGRESS})
    assert again.keys() == upgraded.keys()


@pytest.mark.parametrize("kind", ["albert", "mpnet", "deberta-v2"])
def test_weights_with_the_names_of_transformers_keep_them(kind, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    tensors = {f"model.encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    assert upgrade_training_state(tensors, {"progress": PROGRESS})[0].keys() == tensors.keys()


def test_progress_of_checkpoints():
    _, values = upgrade_training_state({}, {"progress": PROGRESS, "count": 3.0})
    assert values["count"] == 3.0
    assert values["progress"].keys() == {field.name for field in fields(Progress)}
    assert list(values["progress"].values()) == list(PROGRESS.values())
    assert values["progress"] == {
        "step": 7, "epoch": 1, "batches_done": 2, "loss_since_log": {"total": 1.5, "count": 2.0},
        "loss_since_epoch": {"total": 2.5, "count": 3.0}, "best_score": 0.5, "best_loss": 0.25,
        "best_step": 4, "evals_without_gain": 1, "reference_score": 0.75, "last_logged_step": 6,
        "last_completed_step": 5, "oom_splits": 2, "nonfinite_steps": 3,
    }  # fmt: skip


def test_a_state_of_today_stays_as_it_is():
    tensors, values = {"model.encoder.mix.weight": torch.zeros(1)}, {"progress": asdict(Progress())}
    found = upgrade_training_state(tensors, values)
    assert found[0] is tensors
    assert found[1] is values
