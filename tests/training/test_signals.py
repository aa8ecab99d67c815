"""Ctrl-C and SIGTERM: what is heard, where the run stops, and that it goes on as if it had not."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.training.test_state import PER_EPOCH, STEPS, assert_same, averages, build, disturb, weights

from bertune.errors import Interrupted
from bertune.heads.model import Model
from bertune.training.checkpoint import Checkpoints
from bertune.training.history import History
from bertune.training.listener import Listener
from bertune.training.loop import TrainLoop
from bertune.training.signals import StopRequested, StopSignals
from bertune.training.step import TrainStep
from bertune.types import Scores

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@BOTH
def test_the_first_signal_is_a_wish(number, capfd):
    before, signals = handlers(), StopSignals()
    with signals.installed():
        assert signals.received is None
        send(number)
        assert signals.received == number
    assert handlers() == before
    said = capfd.readouterr().err
    assert (
        f"{number.name}: the step is finished and a checkpoint is written first; Ctrl-C leaves at once"
        in said
    )


@BOTH
def test_a_second_ctrl_c_leaves_at_once(number):
    before, signals = handlers(), StopSignals()
    with pytest.raises(KeyboardInterrupt) as left, signals.installed():
        send(number)
        send(signal.SIGINT)
    assert not isinstance(left.value, Interrupted)
    assert signals.received == number
    assert handlers() == before


@BOTH
def test_a_second_sigterm_changes_nothing(number, capfd):
    """Whoever ends jobs may send it twice."""
    signals = StopSignals()
    with signals.installed():
        send(number)
        send(signal.SIGTERM)
    assert signals.received == number
    assert capfd.readouterr().err.count("Ctrl-C leaves at once") == 1


@BOTH
def test_where_it_does_no_harm_the_block_ends_at_once(number):
    signals = StopSignals()
    after = []
    with signals.installed():
        with pytest.raises(StopRequested), signals.interruptible():
            send(number)
            after.append("not reached")
        send(signal.SIGTERM)
    assert after == []
    assert signals.received == number


def test_a_wish_from_before_ends_such_a_block_before_it_begins():
    signals = StopSignals()
    with signals.installed():
        send()
        with pytest.raises(StopRequested), signals.interruptible():
            pytest.fail("the block ran")


def test_after_such_a_block_a_signal_is_a_wish_again():
    signals = StopSignals()
    with signals.installed():
        with signals.interruptible():
            pass
        send()
    assert signals.received == signal.SIGINT


def test_an_error_in_such_a_block_is_passed_on():
    signals = StopSignals()
    with signals.installed():
        with pytest.raises(ValueError, match="ours"), signals.interruptible():
            raise ValueError("ours")
        send()
    assert signals.received == signal.SIGINT


def test_handlers_come_back_after_an_error():
    before = handlers()
    with pytest.raises(ValueError, match="ours"), StopSignals().installed():
        assert handlers() != before
        raise ValueError("ours")
    assert handlers() == before


def test_in_another_thread_nothing_is_heard():
    """Python lets only the main thread have handlers, and a notebook's server trains in others."""
    before, seen = handlers(), []

    def work() -> None:
        signals = StopSignals()
        with signals.installed(), signals.interruptible():
            seen.extend(handlers())
        seen.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*before, None]


class AtStep(Listener):
    """Calls a function after every step."""

    def __init__(self, call: Callable[[int], object]) -> None:
        self.call = call

    def on_step(self, step: int, total_steps: int) -> None:
        self.call(step)


