"""Micro-batches change neither loss nor gradient, and both are those of the plain mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.builders import build_run, make_still_encoder
from torch.nn import functional as F

from bertune.training.step import TrainStep
from bertune.types import Example

TEXTS = [
    "good",
    "the dog is very good and the cat is very bad and the house is big and the tree is small . " * 2,
    "a bad cat",
    "awful , poor , bad !",
    "great tree .",
    "one two three four five six seven eight nine ten",
    "the book was fine and the house was big",
    "好 不 坏 , 我 是 大 人 , 你 是 小 人 。",
]
LABELS = ["a", "b", "a", "c", "a", "b", "a", "a"]
SEVERAL = [("a",), ("a", "b"), (), ("c",), ("a", "b", "c"), ("b",), ("a",), ("b", "c")]
NUMBERS = [0.5, 3.0, -1.25, 4.0, 2.0, 0.0, 1.5, 2.5]
WEIGHTS = {"a": 0.25, "b": 1.0, "c": 5.0}

PROBLEMS = {
    "plain": ("classify", {}, LABELS),
    "smoothed": ("classify", {"label_smoothing": 0.1}, LABELS),
    "weighted": ("classify", {"class_weights": WEIGHTS, "label_smoothing": 0.1}, LABELS),
    "balanced": ("classify", {"class_weights": "balanced"}, LABELS),
    "multi_label": ("classify", {"problem_type": "multi_label"}, SEVERAL),
    "multi_label weighted": ("classify", {"problem_type": "multi_label", "class_weights": WEIGHTS}, SEVERAL),
    "regress": ("regress", {}, NUMBERS),
    "regress mae": ("regress", {"loss": "mae"}, NUMBERS),
}
CUTS = [{"micro_batches": 2}, {"micro_batches": 4}, {"micro_batch_tokens": 20}]
MORE_CUTS = [{"micro_batches": 8}, {"micro_batch_tokens": 1}, {"micro_batches": 2, "micro_batch_tokens": 16}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny BERT without dropout."""
    return make_still_encoder(tmp_path_factory.mktemp("encoder") / "still")


def build(folder: Path, problem: str, **train: object) -> TrainStep:
    """Build a run without dropout, whose gradients are not cut."""
    name, options, targets = PROBLEMS[problem]
    settings = {"max_steps": 1, "batch_size": len(TEXTS), "max_grad_norm": 0, "schedule": "constant", **train}
    examples = [Example((text,), target) for text, target in zip(TEXTS, targets, strict=True)]
    built = build_run({"task": name, "model": str(folder), "options": options, "train": settings}, examples)
    model, config = built.model, built.model.encoder.config
    torch.nn.init.normal_(model.head.out.weight, std=0.5)  # so that logits differ from row to row
    # Without a bias as many rows would lie above their number as below it.
    torch.nn.init.constant_(model.head.out.bias, 1.0)
    assert (config.hidden_dropout, config.attention_dropout, model.head.dropout.p) == (0.0, 0.0, 0.0)
    assert built.dataset.lengths.max() > 8 * built.dataset.lengths.min()
    work = built.step()
    assert work.num_active_words is not None
    return work


def step(work: TrainStep, rows: list[int]) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Take one step; return summed loss, what it is divided by, and the gradient of each parameter."""
    work.model.train()
    work.step(rows)
    work.fetch_loss()
    mean = work.state.progress.loss_since_log
    return mean.total, mean.count, {n: p.grad.clone() for n, p in work.model.named_parameters()}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(
            gradient, theirs[name], atol=atol, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def plain(work: TrainStep, problem: str, rows: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The mean loss as torch's own functions have it, each row alone in the model."""
    _, options, targets = PROBLEMS[problem]
    out = torch.cat([work.model(work.dataset.get_batch([row], work.task.collate_target)) for row in rows])
    chosen = [targets[row] for row in rows]
    balanced = {"a": 8 / (3 * 5), "b": 8 / (3 * 2), "c": 8 / (3 * 1)}  # rows / labels / rows of the label
    weights = {"balanced": balanced}.get(str(options.get("class_weights")), options.get("class_weights"))
    weights = torch.tensor(list(weights.values())) if weights else None
    if problem.startswith("regress"):
        function = F.l1_loss if options else F.mse_loss
        loss = function(out[:, 0], torch.tensor(chosen))
    elif problem.startswith("multi_label"):
        applies = torch.tensor([[float(label in some) for label in "abc"] for some in chosen])
        loss = F.binary_cross_entropy_with_logits(out, applies, pos_weight=weights)
    else:
        ids = torch.tensor(["abc".index(label) for label in chosen])
        loss = F.cross_entropy(out, ids, weight=weights, label_smoothing=options.get("label_smoothing", 0.0))
    parameters = dict(work.model.named_parameters())
    return loss.detach(), dict(
        zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)
    )


