"""Errors inside a step: what is not finite is named or skipped; short memory makes its parts smaller."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.builders import build_run, make_still_encoder
from tests.training.test_state import assert_same, averages, disturb, weights

from bertune.errors import TrainingError
from bertune.training.oom import is_out_of_memory
from bertune.training.step import TrainStep

NOUNS = ["dog", "cat", "tree", "house"]
TEXTS = [
    f"the {noun} is {mood}{' and very big' * (n % 4)}"
    for n, (noun, mood) in enumerate((a, b) for a in NOUNS for b in ("good", "bad"))
]
NUMBERED = [{"text": text, "label": float(n % 3)} for n, text in enumerate(TEXTS)]
SINGLE = [{"text": text} for text in TEXTS]
PAIRS = [{"text": text, "text_b": text.replace("the", "a")} for text in TEXTS]
PROBLEMS = {"regress": ("regress", NUMBERED), "SimCSE": ("embed", SINGLE), "pairs": ("embed", PAIRS)}
SIZE = 4
PER_EPOCH = len(TEXTS) // SIZE


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
    """A tiny BERT without dropout."""
    return make_still_encoder(tmp_path_factory.mktemp("encoder") / "still")


def build(folder: Path, problem: str = "regress", **train: object) -> TrainStep:
    """Build everything of a run; its warnings are kept in `work.warnings`."""
    name, rows = PROBLEMS[problem]
    settings = {
        "epochs": 10,
        "batch_size": SIZE,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_ratio": 0,
        **train,
    }
    warnings: list[str] = []
    work = build_run({"task": name, "model": str(folder), "train": settings}, rows).step(warnings.append)
    work.warnings = warnings
    return work


def advance(work: TrainStep, steps: int) -> TrainStep:
    """Train for so many steps more."""
    done = work.state.progress.step + steps
    for rows in work.batches():
        if work.state.progress.step == done:
            break
        work.model.train()
        work.step(rows)
        work.fetch_loss()
    return work


def state_of(work: TrainStep) -> dict[str, torch.Tensor]:
    """Return all tensors that training changes: weights, moments, averages."""
    return work.state.capture()[0]


@pytest.fixture
def odd(tiny):
    """A run with one row whose target is NaN, and the steps of its first epochs that have it."""

    def get(**train: object) -> tuple[TrainStep, list[int]]:
        work = build(tiny, ema=0.9, **train)
        work.dataset.targets[2] = math.nan
        batches, steps = work.batches(), []
        for step in range(1, 4 * PER_EPOCH + 1):
            if 2 in next(batches):
                steps.append(step)
            work.state.progress.batches_done += 1
        work.state.progress.epoch = work.state.progress.batches_done = 0
        return work, steps

    return get


def test_a_loss_that_is_not_finite_is_named_with_step_rows_and_advice(odd):
    work, (first, *_) = odd()
    with pytest.raises(TrainingError) as failed:
        advance(work, PER_EPOCH)
    text = str(failed.value)
    assert text.startswith(
        f"loss or gradient is not finite at step {first} of {10 * PER_EPOCH}; the batch: 'rows.jsonl:"
    )
    assert text.split(";")[1].count("rows.jsonl:") == SIZE
    assert "; cause: 'rows.jsonl:3'; " in text
    for advice in ("train.learning_rate", "train.precision=bf16 or fp32", "train.max_nonfinite_steps=N"):
        assert advice in text
    assert "\n" not in text


def test_several_rows_may_be_the_cause(odd):
    work, _ = odd(batch_size=len(TEXTS))
    work.dataset.targets[5] = math.inf
    with pytest.raises(TrainingError, match=r"; cause: 'rows\.jsonl:[36]', 'rows\.jsonl:[36]'; "):
        advance(work, 1)


def test_weights_that_are_not_finite_are_the_cause(tiny):
    work = build(tiny)
    work.model.head.out.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="every row has such a loss, so the weights are the cause"):
        advance(work, 1)


def test_a_gradient_that_is_not_finite_is_named_where_no_row_is_the_cause(tiny):
    work = build(tiny)
    next(work.model.encoder.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"at step 1 of .*; none of its rows alone is the cause"):
        advance(work, 1)


def test_rows_that_were_not_checked_are_not_cleared(tiny):
    """A loss over the whole batch has none of a row alone."""
    work = build(tiny, "pairs")
    next(work.model.encoder.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match=r"at step 1 of .*; the batch: 'rows\.jsonl:") as failed:
        advance(work, 1)
    assert "none of its rows alone is the cause" not in str(failed.value)


@pytest.mark.parametrize("train", [{}, {"micro_batches": 2}, {"fgm": 0.5}, {"r_drop": 1.0}], ids=str)
def test_so_many_steps_are_skipped_and_one_more_ends_the_run(train, odd):
    work, steps = odd(max_nonfinite_steps=2, **train)
    for number, step in enumerate(steps[:2], 1):
        advance(work, step - 1 - work.state.progress.step)
        before = state_of(work)
        advance(work, 1)
        assert_same(state_of(work), before)
        assert work.state.progress.nonfinite_steps == number
        assert len(work.warnings) == number
        assert f"not finite at step {step} of " in work.warnings[-1]
        assert "cause: 'rows.jsonl:3'" in work.warnings[-1]
        assert work.warnings[-1].endswith(f"skipped, number {number} of 2 (train.max_nonfinite_steps)")
    before = state_of(work)
    advance(work, steps[2] - 1 - work.state.progress.step)
    assert any(not torch.equal(before[n], t) for n, t in state_of(work).items())
    with pytest.raises(TrainingError, match=f"not finite at step {steps[2]} of .*cause: "):
        advance(work, 1)


def test_skipped_steps_do_not_count_in_the_loss(odd):
    work, steps = odd(max_nonfinite_steps=9)
    advance(work, 2 * PER_EPOCH)
    mean = work.state.progress.loss_since_log
    assert math.isfinite(mean.total)
    assert mean.count == SIZE * (2 * PER_EPOCH - sum(step <= 2 * PER_EPOCH for step in steps))


def test_the_number_of_skipped_steps_goes_on(odd, tmp_path):
    straight, steps = odd(max_nonfinite_steps=2)
    expected = state_of(advance(straight, steps[2] - 1))
    work, _ = odd(max_nonfinite_steps=2)
    advance(work, steps[1] - 1).state.write(tmp_path)
    disturb()
    again, _ = odd(max_nonfinite_steps=2)
    again.state.read(tmp_path)
    assert again.state.progress.nonfinite_steps == 1
    advance(again, 1)
    assert again.warnings[0].endswith("number 2 of 2 (train.max_nonfinite_steps)")
    with pytest.raises(TrainingError, match=f"at step {steps[2]} of"):
        advance(again, 2 * PER_EPOCH)
    assert_same(state_of(again), expected)


def limit(work: TrainStep, most: int) -> list[int]:
    """Let memory be short where more than `most` tokens are encoded at once, after dropout has been drawn."""
    forward, sizes = work.model.encoder.forward, []

    def limited(ragged, **named):
        states = forward(ragged, **named)
        tokens = sum(ragged.lengths)
        if tokens > most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: "
                f"you tried to allocate {tokens} bytes\nmore"
            )
        sizes.append(tokens)
        return states

    work.model.encoder.forward = limited
    return sizes


@pytest.fixture(scope="module")
def most(still) -> dict[tuple[str, int], int]:
    """The most tokens that are encoded at once when batches are cut into so many parts."""

    def largest(problem: str, parts: int) -> int:
        work = build(still, problem, micro_batches=parts)
        sizes = limit(work, 10**9)
        advance(work, 2 * PER_EPOCH)
        return max(sizes)

    return {(problem, parts): largest(problem, parts) for problem in PROBLEMS for parts in (1, 2, 4)}


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_smaller_parts_give_the_same_gradient(problem, parts, still, most):
    def gradients(work: TrainStep) -> dict[str, torch.Tensor]:
        advance(work, 1)
        return {n: p.grad.clone() for n, p in work.model.named_parameters() if p.grad is not None}

    whole = build(still, problem, max_grad_norm=0)
    expected = gradients(whole)
    work = build(still, problem, max_grad_norm=0)
    sizes = limit(work, most[problem, parts])
    found = gradients(work)
    assert max(sizes) <= most[problem, parts] < most[problem, 1]
    assert found.keys() == expected.keys()
    assert all(
        gradient.any() for name, gradient in expected.items() if name == "encoder.layers.0.query.weight"
    )
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert work.state.progress.loss_since_log.total == pytest.approx(
        whole.state.progress.loss_since_log.total, rel=1e-6
    )
    assert work.state.progress.loss_since_log.count == whole.state.progress.loss_since_log.count


TRICKS = {"plain": {}, "EMA": {"ema": 0.9}, "FGM": {"fgm": 0.5}, "R-Drop": {"r_drop": 1.0}}


@pytest.mark.parametrize(
    ("problem", "tricks"),
    [*(("regress", name) for name in TRICKS), ("SimCSE", "plain"), ("SimCSE", "EMA"), ("pairs", "plain")],
)
@pytest.mark.parametrize("parts", [2, 4])
def test_the_run_is_that_with_smaller_parts_from_the_start(problem, tricks, parts, tiny, most):
    """Bit for bit, with dropout: what the failed attempts drew is drawn again."""
    expected = advance(build(tiny, problem, micro_batches=parts, **TRICKS[tricks]), 3)
    tensors, values = expected.state.capture()
    work = build(tiny, problem, **TRICKS[tricks])
    limit(work, most[problem, parts])
    advance(work, 3)
    assert work.state.progress.oom_splits == parts
    assert_same(state_of(work), tensors)
    assert_same(averages(work), averages(expected))
    assert work.state.capture()[1]["random"] == values["random"]
    assert work.state.progress.loss_since_log == expected.state.progress.loss_since_log


def test_one_warning_says_how_to_begin_so(tiny, most):
    work = build(tiny, micro_batches=2)
    limit(work, most["regress", 4])
    advance(work, PER_EPOCH + 1)
    assert len(work.warnings) == 1
    assert "can't allocate memory: you tried to allocate" in work.warnings[0]
    assert "(step " in work.warnings[0]
    assert "train.micro_batches=4 does so from the start" in work.warnings[0]
    assert "\n" not in work.warnings[0]


def test_a_step_that_is_short_of_memory_in_the_second_pass_of_fgm_is_done_again_from_its_beginning(tiny):
    expected = state_of(advance(build(tiny, fgm=0.5, micro_batches=2), 1))
    work = build(tiny, fgm=0.5)
    forward, calls = work.model.encoder.forward, []

    def second_fails(ragged, **named):
        calls.append(len(ragged.lengths))
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory")
        return forward(ragged, **named)

    work.model.encoder.forward = second_fails
    advance(work, 1)
    assert calls == [4, 4, 2, 2, 2, 2]
    assert_same(state_of(work), expected)


def test_micro_batch_tokens_are_halved_too(tiny, most):
    """Here it is what cuts the batch, and twice as many parts of rows would be no smaller."""
    work = build(tiny, micro_batch_tokens=most["regress", 1] - 1)
    sizes = limit(work, most["regress", 4])
    advance(work, PER_EPOCH)
    assert max(sizes) <= most["regress", 4]
    assert work.state.progress.step == PER_EPOCH


def test_parts_stay_small_when_the_run_goes_on(tiny, most, tmp_path):
    straight = build(tiny)
    limit(straight, most["regress", 2])
    expected = state_of(advance(straight, 4))
    work = build(tiny)
    limit(work, most["regress", 2])
    advance(work, 2)
    assert work.state.progress.oom_splits == 2
    work.state.write(tmp_path)
    disturb()
    again = build(tiny)
    again.state.read(tmp_path)
    sizes = limit(again, most["regress", 2])
    advance(again, 2)
    assert again.warnings == []
    assert len(sizes) == 4
    assert_same(state_of(again), expected)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_row_that_is_too_long_alone_ends_the_run_and_is_named(problem, tiny):
    work = build(tiny, problem)
    batch = next(work.batches())
    longest = max(batch, key=lambda row: int(work.dataset.lengths[row]))
    limit(work, 3)
    before = weights(work)
    with pytest.raises(TrainingError) as failed:
        advance(work, 1)
    text = str(failed.value)
    assert "out of memory for a single row: " in text
    assert f"rows.jsonl:{longest + 1} with {int(work.dataset.lengths[longest])} tokens" in text
    assert "data.max_length" in text
    assert "\n" not in text
    assert_same(weights(work), before)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=repr,
)
def test_what_is_short_of_memory_and_what_is_not(error, short, tiny):
    assert is_out_of_memory(error) == short
    work = build(tiny)
    forward, calls = work.model.encoder.forward, []

    def first_fails(ragged, **named):
        calls.append(ragged)
        if len(calls) == 1:
            raise error
        return forward(ragged, **named)

    work.model.encoder.forward = first_fails
    if short:
        advance(work, 1)
        assert work.state.progress.oom_splits == 2
        return
    with pytest.raises(type(error)) as failed:
        advance(work, 1)
    assert failed.value is error
