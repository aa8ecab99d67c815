"""A checkpoint is whole or is none: what is written, what is found, and what is said without room."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tests.training.test_state import advance, assert_same, build, weights

from bertune.artifact import upgrade
from bertune.config.schema import RunConfig
from bertune.console import Console
from bertune.errors import TrainingError
from bertune.files import sha256, sha256_of_json
from bertune.inference.fingerprint import FORMAT_1_PARAMETERS
from bertune.training.checkpoint import Checkpoints
from bertune.training.history import History
from bertune.training.listener import Outcome
from bertune.training.progress import ConsoleProgress
from bertune.training.resume import RunDir, checkpoints_of
from bertune.training.step import TrainStep

DESCRIPTION = {"run": {"seed": 42, "out": "狗"}, "data": {"train": {"rows": 10}}}
COMMAND = "bertune train OUT --resume"


@pytest.fixture(scope="module")
def work(tiny) -> TrainStep:
    work = build(tiny)
    advance(work, 1, [])
    return work


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def checkpoints_in(out: Path, keep: int = 2) -> Checkpoints:
    return Checkpoints(out, keep, DESCRIPTION, COMMAND)


def write(checkpoints: Checkpoints, work: TrainStep, step: int, *, evaluated: bool = True) -> None:
    work.state.progress.step, work.state.progress.last_completed_step = step, step if evaluated else step - 1
    checkpoints.write(work.state)


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def found(out: Path) -> tuple[str | None, list[str]]:
    """Return the name of the checkpoint that is found, and what was said."""
    said: list[str] = []
    checkpoint = checkpoints_in(out).find(said.append)
    return checkpoint.folder.name if checkpoint else None, said


def test_a_checkpoint_is_a_state_and_what_tells_that_it_is_whole(work, out):
    write(checkpoints_in(out), work, 7)
    assert names(out) == ["step-00000007"]
    folder = out / "checkpoints" / "step-00000007"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "state.safetensors"]
    state = (folder / "state.safetensors").read_bytes()
    content = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    assert (content["format"], content["step"], content["about"]) == (2, 7, DESCRIPTION)
    assert content["files"] == {
        "state.safetensors": {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    }
    tensors = load_file(folder / "state.safetensors")
    assert all(torch.equal(tensors[f"model.{name}"], weight) for name, weight in weights(work).items())


def test_the_newest_is_found_and_goes_on(work, out, tiny):
    checkpoints = checkpoints_in(out)
    for step in (2, 10):
        write(checkpoints, work, step)
    said: list[str] = []
    again = checkpoints_in(out)
    checkpoint = again.find(said.append)
    assert (checkpoint.folder, checkpoint.step, checkpoint.description, said) == (
        out / "checkpoints" / "step-00000010",
        10,
        DESCRIPTION,
        [],
    )
    assert again.newest == checkpoint.folder
    other = build(tiny, seed=7)
    other.state.read(checkpoint.folder)
    assert_same(weights(other), weights(work))
    assert other.state.progress == work.state.progress


def test_where_nothing_is_nothing_is_found(out):
    assert found(out) == (None, [])
    (out / "checkpoints").mkdir()
    for name in ("step-7", "step-00000007.part", "other", "step-00000008-before-eval.part"):
        (out / "checkpoints" / name).mkdir()
    (out / "checkpoints" / "step-00000009").write_text("no folder")
    assert found(out) == (None, [])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay_and_older_ones_go(keep, work, out):
    checkpoints = checkpoints_in(out, keep)
    for step in range(1, 5):
        write(checkpoints, work, step)
    assert names(out) == [f"step-{step:08d}" for step in range(5 - keep, 5)]


def test_the_same_state_is_written_once(work, out, monkeypatch):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 3)
    monkeypatch.setattr(type(work.state), "write", None)
    write(checkpoints, work, 3)


def test_before_and_after_the_evaluation_of_a_step_are_two(work, out):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 3)
    write(checkpoints, work, 4, evaluated=False)
    assert found(out)[0] == "step-00000004-before-eval"
    write(checkpoints, work, 4)
    assert names(out) == ["step-00000004", "step-00000004-before-eval"]
    assert found(out)[0] == "step-00000004"


def test_a_long_run_has_longer_names(work, out):
    checkpoints = checkpoints_in(out)
    for step in (99_999_999, 100_000_000):
        write(checkpoints, work, step)
    assert found(out)[0] == "step-100000000"


def test_what_a_killed_process_leaves_is_never_taken(work, out):
    """Not even one that is whole but for its name, as one is that was being removed."""
    checkpoints = checkpoints_in(out)
    for step in (2, 3, 4):
        write(checkpoints, work, step)
    (out / "checkpoints" / "step-00000004").rename(out / "checkpoints" / "step-00000004.part")
    assert found(out)[0] == "step-00000003"
    again = checkpoints_in(out)
    again.find(lambda _: None)
    write(again, work, 4)
    assert names(out) == ["step-00000003", "step-00000004"]


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def about_with(**changes: object):
    def damage(content: bytes) -> bytes:
        return json.dumps(
            {k: v for k, v in {**json.loads(content), **changes}.items() if v is not None}
        ).encode()

    return damage


OTHER_BYTES = "has other bytes than were written"
DAMAGES = {
    "state truncated": ("state.safetensors", lambda content: content[:-1], "bytes, not"),
    "state too long": ("state.safetensors", lambda content: content + b" ", "bytes, not"),
    "state empty": ("state.safetensors", lambda _: b"", "has 0 bytes"),
    "a bit of the weights flipped": ("state.safetensors", lambda x: flipped(x, len(x) // 2), OTHER_BYTES),
    "a bit of the state's header flipped": ("state.safetensors", lambda old: flipped(old, 40), OTHER_BYTES),
    "state missing": ("state.safetensors", lambda _: None, "No such file"),
    "manifest missing": ("checkpoint.json", lambda _: None, "No such file"),
    "manifest empty": ("checkpoint.json", lambda _: b"", ""),
    "manifest truncated": ("checkpoint.json", lambda content: content[: len(content) // 2], ""),
    "manifest is no text": ("checkpoint.json", lambda content: b"\xff" + content, ""),
    "manifest is no object": ("checkpoint.json", lambda _: b"[1]", ""),
    "of another format": ("checkpoint.json", about_with(format=3), "it has format 3, this bertune reads 2"),
    "manifest names no state": ("checkpoint.json", about_with(files={}), "other content than was written"),
    "files are no object": ("checkpoint.json", about_with(files=["state.safetensors"]), ""),
    "manifest without a step": ("checkpoint.json", about_with(step=None), ""),
    "manifest without a run": ("checkpoint.json", about_with(about=None), ""),
    "manifest of another step": ("checkpoint.json", about_with(step=8), ""),
    "a bit of the manifest's settings flipped": (
        "checkpoint.json", lambda content: content.replace(b'"seed": 42', b'"seed": 43'), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_found(name, work, out):
    checkpoints = checkpoints_in(out)
    for step in (8, 9):
        write(checkpoints, work, step)
    file, damage, reason = DAMAGES[name]
    path = out / "checkpoints" / "step-00000009" / file
    content = damage(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    step, said = found(out)
    assert step == "step-00000008"
    assert len(said) == 1
    assert said[0].startswith(f"{path.parent}: damaged, so it is skipped: ")
    assert reason in said[0]


def test_where_all_are_damaged_each_is_named(work, out):
    checkpoints = checkpoints_in(out)
    for step in (8, 9):
        write(checkpoints, work, step)
        (out / "checkpoints" / f"step-{step:08d}" / "state.safetensors").write_bytes(b"")
    step, said = found(out)
    assert step is None
    assert [line.split(":")[0].rpartition("-")[2] for line in said] == ["00000009", "00000008"]


def as_format_1(folder: Path) -> None:
    """Put a checkpoint into the words of format 1: its weights, its progress, its folder, and the number."""
    path = folder / "state.safetensors"
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()["state"])
    old = {new: old for old, new in upgrade.PROGRESS.items()}
    values["progress"] = {old.get(name, name): value for name, value in values["progress"].items()}
    tensors = {}
    for name, tensor in load_file(path).items():
        for old_part, new_part in FORMAT_1_PARAMETERS.items():
            name = name.replace(new_part, old_part)
        tensors[name] = tensor
    save_file(tensors, path, metadata={"state": json.dumps(values)})
    content = {**json.loads((folder / "checkpoint.json").read_text(encoding="utf-8")), "format": 1}
    content["files"]["state.safetensors"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    del content["sha256"]
    (folder / "checkpoint.json").write_text(
        json.dumps({**content, "sha256": sha256_of_json(content)}), encoding="utf-8"
    )
    folder.rename(folder.with_name(folder.name.replace("-before-eval", "-unsettled")))


@pytest.mark.parametrize("evaluated", [True, False], ids=["after its evaluation", "before it"])
def test_a_checkpoint_of_format_1_goes_on(evaluated, work, out, tiny):
    work.state.progress.evals_without_gain, work.state.progress.oom_splits = 2, 4
    write(checkpoints_in(out), work, 7, evaluated=evaluated)
    (folder,) = (out / "checkpoints").iterdir()
    as_format_1(folder)
    expected = "step-00000007" if evaluated else "step-00000007-unsettled"
    assert found(out) == (expected, [])
    other = build(tiny, seed=7)
    checkpoint = checkpoints_in(out).find(pytest.fail)
    assert (checkpoint.step, checkpoint.description) == (7, DESCRIPTION)
    other.state.read(checkpoint.folder)
    assert other.state.progress == work.state.progress
    ours, theirs = other.state.capture(), work.state.capture()
    assert_same(ours[0], theirs[0])
    assert ours[1]["groups"] == theirs[1]["groups"]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "damaged"])
def test_the_same_step_is_written_again_over_what_is_there(whole, work, out):
    """As where the newest is damaged and the run goes on from the one before, or begins anew."""
    checkpoints = checkpoints_in(out)
    for step in (8, 9):
        write(checkpoints, work, step)
    old = out / "checkpoints" / "step-00000009" / "state.safetensors"
    inode = old.stat().st_ino
    if not whole:
        old.write_bytes(b"")
    again = checkpoints_in(out)
    again.newest = out / "checkpoints" / "step-00000008"
    write(again, work, 9)
    assert names(out) == ["step-00000008", "step-00000009"]
    assert found(out) == ("step-00000009", [])
    assert old.stat().st_ino != inode


def test_damaged_ones_do_not_push_out_what_is_whole(work, out):
    checkpoints = checkpoints_in(out)
    for step in (8, 9):
        write(checkpoints, work, step)
    (out / "checkpoints" / "step-00000009").rename(out / "checkpoints" / "step-00000020")
    (out / "checkpoints" / "step-00000020" / "state.safetensors").write_bytes(b"")
    again = checkpoints_in(out)
    again.find(lambda _: None)
    write(again, work, 9)
    assert {"step-00000008", "step-00000009"} <= set(names(out))


def test_a_run_that_goes_on_knows_which_are_damaged(tmp_path):
    run_dir = RunDir(tmp_path, damaged=frozenset({tmp_path / "checkpoints" / "step-00000020"}))
    assert checkpoints_of(run_dir, RunConfig(task="classify"), {}).damaged == run_dir.damaged


def test_all_are_cleared_away(work, out):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 3)
    (out / "checkpoints" / "step-00000009.part").mkdir()
    checkpoints.clear()
    checkpoints.clear()
    assert list(out.iterdir()) == []


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_as_safetensors_says_it(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def read_only(*_: object, **__: object) -> None:
    raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))


FAULTS = {
    "disk full while tensors are written": (
        "bertune.tensor_file.save_file",
        full,
        "No space left on device",
    ),
    "disk full, said by safetensors": (
        "bertune.tensor_file.save_file",
        full_as_safetensors_says_it,
        "No space left on device",
    ),
    "disk full while flushing": ("os.fsync", full, "No space left on device"),
    "disk full while the manifest is written": ("pathlib.Path.write_text", full, "No space left on device"),
    "read-only": ("pathlib.Path.mkdir", read_only, "Read-only file system"),
    "read-only at the rename": ("pathlib.Path.replace", read_only, "Read-only file system"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_where_one_cannot_be_written_the_last_one_stays(name, work, out, monkeypatch):
    checkpoints = checkpoints_in(out)
    for step in (1, 2):
        write(checkpoints, work, step)
    where, fault, reason = FAULTS[name]
    with monkeypatch.context() as patch:
        patch.setattr(where, fault)
        with pytest.raises(TrainingError) as failed:
            write(checkpoints, work, 3)
    text = str(failed.value)
    for part in (
        f"{out / 'checkpoints' / 'step-00000003'}: ",
        reason,
        f"the last complete one is {out / 'checkpoints' / 'step-00000002'}",
        COMMAND,
    ):
        assert part in text
    assert "\n" not in text
    assert found(out) == ("step-00000002", [])
    assert names(out) == ["step-00000001", "step-00000002"], "what was begun takes no room"
    write(checkpoints, work, 3)
    assert found(out) == ("step-00000003", [])


def test_the_first_one_that_cannot_be_written_has_none_before_it(work, out, monkeypatch):
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device; there is none before it\. .*--resume"):
        write(checkpoints_in(out), work, 3)
    assert names(out) == []


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_indeed(work, out):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 1)
    (out / "checkpoints").chmod(0o500)
    try:
        with pytest.raises(TrainingError, match="step-00000001"):
            write(checkpoints, work, 2)
    finally:
        (out / "checkpoints").chmod(0o700)
    assert found(out) == ("step-00000001", [])


def test_a_vanished_folder_is_said_and_not_made_anew(work, out):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 1)
    shutil.rmtree(out)
    with pytest.raises(TrainingError, match="has vanished") as failed:
        write(checkpoints, work, 2)
    assert str(out) in str(failed.value)
    assert not out.exists()


def test_vanished_checkpoints_are_written_anew(work, out):
    checkpoints = checkpoints_in(out)
    write(checkpoints, work, 1)
    shutil.rmtree(out / "checkpoints")
    write(checkpoints, work, 2)
    assert found(out) == ("step-00000002", [])


def history_from(folder: Path, step: int, *, evaluated: bool = True) -> History:
    """Begin a history, or go on with one from a step."""
    log = History(folder)
    log.on_start(step, 10, evaluated=evaluated)
    return log


def lines_in(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


DEV = {"epoch": 1.0, "train_loss": 0.5, "dev_loss": 0.25, "best": True, "f1": 0.5}


@pytest.fixture
def history(tmp_path) -> Path:
    log = history_from(tmp_path, 0)
    for step in (2, 4, 6):
        log.on_log(
            {
                "step": step,
                "epoch": 1.0,
                "loss": 0.5,
                "learning_rate": 1e-3,
                "rows_per_s": 1.0,
                "tokens_per_s": 1.0,
                "eta_s": 1.0,
            }
        )
        log.on_evaluate({"step": step, **DEV, "dev_loss": math.nan if step == 2 else 0.25})
    log.close()
    return tmp_path


def test_lines_of_steps_that_are_done_again_are_dropped(history):
    whole = lines_in(history)
    log = history_from(history, 4)
    assert lines_in(history) == [line for line in whole if line["step"] <= 4]
    log.on_evaluate({"step": 5, **DEV})
    log.close()
    assert lines_in(history)[-1] == {"event": "dev", "step": 5, **DEV}
    assert [path.name for path in history.iterdir()] == ["history.jsonl"]


def test_the_table_of_evaluations_comes_back(history, capsys):
    log = history_from(history, 4)
    assert [e["step"] for e in log.evaluations] == [2, 4]
    assert math.isnan(log.evaluations[0]["dev_loss"])
    assert log.evaluations[1] == {"step": 4, **DEV}
    log.on_evaluate({"step": 6, **DEV})
    ConsoleProgress(Console(), log).on_end(Outcome(6, 6, 0.5, 1.0, 24, 96, stopped_early=False))
    log.close()
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["step", "2", "4", "6"]


def test_a_history_of_the_form_before_is_read(history):
    """Its lines said "what" for "event"."""
    whole = lines_in(history)
    path = history / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text(
        "".join(json.dumps({"what": line.pop("event"), **line}) + "\n" for line in lines), encoding="utf-8"
    )
    log = history_from(history, 4)
    log.close()
    assert lines_in(history) == [line for line in whole if line["step"] <= 4]
    assert [next(iter(line)) for line in lines_in(history)] == ["event"] * 4
    assert [e["step"] for e in log.evaluations] == [2, 4]
    assert "event" not in log.evaluations[0]


def test_lines_of_an_evaluation_that_is_made_again_are_dropped(history):
    whole = lines_in(history)
    log = history_from(history, 4, evaluated=False)
    log.close()
    assert lines_in(history) == [
        line for line in whole if line["step"] < 4 or (line["step"] == 4 and line["event"] == "train")
    ]
    assert [e["step"] for e in log.evaluations] == [2]


def test_a_run_that_begins_anew_has_a_new_history(history):
    log = history_from(history, 0)
    log.close()
    assert lines_in(history) == []
    assert log.evaluations == []


RESTS = {
    "in a word": b'{"event": "tr',
    "in a character": b'{"event": "warning", "step": 7, "message": "' + "狗".encode()[:-1],
    "zeros of a crashed disk": bytes(20),
    "nothing": b"",
}


@pytest.mark.parametrize("rest", RESTS)
def test_a_last_line_that_was_cut_off_is_dropped(rest, history):
    whole = lines_in(history)
    with (history / "history.jsonl").open("ab") as file:
        file.write(RESTS[rest])
    history_from(history, 6).close()
    assert lines_in(history) == whole


def test_time_goes_on_where_it_was(history):
    lines = [
        json.loads(line) for line in (history / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines[-1]["seconds"] = 1000.0
    (history / "history.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    log = history_from(history, 6)
    log.on_epoch({"epoch": 2.0, "step": 8, "loss": 0.5})
    log.close()
    last = json.loads((history / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert 1000 <= last["seconds"] < 1100


def test_a_history_that_cannot_be_written_is_named(history, monkeypatch):
    log = history_from(history, 4)

    class Full:
        def write(self, _: str) -> None:
            full()

        def close(self) -> None:
            full()

    log._file.close()
    log._file = Full()
    with pytest.raises(
        TrainingError,
        match=r"history\.jsonl: cannot be written: No space left on device; checkpoints are unchanged",
    ):
        log.on_evaluate({"step": 5, **DEV})
    log.close()
