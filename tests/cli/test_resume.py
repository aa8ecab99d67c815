"""`bertune train --resume`, as a user runs it: where it goes on, what it says, what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import bertune
from bertune import tensor_file
from bertune.cli.app import app
from bertune.errors import Interrupted
from bertune.training import resume
from bertune.training.history import History
from bertune.training.loop import TrainLoop

NOUNS = ["dog", "cat", "tree", "house", "car"]
LABELS = {"good": "pos", "great": "pos", "bad": "neg", "awful": "neg"}
ROWS = [{"text": f"the {noun} is {mood}", "label": label} for mood, label in LABELS.items() for noun in NOUNS]
SIZE = 4
PER_EPOCH = len(ROWS) // SIZE
STEPS = 2 * PER_EPOCH


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory):
    """A run that nothing happened to."""
    place = tmp_path_factory.mktemp("straight")
    (place / "rows.jsonl").write_text(lines_of(ROWS), encoding="utf-8")
    return bertune.train("classify", settings(tiny, place, out=place / "out"), quiet=True).folder


def settings(tiny, place, *more, out="out"):
    rows = place / "rows.jsonl"
    return [
        f"model={tiny}", f"data.train={rows}", f"data.dev={rows}", f"out={out}", "device=cpu",
        "train.precision=fp32", f"train.batch_size={SIZE}", "train.learning_rate=3e-3",
        "train.epochs=2", "log.every=2", *more,
    ]  # fmt: skip


class Bench:
    """The command line in a folder of its own."""

    def __init__(self, tiny: Path, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place, self.patch = place, patch
        (place / "rows.jsonl").write_text(lines_of(ROWS), encoding="utf-8")
        self.settings = settings(tiny, place)

    def call(self, *words: str) -> tuple[int, str, list[str]]:
        found = CliRunner().invoke(app, ["train", *map(str, words)])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found.exit_code, found.stdout, found.stderr.strip().splitlines()

    def stopped(self, *more: str, at: int = 3, number: int = signal.SIGINT) -> tuple[int, str, list[str]]:
        """Begin a run, or go on with one, that a signal stops."""
        with self.patch.context() as patch:
            patch.setattr(
                History,
                "on_step",
                lambda _, step, total: os.kill(os.getpid(), number) if step == at else None,
            )
            return self.call("classify", *self.settings, *more)


@pytest.fixture
def bench(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Bench(tiny, tmp_path, monkeypatch)


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def history(folder: Path) -> list[dict[str, object]]:
    timed = ("rows_per_s", "tokens_per_s", "eta_s", "seconds")
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def assert_the_same(folder: Path, straight: Path, *, history_too: bool = True) -> None:
    for name in ("model.safetensors", "bertune.json", "last/model.safetensors", "last/bertune.json"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    ours, theirs = (
        json.loads((place / "scores.json").read_text(encoding="utf-8")) for place in (folder, straight)
    )
    assert ours["dev"] == theirs["dev"]
    assert not history_too or history(folder) == history(straight)
    assert not [
        path for path in folder.rglob("*") if "part" in path.suffix or path.name.startswith("checkpoints")
    ]


def assert_refused(found, *parts: str) -> None:
    code, out, said = found
    assert (code, out) == (2, ""), said
    errors = [line for line in said if line.startswith("bertune: ")]
    assert errors == said[-1:]
    for part in parts:
        assert part in errors[0]


SLOW = ["train.epochs=20", "log.every=1", "train.eval_every=20"]


@pytest.fixture(scope="module")
def slow(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("slow")
    (place / "rows.jsonl").write_text(lines_of(ROWS), encoding="utf-8")
    return bertune.train("classify", settings(tiny, place, *SLOW, out=place / "out"), quiet=True).folder


@pytest.mark.skipif(os.name == "nt", reason="other signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_signal_to_a_real_process(name, code, bench, slow):
    """It prints what is to be typed; typed, it goes on to the same end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bertune", "train", "classify", *bench.settings, *SLOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    record = Path("out/history.jsonl")
    while process.poll() is None and not (
        record.exists() and '"step": 7,' in record.read_text(encoding="utf-8")
    ):
        time.sleep(0.002)
    process.send_signal(signal.Signals[name])
    out, said = process.communicate()
    assert (process.returncode, out) == (code, ""), said
    command = ["bertune", "train", "out", "--resume"]
    if name != "SIGKILL":
        assert "Traceback" not in said
        assert f"{name}: the step is finished and a checkpoint is written first" in said
        last = said.strip().splitlines()[-1]
        assert last.startswith("bertune: stopped at step ")
        assert shlex.split(last.partition("go on with: ")[2]) == command
    code, out, said = bench.call(*command[2:])
    assert (code, out) == (0, "out\n"), said
    assert_the_same(Path("out"), slow)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