class Bench:
    """Runs of the same settings in folders of their own, whose dev score changes with the weights."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.tiny, self.folder = tiny, folder

    def start(
        self, name: str, at: Callable[[str, int], None] = lambda *_: None, **train: object
    ) -> TrainStep:
        """Begin or go on; `at` hears of every step and of every evaluation, in its middle."""
        disturb()
        work = build(self.tiny, eval_every=2, **train)
        out = self.folder / name
        out.mkdir(exist_ok=True)
        checkpoints = Checkpoints(out, 2, {}, f"bertune train {name} --resume")
        checkpoint = checkpoints.find(pytest.fail)
        if checkpoint is not None:
            work.state.read(checkpoint.folder)

        def evaluate(model: Model) -> tuple[float, Scores]:
            model.eval()
            at("evaluation", work.state.progress.step)
            batch = work.dataset.get_batch(range(len(work.dataset)), work.task.collate_target)
            loss = float(work.task.loss(model(batch), batch).detach())
            return loss, Scores("score", True, {"score": -loss})

        listeners = [History(out), AtStep(lambda step: at("step", step))]
        TrainLoop(
            work, evaluate=evaluate, save_best=lambda *_: None, listeners=listeners, checkpoints=checkpoints
        ).run()
        return work

    def checkpoints(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.folder / name / "checkpoints").iterdir())

    def history(self, name: str) -> list[dict[str, object]]:
        timed = ("rows_per_s", "tokens_per_s", "eta_s", "seconds")
        lines = (self.folder / name / "history.jsonl").read_text(encoding="utf-8").splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(bench) -> TrainStep:
    return bench.start("whole")


def when(what: str, step: int, *numbers: int) -> Callable[[str, int], None]:
    """Send signals at one moment."""

    def at(now: str, done: int) -> None:
        for number in numbers if (now, done) == (what, step) else ():
            send(number)

    return at


def assert_as_if_nothing_had_been(bench: Bench, name: str, again: TrainStep, whole: TrainStep) -> None:
    assert again.state.progress == whole.state.progress
    assert_same(weights(again), weights(whole))
    assert_same(averages(again), averages(whole))
    assert bench.history(name) == bench.history("whole")


def test_the_run_without_interruption_has_evaluations_and_lines(bench, whole):
    """Or the tests below would show nothing."""
    lines = bench.history("whole")
    assert [line["step"] for line in lines if line["event"] == "dev"] == [2, 4, 6, 7]
    assert [line["step"] for line in lines if line["event"] == "train"] == [3, 6, 7]
    assert [line["step"] for line in lines if line["event"] == "epoch"] == [3, 6, 7]


@BOTH
@pytest.mark.parametrize("step", [1, 2, PER_EPOCH, STEPS])
def test_the_step_is_finished_and_the_run_goes_on(number, step, bench, whole):
    name = f"step {step} {number.name}"
    if step in (2, STEPS):  # an evaluation is due: it is broken off, and made when the run goes on
        name, expected = f"{name} before eval", f"step-{step:08d}-before-eval"
    else:
        expected = f"step-{step:08d}"
    with pytest.raises(Interrupted) as stopped:
        bench.start(name, when("step", step, number))
    assert stopped.value.number == number
    assert (
        str(stopped.value) == f"stopped at step {step} of {STEPS}; go on with: bertune train {name} --resume"
    )
    assert bench.checkpoints(name)[-1] == expected
    assert_as_if_nothing_had_been(bench, name, bench.start(name), whole)


@pytest.mark.parametrize("step", [2, 6, STEPS])
def test_an_evaluation_is_left_at_once_and_made_when_the_run_goes_on(step, bench, whole):
    name = f"evaluation {step}"
    with pytest.raises(
        Interrupted, match=f"stopped at step {step} of {STEPS}; go on with: bertune train {name} --resume"
    ):
        bench.start(name, when("evaluation", step, signal.SIGTERM))
    assert bench.checkpoints(name)[-1] == f"step-{step:08d}-before-eval"
    assert [line["step"] for line in bench.history(name) if line["event"] == "dev"] == [
        s for s in (2, 4, 6) if s < step
    ]
    assert_as_if_nothing_had_been(bench, name, bench.start(name), whole)


def test_an_evaluation_may_be_left_again_and_again(bench, whole):
    for _ in range(3):
        with pytest.raises(Interrupted, match="stopped at step 6 "):
            bench.start("again", when("evaluation", 6, signal.SIGINT))
    assert bench.checkpoints("again")[-1] == "step-00000006-before-eval"
    assert_as_if_nothing_had_been(bench, "again", bench.start("again"), whole)


class Killed(BaseException):
    """Ends the process as far as our code can tell."""


def test_a_process_killed_after_the_evaluation_that_it_had_made_up_for_writes_its_line_once(bench, whole):
    """The checkpoint from before the evaluation is still the newest, so the evaluation is made once more."""
    with pytest.raises(Interrupted):
        bench.start("up", when("evaluation", 2, signal.SIGINT))

    def killed(what: str, step: int) -> None:
        if (what, step) == ("step", 3):
            raise Killed

    with pytest.raises(Killed):
        bench.start("up", killed)
    assert bench.checkpoints("up")[-1] == "step-00000002-before-eval"
    assert_as_if_nothing_had_been(bench, "up", bench.start("up"), whole)


def test_interrupted_at_every_step_it_is_the_same_run(bench, whole):
    for step in range(1, STEPS + 1):
        with pytest.raises(Interrupted):
            bench.start("often", when("step", step, signal.SIGTERM))
    assert_as_if_nothing_had_been(bench, "often", bench.start("often"), whole)


@BOTH
def test_a_second_ctrl_c_writes_nothing_and_harms_nothing(number, bench, whole):
    name = f"twice {number.name}"
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as left:
        bench.start(name, when("step", PER_EPOCH + 1, number, signal.SIGINT))
    assert not isinstance(left.value, Interrupted)
    assert handlers() == before
    assert bench.checkpoints(name) == [f"step-{PER_EPOCH:08d}"]
    assert_as_if_nothing_had_been(bench, name, bench.start(name), whole)


def test_a_second_ctrl_c_while_the_checkpoint_is_written(bench, whole, monkeypatch):
    from bertune import tensor_file

    real = tensor_file.save_file

    def save_half(tensors, path, **named):
        real(tensors, path, **named)
        if work_stops:
            os.truncate(path, 1000)
            send()

    work_stops: list[int] = []

    def at(what: str, step: int) -> None:
        if (what, step) == ("step", PER_EPOCH + 2):
            work_stops.append(step)
            send()

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", save_half)
        with pytest.raises(KeyboardInterrupt) as left:
            bench.start("amid", at)
    assert not isinstance(left.value, Interrupted)
    assert bench.checkpoints("amid") == [f"step-{PER_EPOCH:08d}", f"step-{PER_EPOCH + 2:08d}.part"]
    assert_as_if_nothing_had_been(bench, "amid", bench.start("amid"), whole)
    assert bench.checkpoints("amid")[-1] == f"step-{STEPS:08d}"


def test_without_checkpoints_a_signal_ends_the_run_as_any_program(tiny):
    sender = AtStep(lambda step: send() if step == 2 else None)
    loop = TrainLoop(build(tiny), evaluate=None, save_best=lambda *_: None, listeners=[sender])
    with pytest.raises(KeyboardInterrupt) as left:
        loop.run()
    assert not isinstance(left.value, Interrupted)


def test_a_signal_writes_a_checkpoint_where_none_is_written_otherwise(bench):
    with pytest.raises(Interrupted):
        bench.start("never", when("step", 5, signal.SIGINT), checkpoint_every="never")
    assert bench.checkpoints("never") == ["step-00000005"]
    assert bench.start("never", checkpoint_every="never").state.progress.step == STEPS


def test_a_run_that_has_lost_patience_goes_on_to_nothing(bench):
    """The score moves with the weights: it is by chance alone that one is no gain, so none counts as one."""
    straight = bench.start("patient", patience=1, min_delta=100.0)
    assert straight.state.progress.step == 4
    with pytest.raises(Interrupted):
        bench.start("patience", when("evaluation", 4, signal.SIGINT), patience=1, min_delta=100.0)
    again = bench.start("patience", patience=1, min_delta=100.0)
    assert again.state.progress == straight.state.progress
    assert bench.history("patience") == bench.history("patient")
    assert bench.start("patience", patience=1, min_delta=100.0).state.progress == straight.state.progress
    assert bench.history("patience") == bench.history("patient")