ALL = list(range(len(TEXTS)))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_micro_batches_change_nothing(problem, tiny):
    total, count, gradients = step(build(tiny, problem), ALL)
    assert [name for name, gradient in gradients.items() if not gradient.any()] == [
        "encoder.embeddings.word_embeddings.scale"
    ]
    for train in [*CUTS, *MORE_CUTS] if problem == "weighted" else CUTS:
        work = build(tiny, problem, **train)
        cut_total, cut_count, cut_gradients = step(work, ALL)
        assert cut_count == pytest.approx(count, rel=1e-12), train
        assert cut_total == pytest.approx(total, rel=1e-6), train
        close(cut_gradients, gradients)


@pytest.mark.parametrize("rows", [ALL, [5, 1, 0]], ids=["all", "three"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_loss_and_gradient_are_those_of_the_plain_mean(problem, rows, tiny):
    """Batches shorter than batch_size too, as the last of an epoch is."""
    work = build(tiny, problem, micro_batches=4)
    mean, expected = plain(work, problem, rows)
    total, count, gradients = step(work, rows)
    assert total / count == pytest.approx(mean.item(), rel=1e-5)
    close(gradients, expected, atol=2e-6)


@pytest.mark.parametrize("problem", ["weighted", "multi_label"])
def test_fgm_is_the_same_however_the_batch_is_cut(problem, tiny):
    total, _, gradients = step(build(tiny, problem, fgm=0.5), ALL)
    whole_total, _, without = step(build(tiny, problem), ALL)
    assert total == pytest.approx(whole_total, rel=1e-6)  # what is told is the loss where the weights are
    table = "encoder.embeddings.word_embeddings.weight"
    difference = gradients[table] - 2 * without[table]
    assert difference.norm() > 1e-3 * without[table].norm()  # the gradient differs at the moved embeddings
    for train in ({"micro_batches": 4}, {"micro_batch_tokens": 20}):
        cut_total, _, cut_gradients = step(build(tiny, problem, fgm=0.5, **train), ALL)
        assert cut_total == pytest.approx(total, rel=1e-6)
        close(cut_gradients, gradients, atol=5e-6)


@pytest.mark.parametrize("problem", ["weighted", "multi_label", "regress"])
def test_r_drop_without_dropout_is_the_plain_loss(problem, tiny):
    """Both passes are one: the mean of their losses is the loss, and the distance and its gradient are 0."""
    total, count, gradients = step(build(tiny, problem), ALL)
    dropped, dropped_count, dropped_gradients = step(build(tiny, problem, r_drop=3.0, micro_batches=4), ALL)
    assert dropped_count == count
    assert dropped == pytest.approx(total, rel=1e-6)
    close(dropped_gradients, gradients, atol=2e-6)


def test_the_gradient_is_cut_once_for_the_whole_batch(tiny):
    _, _, gradients = step(build(tiny, "plain"), ALL)
    norm = torch.stack([g.norm() for g in gradients.values()]).norm().item()
    _, _, cut = step(build(tiny, "plain", micro_batches=4, max_grad_norm=norm / 10), ALL)
    close({n: 10 * g for n, g in cut.items()}, gradients, atol=1e-5)
    _, _, longer = step(build(tiny, "plain", micro_batches=4, max_grad_norm=norm * 10), ALL)
    close(longer, gradients)