@pytest.mark.parametrize("form", ["folder", "settings", "a run file"])
def test_all_ways_to_go_on(number, code, form, bench, straight):
    found = bench.stopped(number=number)
    assert (found[0], found[1]) == (code, ""), found
    assert found[2][-1] == f"bertune: stopped at step 3 of {STEPS}; go on with: bertune train out --resume"
    shutil.copy("out/run.yaml", "mine.yaml")
    words = {
        "folder": ["out"],
        "settings": ["classify", *bench.settings],
        "a run file": ["mine.yaml", "out=out"],
    }[form]
    code, out, said = bench.call(*words, "--resume")
    assert (code, out) == (0, "out\n"), said
    assert f"resume: goes on from {Path('out/checkpoints/step-00000003')}, step 3" in said
    assert [line for line in said if line.startswith("resume: ")] == said[:1]
    assert_the_same(Path("out"), straight)


def test_the_command_is_one_that_a_shell_takes(bench, straight):
    said = bench.stopped("out=my runs/it's one")[2]
    words = shlex.split(said[-1].partition("go on with: ")[2])
    assert words == ["bertune", "train", "my runs/it's one", "--resume"]
    assert bench.call(*words[2:])[0] == 0
    assert_the_same(Path("my runs/it's one"), straight)


def test_a_run_without_out_is_gone_on_with_by_its_folder(bench, straight):
    found = bench.stopped("out=null")
    assert found[2][-1].endswith("go on with: bertune train runs/classify-1 --resume")
    assert bench.call("runs/classify-1", "--resume")[:2] == (0, "runs/classify-1\n")
    assert_the_same(Path("runs/classify-1"), straight)


def test_a_folder_that_was_moved_goes_on(bench, straight):
    bench.stopped()
    Path("out").rename("moved")
    code, out, said = bench.call("moved", "--resume")
    assert (code, out) == (0, "moved\n"), said
    assert_the_same(Path("moved"), straight)
    assert bertune.load("moved").predict(["the dog is good"])


def test_a_quiet_run_says_only_that_it_was_stopped(bench):
    code, out, said = bench.stopped("-q")
    assert (code, out) == (130, "")
    assert [line for line in said if line] == [
        f"bertune: stopped at step 3 of {STEPS}; go on with: bertune train out --resume"
    ]
    assert bench.call("out", "--resume", "-q") == (0, "out\n", [])


@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "empty folder"])
def test_where_nothing_is_the_run_begins(empty, bench, straight):
    if empty:
        Path("out").mkdir()
    code, out, said = bench.call("classify", *bench.settings, "--resume")
    assert (code, out) == (0, "out\n")
    assert said[0] == "resume: nothing to resume in 'out' yet, so the run begins"
    assert_the_same(Path("out"), straight)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(bench, straight):
    bench.stopped("train.checkpoint_every=never")
    shutil.rmtree("out/checkpoints")
    code, _, said = bench.call("out", "--resume", "train.checkpoint_every=epoch")
    assert code == 0
    assert "resume: 'out' holds no complete checkpoint, so the run starts again in it" in said
    assert_the_same(Path("out"), straight)


