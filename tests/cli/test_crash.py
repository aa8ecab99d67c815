"""kill -9 at any moment of a real training process: the run goes on, and ends as if nothing had been, bit for bit.

One process imports all once; each run is a fork of it, so that a run costs about a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")

PROGRAM = textwrap.dedent(
    """
    import collections, json, os, re, shutil, signal, sys, traceback
    from pathlib import Path

    import accelerate, torch, torch._dynamo

    import bertune.training.history, bertune.commands.train, bertune.artifact.write, bertune.tensor_file
    from bertune.cli import main

    counts = collections.Counter()

    def deadly(real, kind, half, deadline):
        \"\"\"Let the process die before or in the middle of one of the changes of what lasts.\"\"\"
        def is_due(phase, given):
            path = next((x for x in given if isinstance(x, (str, Path))), "history.jsonl" if kind == "append" else "")
            moment = re.sub(r"[0-9]{2,}", "N", f"{phase} {kind} {Path(path).name}".strip())
            counts[moment] += 1
            return [moment, counts[moment]] == deadline

        def call(*given, **named):
            if is_due("before", given):
                os.kill(os.getpid(), signal.SIGKILL)
            if half is not None and is_due("amid", given):
                half(*given)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return call

    def half_a_text(path, text, *_):
        with path.open("w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])

    def half_a_file(tensors, path, *_):
        real_save_file(tensors, path)
        os.truncate(path, os.path.getsize(path) // 2)
        Path(path).with_name(".tmpAbCdEf").write_bytes(b"as safetensors does")

    def half_a_tree(folder, *_):
        for file in sorted(Path(folder).iterdir())[:1] if Path(folder).is_dir() else []:
            shutil.rmtree.real(file) if file.is_dir() else file.unlink()

    def half_a_line(log, line):
        log._file.write(json.dumps(line)[:20])
        log._file.flush()

    real_save_file = bertune.tensor_file.save_file

    def arm(deadline):
        log = bertune.training.history.History
        real_rmtree = shutil.rmtree
        bertune.tensor_file.save_file = deadly(real_save_file, "tensors", half_a_file, deadline)
        log._write = deadly(log._write, "append", half_a_line, deadline)
        shutil.rmtree = deadly(real_rmtree, "remove", half_a_tree, deadline)
        shutil.rmtree.real = real_rmtree
        os.fsync = deadly(os.fsync, "flush", None, deadline)
        Path.write_text = deadly(Path.write_text, "write", half_a_text, deadline)
        for name in ("replace", "mkdir"):
            setattr(Path, name, deadly(getattr(Path, name), name, None, deadline))

    def run(order):
        os.dup2(os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        sys.argv = ["bertune", *order["words"]]
        code = 1
        try:
            arm(order["deadline"])
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        print("moments:", json.dumps(counts), flush=True)
        os._exit(code)

    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    """
)

Deadline = tuple[str, int] | None
"""What a process dies at, and the how many-th time."""


class Nursery:
    """Starts training processes, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, words: list[str], deadline: Deadline = None) -> int:
        self.said.unlink(missing_ok=True)
        self.process.stdin.write(
            json.dumps({"words": words, "said": str(self.said), "deadline": deadline}) + "\n"
        )
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait_for(self, text: str) -> None:
        """Wait until the process says something."""
        until = time.monotonic() + 60
        while (
            not (self.said.exists() and text in self.said.read_text(encoding="utf-8"))
            and time.monotonic() < until
        ):
            time.sleep(0.005)

    def end(self) -> tuple[int, str]:
        """Wait for the process; return its exit code, negative for a signal, and what it said."""
        code = int(self.process.stdout.readline())
        return code, self.said.read_text(encoding="utf-8") if self.said.exists() else ""

    def run(self, words: list[str], deadline: Deadline = None) -> tuple[int, str]:
        self.start(words, deadline)
        return self.end()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.process.communicate()


NOUNS = ["dog", "cat", "tree", "house", "car", "book"]
MOODS = ["good", "bad", "fine", "awful", "red"]
TEXTS = [
    f"the {noun} is {mood}{' and not very big' * (n % 3)}"
    for n, (noun, mood) in enumerate((a, b) for a in NOUNS for b in MOODS)
]


def pairs(labels):
    return [
        {"text": text, "text_b": text.replace("the", "a"), "label": labels(n)} for n, text in enumerate(TEXTS)
    ]


LABELLED = [{"text": text, "label": "+" if "good" in text or "fine" in text else "-"} for text in TEXTS]
NUMBERED = [{"text": text, "label": len(text) / 7} for text in TEXTS]
WORDS = [
    {"text": text.split(), "label": ["O", "B-THING", *["O"] * (len(text.split()) - 2)]} for text in TEXTS
]
CASES = {
    "classify": (LABELLED, LABELLED, ["train.micro_batches=2", "train.ema=0.9", "train.precision=bf16"]),
    "tag": (WORDS, WORDS, ["options.decoder=crf", "train.micro_batches=3", "train.keep_checkpoints=1"]),
    "embed": (
        [{"text": text} for text in TEXTS],
        pairs(lambda n: n % 5),
        ["train.micro_batches=2", "train.precision=bf16"],
    ),
    "match": (pairs(lambda n: n % 2), pairs(lambda n: n % 2), ["train.ema=0.9", "train.schedule=cosine"]),
    "regress": (NUMBERED, NUMBERED, ["train.r_drop=1", "train.fgm=0.5"]),
    "pretrain": (
        [{"text": text} for text in TEXTS],
        [{"text": text} for text in TEXTS],
        [
            "options.packing=none",
            "options.masking=whole_words",
            "train.micro_batches=2",
            "train.precision=bf16",
        ],
    ),
}
"""Training rows, dev rows, and what else is set: all with shuffling and dropout."""


class Bench:
    """A task with its data, and the run that nothing happened to."""

    def __init__(self, folder: Path, nursery: Nursery, tiny: Path, task: str, *more: str) -> None:
        self.folder, self.nursery = folder, nursery
        train, dev, settings = CASES[task]
        for name, rows in (("train", train), ("dev", dev)):
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
            )
        self.words = ["train", task, f"model={tiny}", f"data.train={folder / 'train.jsonl'}", f"data.dev={folder / 'dev.jsonl'}",
                      "device=cpu", "train.precision=fp32", "train.batch_size=8", "train.learning_rate=3e-3", "train.epochs=5",
                      "train.eval_every=4", "train.checkpoint_every=2", "log.every=3", *settings, *more]  # fmt: skip
        self.start("whole")
        nursery.wait_for("weights:")
        began = time.perf_counter()
        code, said = nursery.end()
        assert code == 0, said
        self.seconds = time.perf_counter() - began
        """How long it takes once the model is built."""
        self.moments: dict[str, int] = json.loads(said.rpartition("moments: ")[2])
        self.expected = left_in(folder / "whole")

    def start(self, name: str, deadline: Deadline = None) -> int:
        return self.nursery.start([*self.words, f"out={self.folder / name}", "--resume"], deadline)

    def go_on(self, name: str, deadline: Deadline = None) -> tuple[int, str]:
        self.start(name, deadline)
        return self.nursery.end()

    def finish(self, name: str) -> str:
        """Let the run go on to its end as a user would, by its folder alone once there is a checkpoint; see that nothing is lost."""
        out = self.folder / name
        alone = any(path.suffix != ".part" for path in out.glob("checkpoints/*"))
        code, said = self.nursery.run(["train", str(out), "--resume"]) if alone else self.go_on(name)
        assert code == 0, said
        found = left_in(self.folder / name)
        assert found.keys() == self.expected.keys(), said
        assert [file for file in found if found[file] != self.expected[file]] == [], said
        return said


def left_in(out: Path) -> dict[str, object]:
    """Return all that a finished run has left, but for times and what says how fast it was."""
    found: dict[str, object] = {
        str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()
    }
    found |= {f"{f.relative_to(out)}/": None for f in out.rglob("*") if f.is_dir()}
    for name in (
        "README.md",
        "run.yaml",
        "last/run.yaml",
    ):  # figures of the run's speed; its own folder's name
        del found[name]
    found["scores.json"] = {k: v for k, v in json.loads(found["scores.json"]).items() if k != "run"}
    timed = {"seconds", "rows_per_s", "tokens_per_s", "eta_s"}
    lines = [json.loads(line) for line in found["history.jsonl"].decode().splitlines()]
    found["history.jsonl"] = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    return found


@pytest.fixture(scope="module")
def bench(nursery, tiny, tmp_path_factory):
    made: dict[str, Bench] = {}

    def get(task: str) -> Bench:
        if task not in made:
            made[task] = Bench(tmp_path_factory.mktemp(task), nursery, tiny, task)
        return made[task]

    return get


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("task", CASES)
def test_killed_at_random_moments(task, bench):
    """During steps, evaluations, whatever comes; each process goes on where the one before was killed."""
    bench = bench(task)
    chance = random.Random(task)
    kills = 0
    for attempt in range(5):
        pid = bench.start("random")
        bench.nursery.wait_for("weights:")
        time.sleep(bench.seconds * (attempt + chance.random()) / 8)
        kill(pid)
        kills += bench.nursery.end()[0] == -signal.SIGKILL
    assert kills >= 3
    bench.finish("random")


def seen(out: Path, what: str) -> bool:
    """Tell whether a run has come to a moment."""
    if what == "a checkpoint is being written":
        return any(out.glob("checkpoints/*.part"))
    if what == "a checkpoint is written":
        return any(path.suffix != ".part" for path in out.glob("checkpoints/*"))
    if what == "the last line before an evaluation":
        return (
            '"train", "step": 12,' in (out / "history.jsonl").read_text(encoding="utf-8")
            if (out / "history.jsonl").exists()
            else False
        )
    return (out / "model.safetensors.part").exists() or (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    "what",
    [
        "a checkpoint is being written",
        "a checkpoint is written",
        "the last line before an evaluation",
        "the best model is being written",
    ],
)
@pytest.mark.parametrize("task", ["classify", "embed"])
def test_killed_when_something_is_seen(task, what, bench):
    bench = bench(task)
    name = what.replace(" ", "-")
    pid = bench.start(name)
    until = time.monotonic() + 60
    while not seen(bench.folder / name, what) and time.monotonic() < until:
        time.sleep(0.0005)
    kill(pid)
    assert bench.nursery.end()[0] == -signal.SIGKILL
    bench.finish(name)


FILES = ["run.yaml.part", "history.jsonl.part", "state.safetensors", "checkpoint.json", "model.safetensors", "config.json.part",
         "tokenizer.json", "tokenizer_config.json", "bertune.json.part", "README.md", "scores.json.part"]  # fmt: skip
TENSORS = ["state.safetensors", "model.safetensors"]
FOLDERS = ["whole", "checkpoints", "step-N.part", "last", *(f"{name}.part" for name in TENSORS)]
MOMENTS = [
    *(f"before mkdir {name}" for name in FOLDERS),
    *(f"{when} {'tensors' if 'safetensors' in name else 'write'} {name}" for name in FILES for when in ("before", "amid")),
    *(f"before replace {name}" for name in [*FILES, "step-N", "step-N.part", "checkpoints"]
      if name.endswith(".part") or "." not in name or name in TENSORS),
    *(f"{when} remove {name}" for name in ("step-N.part", "step-N.gone.part", "checkpoints.gone.part", *(f"{name}.part" for name in TENSORS)) for when in ("before", "amid")),
    "before append history.jsonl", "amid append history.jsonl", "before flush",
]  # fmt: skip
"""All that changes what is on the disk: what is after one of these is before another."""


def test_no_moment_is_forgotten(bench):
    assert sorted(bench("classify").moments) == sorted(MOMENTS)


def killed_at(bench: Bench, moment: str, nth: int, name: str) -> None:
    """Let a run die at the nth such moment, and go on."""
    code, said = bench.go_on(name, (moment.replace("whole", name), nth))
    assert code == -signal.SIGKILL, said
    bench.finish(name)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_something_is_written(moment, bench):
    bench = bench("classify")
    killed_at(
        bench,
        moment,
        random.Random(moment).randint(1, bench.moments[moment]),
        f"once-{moment.replace(' ', '-')}",
    )


@pytest.mark.parametrize("moment", ["before write run.yaml.part", "amid write run.yaml.part"])
@pytest.mark.parametrize("nth", [1, 2, 7])
def test_killed_while_the_settings_are_written(moment, nth, bench):
    """They are written at the beginning, with each best model, and with the last one."""
    killed_at(bench("classify"), moment, nth, f"settings-{moment.split()[0]}-{nth}")


@pytest.mark.parametrize(
    "moment", ["before remove checkpoints.gone.part", "amid remove checkpoints.gone.part"]
)
def test_killed_while_the_checkpoints_are_cleared_away(moment, bench):
    bench = bench("classify")
    assert bench.moments[moment] == 3, (
        "one that removes, between two that look for what an earlier process has left"
    )
    killed_at(bench, moment, 2, f"clear-{moment.split()[0]}")


@pytest.mark.parametrize(
    "moment",
    ["before write run.yaml.part", "amid write run.yaml.part", "amid tensors state.safetensors"],
)
def test_killed_again_when_it_has_just_gone_on(moment, bench):
    bench = bench("classify")
    name = f"again-{moment.replace(' ', '-')}"
    assert bench.go_on(name, ("before replace step-N.part", 4))[0] == -signal.SIGKILL
    code, said = bench.go_on(name, (moment, 1))
    assert code == -signal.SIGKILL, said
    bench.finish(name)