@pytest.mark.parametrize("words", [["out"], ["out/run.yaml"]], ids=["folder", "run.yaml"])
def test_a_finished_run_is_left_as_it_is(words, bench, straight):
    shutil.copytree(straight, "out")
    Path("rows.jsonl").unlink()
    before = files_in(Path("out"))
    code, out, said = bench.call(*words, "out=out", "--resume")
    assert (code, out) == (0, "out\n"), said
    assert said == ["resume: the run in 'out' is finished; nothing is left to do"]
    assert files_in(Path("out")) == before
    result = bertune.train("out", resume=True, quiet=True)
    assert result.folder == Path("out")
    written = json.loads(Path("out/scores.json").read_text(encoding="utf-8"))
    assert {split: scores.to_json() for split, scores in result.scores.items()} == {"dev": written["dev"]}


def test_a_finished_run_is_not_one_of_other_settings(bench, straight):
    shutil.copytree(straight, "out")
    before = files_in(Path("out"))
    assert_refused(
        bench.call("out", "--resume", "train.epochs=3"),
        "settings that matter have changed: train.epochs was 2.0, is 3.0",
    )
    assert files_in(Path("out")) == before


FOREIGN = {
    "a folder of something else": (
        ["classify", "SETTINGS", "out=other"],
        ["'other'", "holds no run.yaml", "no run of bertune"],
    ),
    "a folder of something else by its name": (
        ["other"],
        ["other: holds no run.yaml, so there is no run to resume"],
    ),
    "a file": (["classify", "SETTINGS", "out=rows.jsonl"], ["'rows.jsonl'", "no run of bertune"]),
    "no out": (
        ["classify", "SETTINGS", "out=null"],
        ["--resume: say which run", "bertune train OUT --resume", "out=OUT"],
    ),
    "no such folder": (["nothing"], ["nothing"]),
    "a run file without its folder": (
        ["straight.yaml"],
        ["--resume: say which run", "bertune train OUT --resume", "out=OUT"],
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_run_is_refused_and_left_as_it_is(name, bench, straight):
    shutil.copy(straight / "run.yaml", "straight.yaml")
    Path("other").mkdir()
    Path("other/mine.txt").write_text("mine")
    words, parts = FOREIGN[name]
    before = files_in(bench.place)
    assert_refused(
        bench.call(
            *[x for word in words for x in (bench.settings if word == "SETTINGS" else [word])], "--resume"
        ),
        *parts,
    )
    assert files_in(bench.place) == before


def test_a_run_file_that_is_damaged_is_named_where_there_is_nothing_else(bench):
    """As a killed process or a full disk may leave it."""
    Path("out").mkdir()
    for content in ("", "task: [", "seed: 1\n", "epochs\n"):
        Path("out/run.yaml").write_text(content)
        before = files_in(bench.place)
        assert_refused(bench.call("out", "--resume"), "out")
        assert files_in(bench.place) == before


@pytest.mark.parametrize("content", ["", "task: [", "seed: 1\n"])
def test_a_damaged_run_file_does_not_keep_a_checkpoint_from_going_on(content, bench, straight):
    """The checkpoint knows the settings too."""
    bench.stopped()
    Path("out/run.yaml").write_text(content)
    code, _, said = bench.call("classify", *bench.settings, "--resume")
    assert code == 0, said
    assert_the_same(Path("out"), straight)


MATTER = {
    "seed=7": "seed was 42, is 7",
    "train.epochs=3": "train.epochs was 2.0, is 3.0",
    "train.max_steps=4": "train.max_steps was None, is 4",
    "train.batch_size=5": "train.batch_size was 4, is 5",
    "train.learning_rate=1e-3": "train.learning_rate was 0.003, is 0.001",
    "train.schedule=cosine": "train.schedule was 'linear', is 'cosine'",
    "train.precision=bf16": "train.precision was 'fp32', is 'bf16'",
    "train.ema=0.9": "train.ema was None, is 0.9",
    "train.dropout=0": "train.dropout was None, is 0.0",
    "train.eval_every=3": "train.eval_every was 'epoch', is 3",
    "train.patience=1": "train.patience was None, is 1",
    "train.active_vocabulary=false": "train.active_vocabulary was True, is False",
    "data.max_length=8": "data.max_length was None, is 8",
    "options.label_smoothing=0.1": "options.label_smoothing was 0.0, is 0.1",
}


@pytest.fixture
def stopped(bench):
    bench.stopped()
    return bench


def test_settings_that_matter_are_refused_with_what_they_were(stopped):
    before = files_in(stopped.place)
    for setting, expected in MATTER.items():
        found = stopped.call("out", setting, "--resume")
        assert_refused(
            found,
            f"--resume: settings that matter have changed: {expected}. "
            "Restore them, or start a new run (out=...)",
        )
    assert_refused(
        stopped.call("out", "seed=7", "train.ema=0.9", "log.every=1", "--resume"),
        "seed was 42, is 7; train.ema was None, is 0.9. ",
    )
    assert files_in(stopped.place) == before


def test_settings_that_change_nothing_learnt_are_said(stopped, straight):
    changed = [
        "log.every=5",
        "train.checkpoint_every=2",
        "train.keep_checkpoints=1",
        "train.max_nonfinite_steps=3",
    ]
    code, _, said = stopped.call("out", *changed, "--resume")
    assert code == 0
    told = next(
        line for line in said if line.startswith("resume: changed, without effect on what is learnt: ")
    )
    for part in (
        "log.every was 2, is 5",
        "train.checkpoint_every was 'epoch', is 2",
        "train.keep_checkpoints was 2, is 1",
        "train.max_nonfinite_steps was 0, is 3",
    ):
        assert part in told
    assert_the_same(Path("out"), straight, history_too=False)
    scores = [
        [line["dev_loss"] for line in history(folder) if line["event"] == "dev"]
        for folder in (Path("out"), straight)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("setting", ["train.micro_batches=2", "train.micro_batch_tokens=9"])
def test_settings_that_change_rounding_are_said(setting, stopped, straight):
    code, _, said = stopped.call("out", setting, "--resume")
    assert code == 0
    name, _, value = setting.partition("=")
    (told,) = (
        line
        for line in said
        if line.startswith("resume: changed, so numbers are rounded in another way from here on: ")
    )
    assert f"{name} was " in told
    assert told.endswith(f", is {value}")
    steps = [
        [line["step"] for line in history(folder) if line["event"] == "train"]
        for folder in (Path("out"), straight)
    ]
    assert steps[0] == steps[1]


def test_another_machine_is_said(stopped, monkeypatch):
    """Threads and versions decide how numbers are rounded."""
    from bertune.training.resume import rounding_environment

    known = rounding_environment()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(
        resume, "package_version", lambda package: "0.0.1" if package == "tokenizers" else known[package]
    )
    code, _, said = stopped.call("out", "--resume")
    assert code == 0
    (told,) = (
        line
        for line in said
        if line.startswith(
            "resume: equal up to rounding but not bit for bit, since the machine has changed: "
        )
    )
    assert f"threads {known['threads']} then, 7 now" in told
    assert f"tokenizers {known['tokenizers']} then, 0.0.1 now" in told
    assert "torch" not in told


def test_a_setting_that_an_older_version_did_not_know_had_its_default(bench, straight, monkeypatch):
    from bertune.training.resume import Checkpoints

    class Older(Checkpoints):
        def __init__(
            self,
            out: Path,
            keep: int,
            description: dict,
            command: str,
            damaged: frozenset[Path] = frozenset(),
        ) -> None:
            run = json.loads(json.dumps(description.get("run")))
            if run:
                del run["train"]["fast_dropout"]
            super().__init__(out, keep, {**description, "run": run}, command, damaged)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "Checkpoints", Older)
        bench.stopped()
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert "fast_dropout" not in " ".join(said)
    assert_the_same(Path("out"), straight)
    assert_refused(
        bench.call("out", "--resume", "train.fast_dropout=false"), "train.fast_dropout was True, is False"
    )


DATA = {
    "rows added": ([*ROWS, *ROWS[:2]], "20 rows then, 22 now"),
    "rows removed": (ROWS[:-1], "20 rows then, 19 now"),
    "another order": (ROWS[::-1], "20 rows then, 20 now"),
    "another label": ([{**ROWS[0], "label": "neg"}, *ROWS[1:]], "20 rows then, 20 now"),
    "another text": ([{**ROWS[0], "text": "a dog"}, *ROWS[1:]], "20 rows then, 20 now"),
}


@pytest.mark.parametrize("name", DATA)
def test_other_rows_are_refused(name, stopped):
    rows, expected = DATA[name]
    Path("rows.jsonl").write_text(lines_of(rows), encoding="utf-8")
    before = files_in(stopped.place)
    parts = ["--resume: the data has changed since the run began", f"train: {expected}", f"dev: {expected}"]
    assert_refused(stopped.call("out", "--resume"), *parts)
    assert files_in(stopped.place) == before


def test_a_test_file_more_is_refused(stopped):
    """It is a setting that was not there."""
    Path("test.jsonl").write_text(lines_of(ROWS[:3]), encoding="utf-8")
    assert_refused(
        stopped.call("out", "data.test=test.jsonl", "--resume"), "data.test was None, is 'test.jsonl'"
    )


def test_without_resume_nothing_is_overwritten_and_resume_is_named(stopped):
    before = files_in(stopped.place)
    assert_refused(
        stopped.call("classify", *stopped.settings),
        "out: 'out' is not empty",
        "if it is this run that was stopped, go on with --resume",
    )
    assert files_in(stopped.place) == before


def test_without_checkpoints_resume_is_not_named(bench):
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    found = bench.call("classify", *bench.settings)
    assert_refused(found, "out: 'out' is not empty")
    assert "--resume" not in found[2][-1]


def test_speed_counts_new_steps_only(bench, monkeypatch):
    outcomes, run = [], TrainLoop.run
    monkeypatch.setattr(TrainLoop, "run", lambda loop: outcomes.append(run(loop)) or outcomes[-1])
    bench.stopped(at=STEPS - 2)
    code, _, said = bench.call("out", "--resume")
    assert code == 0
    (outcome,) = outcomes
    assert (outcome.steps, outcome.rows) == (STEPS, 2 * SIZE)
    summary = json.loads(Path("out/scores.json").read_text(encoding="utf-8"))["run"]
    assert summary["rows_per_s"] == pytest.approx(2 * SIZE / outcome.train_seconds)
    assert any(
        line.startswith(f"run: {STEPS} steps in ") and f"{summary['rows_per_s']:.0f} rows/s" in line
        for line in said
    )
    lines = [json.loads(line) for line in Path("out/history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["seconds"] >= lines[0]["seconds"]


def test_the_table_at_the_end_has_the_evaluations_of_before(bench):
    bench.stopped(at=PER_EPOCH + 1)
    said = bench.call("out", "--resume")[2]
    header = next(n for n, line in enumerate(said) if line.startswith("step ") and "train loss" in line)
    assert [line.split()[0] for line in said[header + 1 : header + 3]] == [str(PER_EPOCH), str(STEPS)]


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(bench, straight):
    bench.stopped("train.checkpoint_every=2", at=7)
    newest = Path("out/checkpoints/step-00000007/state.safetensors")
    newest.write_bytes(newest.read_bytes()[:-9])
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert said[0].startswith(f"resume: {newest.parent}: damaged, so it is skipped: ")
    assert said[1] == f"resume: goes on from {newest.parent.with_name('step-00000006')}, step 6"
    assert_the_same(Path("out"), straight)


def test_a_damaged_checkpoint_of_a_step_that_writes_one_is_replaced(bench, straight):
    bench.stopped("train.checkpoint_every=2", at=6)
    newest = Path("out/checkpoints/step-00000006/state.safetensors")
    newest.write_bytes(newest.read_bytes()[:-9])
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert_the_same(Path("out"), straight)


def test_where_all_checkpoints_are_damaged_the_run_begins_anew(bench, straight):
    bench.stopped(at=PER_EPOCH)
    for file in Path("out/checkpoints").glob("*/state.safetensors"):
        file.write_bytes(b"")
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert "resume: 'out' holds no complete checkpoint, so the run starts again in it" in said
    assert_the_same(Path("out"), straight)


def test_what_is_tuned_on_the_dev_rows_comes_out_the_same(bench):
    """Thresholds of several labels, when the last evaluation was that of another process."""
    rows = [
        {**row, "label": [row["label"]] if "dog" in row["text"] or "cat" in row["text"] else []}
        for row in ROWS
    ]
    Path("rows.jsonl").write_text(lines_of(rows), encoding="utf-8")
    assert bench.call("classify", *bench.settings, "out=whole")[0] == 0
    for at in (PER_EPOCH + 1, STEPS):
        assert bench.stopped(f"out=out{at}", at=at)[0] == 130
        assert bench.call(f"out{at}", "--resume")[0] == 0
        assert_the_same(Path(f"out{at}"), Path("whole"))


def test_ctrl_c_while_the_result_is_scored(bench, straight, monkeypatch):
    """Training is done, so there is nothing to finish; the last checkpoint is there."""
    from bertune.training.run import TrainingRun

    def stop(_: TrainingRun) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)  # a signal may take a moment

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_score_best", stop)
        code, out, said = bench.call("classify", *bench.settings)
    assert (code, out) == (130, "")
    assert said[-1].startswith("bertune: stopped")
    assert not Path("out/scores.json").exists()
    assert bench.call("out", "--resume")[:2] == (0, "out\n")
    assert_the_same(Path("out"), straight)


def test_the_api_tells_the_signal(bench, straight, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            History,
            "on_step",
            lambda _, step, total: os.kill(os.getpid(), signal.SIGTERM) if step == 3 else None,
        )
        with pytest.raises(KeyboardInterrupt) as stopped:
            bertune.train("classify", bench.settings, quiet=True)
    assert isinstance(stopped.value, Interrupted)
    assert stopped.value.number == signal.SIGTERM
    assert "go on with: bertune train out --resume" in str(stopped.value)
    assert bertune.train("classify", bench.settings, quiet=True, resume=True).folder == Path("out")
    assert_the_same(Path("out"), straight)


def steps_in_tensorboard(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "bertune"))
    found.Reload()
    return [event.step for event in found.Scalars("train/loss")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_step_once(bench, straight):
    pytest.importorskip("tensorboard")
    bench.stopped("log.trackers=[tensorboard]", "log.every=1", at=PER_EPOCH + 2)
    shutil.rmtree(
        f"out/checkpoints/step-{PER_EPOCH + 2:08d}"
    )  # as if it had been killed: the last steps are done again
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert steps_in_tensorboard(Path("out")) == list(range(1, STEPS + 1))
    assert (Path("out") / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_step_once_where_the_run_begins_anew(bench):
    pytest.importorskip("tensorboard")
    bench.stopped("log.trackers=[tensorboard]", "log.every=1")
    shutil.rmtree("out/checkpoints")
    assert bench.call("out", "--resume")[0] == 0
    assert steps_in_tensorboard(Path("out")) == list(range(1, STEPS + 1))


def full(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def half_then_full(path: Path, text: str, *_: object, **__: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text[: len(text) // 2])
    full()


def full_for(name: str):
    """Let there be no room for one file, as a disk has none: it is emptied, and half of it is written."""
    write_text = Path.write_text

    def write(path: Path, text: str, *given: object, **named: object) -> int:
        if path.name in (name, f"{name}.part"):
            half_then_full(path, text)
        return write_text(path, text, *given, **named)

    return write


def full_for_tensors(name: str) -> Callable[..., None]:
    save_file = tensor_file.save_file

    def write(tensors: object, path: Path, **named: object) -> None:
        return full() if path.name == name else save_file(tensors, path, **named)

    return write


@pytest.mark.parametrize(
    "what",
    ["state.safetensors", "model.safetensors", "config.json", "tokenizer.json", "run.yaml", "bertune.json"],
)
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(what, bench, straight, monkeypatch):
    """What is printed to be typed works, whatever was being written."""

    def at(run: History, step: int, total: int) -> None:
        if step == STEPS and what.endswith(".safetensors"):
            patch.setattr("bertune.tensor_file.save_file", full_for_tensors(what))
        elif step == STEPS:
            patch.setattr(Path, "write_text", full_for(what))

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_step", at)
        code, out, said = bench.call("classify", *bench.settings)
    assert (code, out) == (2, "")
    assert "No space left on device" in said[-1]
    assert said[-1].endswith("bertune train out --resume")
    code, _, said = bench.call(*shlex.split(said[-1].rpartition("go on with: ")[2])[2:])
    assert code == 0, said
    assert_the_same(Path("out"), straight)


@pytest.mark.parametrize("what", ["scores.json", "README.md", "bertune.json"])
def test_a_disk_that_is_full_at_the_very_end_is_said(what, bench, straight, monkeypatch):
    from bertune.training.run import TrainingRun

    finish = TrainingRun._finish

    def finish_on_a_full_disk(*given: object) -> None:
        patch.setattr(Path, "write_text", full_for(what))
        finish(*given)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_finish", finish_on_a_full_disk)
        assert_refused(
            bench.call("classify", *bench.settings),
            "out",
            "No space left on device",
            "bertune train out --resume",
        )
    assert bench.call("out", "--resume")[0] == 0
    assert_the_same(Path("out"), straight)


def test_a_full_disk_when_the_run_goes_on_harms_nothing(bench, straight, monkeypatch):
    bench.stopped()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half_then_full)
        found = bench.call("out", "--resume")
    assert_refused(found, "out", "No space left on device")
    code, _, said = bench.call("out", "--resume")
    assert code == 0, said
    assert_the_same(Path("out"), straight)


def test_a_vanished_folder_is_said(bench, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(History, "on_step", lambda _, step, total: shutil.rmtree("out") if step == 3 else None)
        found = bench.call("classify", *bench.settings)
    assert_refused(found, "out", "has vanished")
    assert not Path("out").exists()


def test_memory_that_is_short_is_said_and_written_down(bench, straight, monkeypatch):
    from bertune.training.step import TrainStep

    tried, calls = TrainStep._try_gradient, []

    def short_once(work, rows):
        calls.append(rows)
        return (None, 0.0, "out of memory (step 2)") if len(calls) == 2 else tried(work, rows)

    monkeypatch.setattr(TrainStep, "_try_gradient", short_once)
    code, _, said = bench.call("classify", *bench.settings)
    assert code == 0
    assert (
        len([line for line in said if line.startswith("warning: out of memory: out of memory (step 2); ")])
        == 1
    )
    warned = [line for line in history(Path("out")) if line["event"] == "warning"]
    (line,) = (line for line in warned if line["message"].startswith("out of memory: "))
    assert line["step"] == 2
    assert "train.micro_batches=2" in line["message"]
    assert len(calls) == STEPS + 1
