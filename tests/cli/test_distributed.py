"""Several processes learn, score and predict what one does.

One program imports all once; each process of a run is a fork of it, so that a run of three costs little more than one of one.
Two tests start real launchers: torchrun and accelerate launch.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.conftest import WORDS

import bertune
from bertune.data.batching import epoch_order, num_batches, process_shares

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")

ROOT = Path(__file__).parents[2]
SEVERAL = [2, 3]
LIMIT = 300
"""Seconds after which something hangs."""

PROGRAM = textwrap.dedent(
    '''
    import contextlib, faulthandler, hashlib, io, json, os, shutil, signal, socket, sys, time, traceback
    from pathlib import Path

    import accelerate, scipy.stats, torch, torch.distributed, transformers
    from typer.testing import CliRunner

    import bertune
    from bertune.cli.app import app
    from bertune.training.step import TrainStep
    from bertune.errors import Interrupted
    from bertune import distributed
    from bertune.kernels.dropout import DROPOUT_GENERATOR
    from bertune.commands.evaluate import evaluate
    from bertune.commands.predict import predict
    from bertune.commands.train import train
    from bertune.inference import pipeline, predict as prediction_loop
    from bertune.tasks import load_task

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).step()  # whatever is imported late is so before the fork
    accelerate.Accelerator, transformers.AutoTokenizer, transformers.BertTokenizer
    prediction_loop.MAX_BATCH_TOKENS, pipeline.CHUNK_ROWS = 64, 50  # so that few rows are many batches and several chunks
    place, plan = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    rank = world = 0
    trouble, seen, current = {}, [], {}

    def digest(*parts):
        made = hashlib.sha256()
        for part in parts:
            made.update(part)
        return made.hexdigest()[:16]

    def watched_step(self, rows):
        """Note which rows a step has, what dropout will draw from, and the weights after it."""
        random = digest(bytes(torch.get_rng_state().tolist()), json.dumps(DROPOUT_GENERATOR.get_state()).encode())
        current.update(step=self.state.progress.step + 1, rows=[])
        real_step(self, rows)
        weights = [t.detach().numpy().tobytes() for t in self.model.state_dict().values()]
        seen.append({"batch": list(rows), "own": sorted(set(current["rows"])), "random": random, "weights": digest(*weights)})

    def watched_loss(real):
        def loss(self, out, batch):
            known = real(self, out, batch)
            if getattr(out, "vectors", out).requires_grad:
                current["rows"] += batch.rows
                due = {k: v for k, v in trouble.items() if v["step"] == current["step"] and v["rank"] == rank}
                for kind, how in due.items():
                    del trouble[kind]
                    if kind == "signal":
                        os.kill(os.getpid(), how["number"])
                    elif kind == "error":
                        raise RuntimeError(how["text"])
                known = known * trouble.get("scale", {}).get("by", 1)
            return known
        return loss

    real_step, TrainStep.step = TrainStep.step, watched_step
    for name in ("classify", "embed"):
        task = load_task(name)
        task.loss = watched_loss(task.loss)

    def do_train(job):
        trouble.clear()
        trouble.update(job.get("trouble", {}))
        seen.clear()
        said, result = io.StringIO(), {}
        with contextlib.redirect_stderr(said):
            try:
                trained = train(job["settings"], resume=job.get("resume", False))
                result["scores"] = {split: scores.to_json() for split, scores in trained.scores.items()}
            except Interrupted as stopped:
                result["stopped"] = [str(stopped), stopped.number]
        return {**result, "said": said.getvalue().splitlines(), "steps": list(seen), "processes": distributed.num_processes()}

    def do_call(job):
        found = CliRunner().invoke(app, job["words"], input=job.get("stdin"))
        if found.exit_code == 1 and found.exception is not None:
            traceback.print_exception(found.exception)
        return {"code": found.exit_code, "stdout": found.stdout, "stderr": found.stderr}

    def do_evaluate(job):
        found = evaluate(job["model"], job["file"])
        return [found.scores.to_json(), found.loss, found.num_truncated_rows]

    def do_predict(job):
        return [repr(prediction) for _, prediction in predict(job["model"], job["file"]).results]

    def do_copy(job):
        if rank == 0:
            shutil.copytree(job["source"], job["target"])
        distributed.barrier()

    def do_main(job):
        from bertune.cli import main
        trouble.update(job.get("trouble", {}))
        sys.argv = ["bertune", *job["words"]]
        main()

    def work(stage):
        found = {}
        for job in stage["jobs"]:
            began = time.perf_counter()
            found[job["name"]] = globals()[f"do_{job['do']}"](job)
            print(f"{time.perf_counter() - began:6.2f} s  {job['name']}", file=sys.stderr, flush=True)
        (place / f"found-{stage['name']}-{rank}.json").write_text(json.dumps(found))

    for stage in plan:
        world = stage["world"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(world):
            child = os.fork()
            if child:
                children.append(child)
                continue
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(place / f"{name}-{stage['name']}-{rank}", os.O_CREAT | os.O_WRONLY), number)
            if world > 1:
                where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update({k: str(v) for k, v in where.items()})
            os.environ["BERTUNE_CACHE"] = str(place / f"cache-{stage['name']}")
            code = 1
            try:
                faulthandler.dump_traceback_later(float(sys.argv[3]))  # where it hangs
                work(stage)
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        (place / f"codes-{stage['name']}").write_text(json.dumps(codes))
    '''
)


class Ran:
    """What the processes of a stage have found, said and ended with."""

    def __init__(self, place: Path, name: str, world: int) -> None:
        self.codes = json.loads((place / f"codes-{name}").read_text())
        self.out, self.err = (
            [(place / f"{kind}-{name}-{r}").read_text("utf-8") for r in range(world)]
            for kind in ("out", "err")
        )
        files = [place / f"found-{name}-{rank}.json" for rank in range(world)]
        self.found = [json.loads(file.read_text()) if file.exists() else {} for file in files]

    def __getitem__(self, job: str) -> list:
        """What each process has found in a job."""
        assert self.codes == [0] * len(self.codes), "\n".join(self.err)
        return [found[job] for found in self.found]


def start(place: Path, plan: list[dict]) -> dict[str, Ran]:
    """Run stages, one after the other; each with as many processes as it asks for, which do its jobs together."""
    (place / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-c", PROGRAM, str(place), str(place / "plan.json"), str(LIMIT - 10)]
    running = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = running.communicate(timeout=LIMIT)
        assert running.returncode == 0, said
    except subprocess.TimeoutExpired:
        pytest.fail(
            "\n\n".join(
                [
                    "it hangs",
                    *(f"{f.name}\n{f.read_text('utf-8')[-2000:]}" for f in sorted(place.glob("err-*"))),
                ]
            )
        )
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    return {stage["name"]: Ran(place, stage["name"], stage["world"]) for stage in plan}


# ---------------------------------------------------------------- rows


def text_of(random_: random.Random, longest: int = 20) -> str:
    return " ".join(random_.choice(WORDS[:28]) for _ in range(random_.randint(1, longest)))


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_data(folder: Path) -> None:
    """Training rows whose last batch is of one row, or of two where one says nothing; dev, test and new rows of odd numbers."""
    sizes = {"train": 25, "dev": 13, "test": 7, "new": 101}
    for split, size in sizes.items():
        r = random.Random(split)
        texts = [text_of(r) for _ in range(size)]
        write_rows(
            folder / f"labels.{split}.jsonl",
            [{"text": t, "label": "abc"[len(t) % 3 * (len(t) > 30)]} for t in texts],
        )
        several = [{"text": t, "label": [w for w in ("dog", "cat", "tree") if w in t]} for t in texts]
        write_rows(folder / f"several.{split}.jsonl", several)
        write_rows(
            folder / f"numbers.{split}.jsonl",
            [{"text": t, "label": round(len(t) / 20 - 1, 3)} for t in texts],
        )
        tagged = [text_of(r, 40).split() for _ in range(size)]
        tags = [
            ["B-X" if w in ("dog", "cat") else "B-Y" if w == "red" else "O" for w in words]
            for words in tagged
        ]
        write_rows(
            folder / f"tags.{split}.jsonl",
            [{"text": w, "label": t} for w, t in zip(tagged, tags, strict=True)],
        )
        size += size == 25
        first, second, third = ([text_of(r, 12) for _ in range(size)] for _ in range(3))
        second = [f"{a} {b}" if n % 3 else b for n, (a, b) in enumerate(zip(first, second, strict=True))]
        pairs = [{"text": a, "text_b": b} for a, b in zip(first, second, strict=True)]
        write_rows(
            folder / f"scores.{split}.jsonl",
            [{**p, "label": n % 3 + len(p["text"]) % 2} for n, p in enumerate(pairs)],
        )
        write_rows(
            folder / f"judged.{split}.jsonl",
            [{**p, "label": ["no", "maybe", "yes"][n % 3]} for n, p in enumerate(pairs)],
        )
        write_rows(folder / f"pairs.{split}.jsonl", pairs)
        write_rows(
            folder / f"threes.{split}.jsonl",
            [{**p, "negative": c} for p, c in zip(pairs, third, strict=True)],
        )
        write_rows(folder / f"singles.{split}.jsonl", [{"text": a} for a in first])


# ---------------------------------------------------------------- runs

# AdamW divides a gradient by its own size, so that one that is nothing but rounding, as that of the keys' biases is, moves a weight as far as
# any other, and half a gradient as far as a whole one. With so large an epsilon, and with gradients that are cut to a norm, neither is so:
# what is compared to 1e-5 is the gradient, with its size. That weights then depend on gradient and batch is shown below, too.
STILL = {
    "epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "adam_epsilon": 1e-2, "max_grad_norm": 0.5, "dropout": 0.0, "precision": "fp32",
    "schedule": "constant",
}  # fmt: skip
NO_DROPOUT = {"dropout": 0.0}
PARITY = {
    "classify": ("classify", "labels", NO_DROPOUT, {}),
    "classify, weighted, in parts": ("classify", "labels", {**NO_DROPOUT, "class_weights": "balanced"}, {"micro_batches": 2, "micro_batch_tokens": 24}),
    "classify, FGM and EMA": ("classify", "labels", NO_DROPOUT, {"fgm": 0.5, "ema": 0.9}),
    "classify, R-Drop, all words": ("classify", "labels", NO_DROPOUT, {"r_drop": 1.0, "active_vocabulary": False}),
    "classify, several labels": ("classify", "several", {**NO_DROPOUT, "class_weights": "balanced"}, {"eval_every": 4}),
    # A correlation multiplies rounding: on some processors 1.6e-5 with the epsilon of the others.
    "regress": ("regress", "numbers", NO_DROPOUT, {"micro_batches": 3, "adam_epsilon": 0.1}),
    "tag": ("tag", "tags", NO_DROPOUT, {}),
    "tag, CRF in windows": ("tag", "tags", {**NO_DROPOUT, "decoder": "crf", "window_overlap": 4}, {"micro_batch_tokens": 40}),
    "match, CoSENT": ("match", "scores", {}, {}),
    "match, CoSENT, in parts": ("match", "scores", {"matryoshka": [8]}, {"micro_batch_tokens": 24}),
    "match, softmax": ("match", "judged", {"loss": "softmax"}, {"micro_batches": 2}),
    "embed, pairs": ("embed", "pairs", {}, {}),
    "embed, pairs, in parts": ("embed", "pairs", {"symmetric": True, "matryoshka": [8]}, {"micro_batch_tokens": 24}),
    "embed, hard negatives": ("embed", "threes", {}, {"micro_batches": 2}),
    "pretrain": ("pretrain", "singles", {"packing": "none"}, {}),
    "pretrain, words, in parts": ("pretrain", "labels", {"masking": "whole_words", "packing": "none"}, {"micro_batch_tokens": 40}),
}  # fmt: skip
THREE = [
    "classify", "classify, weighted, in parts", "classify, FGM and EMA", "tag, CRF in windows", "match, CoSENT, in parts", "embed, pairs",
    "embed, pairs, in parts", "pretrain",
]  # fmt: skip
"""Runs of three processes, of which some have no row of the last batch, or all but one."""
EACH = [*((name, 2) for name in PARITY), *((name, 3) for name in THREE)]
SCORED = [
    "classify",
    "classify, several labels",
    "regress",
    "tag, CRF in windows",
    "match, CoSENT",
    "match, softmax",
    "embed, pairs",
    "pretrain",
    "joined, classify",
    "joined, match",
]
"""Models of one process that several predict with."""
JOINED = {
    "joined, classify": ("classify", "other batch"),
    "joined, match": ("match, CoSENT", "match, CoSENT, in parts"),
}
"""Ensembles among them, and their members."""
SCORED_BY_THREE = ["classify", "tag, CRF in windows", "match, CoSENT"]
ROWS = {name: PARITY[JOINED.get(name, (name,))[0]][1] for name in SCORED}
USED = [*((name, 2) for name in SCORED), *((name, 3) for name in SCORED_BY_THREE)]
COUNTERS = {"seconds", "rows_per_s", "tokens_per_s", "eta_s"}


def short_of_memory(world: int) -> dict:
    """What the last process is to meet in its third step."""
    return {
        "error": {"rank": world - 1, "step": 3, "text": "CUDA out of memory. Tried to allocate 20.00 MiB"}
    }


class Runs:
    """The runs of 1, 2 and 3 processes, and where their files are."""

    def __init__(self, place: Path, tiny: Path) -> None:
        self.place, self.tiny = place, tiny
        write_data(place)
        plan = [{"name": str(world), "world": world, "jobs": self.jobs(world)} for world in (1, *SEVERAL)]
        tracked = self.settings(2, "tracked", "classify", "labels", NO_DROPOUT, {})
        tracked["log"]["trackers"] = ["tensorboard"]
        plan.append(
            {"name": "tracked", "world": 2, "jobs": [{"name": "tracked", "do": "train", "settings": tracked}]}
        )
        short = self.settings(2, "short in FGM", *PARITY["classify, FGM and EMA"])
        job = {"name": "short", "do": "train", "settings": short, "trouble": short_of_memory(2)}
        plan.append({"name": "short in FGM", "world": 2, "jobs": [job]})
        self.ran = start(place, plan)

    def of(self, world: int, job: str) -> list:
        return self.ran[str(world)][job]

    def out(self, world: int, job: str) -> Path:
        return self.place / f"{job}-{world}"

    def settings(self, world: int, name: str, task: str, rows: str, options: dict, train: dict) -> dict:
        data = {split: str(self.place / f"{rows}.{split}.jsonl") for split in ("train", "dev", "test")}
        if task == "tag":
            data["max_length"] = 16
        common = {
            "task": task,
            "model": str(self.tiny),
            "out": str(self.out(world, name)),
            "device": "cpu",
            "log": {"every": 1},
        }
        return {**common, "data": data, "options": options, "train": {**STILL, **train}}

    def jobs(self, world: int) -> list[dict]:
        def job(name: str, *what: object, **more: object) -> dict:
            return {
                "name": name,
                "do": "train",
                "settings": self.settings(world, str(more.pop("place", name)), *what),
                **more,
            }

        made = [job(name, *what) for name, what in PARITY.items() if world < 3 or name in THREE]
        learning = (
            "classify",
            "labels",
            {},
            {"dropout": 0.1, "checkpoint_every": 2, "epochs": 3, "ema": 0.9, "micro_batches": 2},
        )
        still = "classify", "labels", NO_DROPOUT, {}
        usual = "classify", "labels", NO_DROPOUT, {"adam_epsilon": 1e-8, "learning_rate": 1e-3}
        stopped = {"signal": {"rank": world - 1, "step": 6, "number": signal.SIGTERM}}
        cached = job("cached", *still)
        cached["settings"]["data"] |= {"cache": "on", "workers": 1}
        made += [
            cached,
            job("usual Adam", *usual),
            job("SimCSE", "embed", "singles", {}, {"dropout": 0.1}),
            job("straight", *learning),
            job("interrupted", *learning, place="interrupted", trouble=stopped),
            job("gone on", *learning, place="interrupted", resume=True),
            job("left", *still, place="left", trouble=stopped),
        ]
        if world == 1:
            made += [
                job("other batch", "classify", "labels", NO_DROPOUT, {"batch_size": 7}),
                job("half the gradient", *still, trouble={"scale": {"rank": 0, "step": 0, "by": 0.5}}),
            ]
        else:
            made += [
                {
                    "name": "copy",
                    "do": "copy",
                    "source": str(self.out(world - 1, "left")),
                    "target": str(self.out(world, "passed on")),
                },
                job("passed on", *still, resume=True),
                job("short of memory", *still, trouble=short_of_memory(world)),
            ]
        return made + self.uses(world)

    def uses(self, world: int) -> list[dict]:
        """Score and predict with the models of one process, whose numbers are the same to the last bit."""
        made = []
        for name, members in JOINED.items() if world == 1 else ():
            words = ["ensemble", str(self.out(1, name)), *(str(self.out(1, member)) for member in members)]
            made.append({"name": name, "do": "call", "words": words})
        for name in SCORED if world < 3 else SCORED_BY_THREE:
            rows, model = ROWS[name], str(self.out(1, name))
            new, suffix = str(self.place / f"{rows}.new.jsonl"), "jsonl" if name.startswith("tag") else "csv"
            common = ["--precision", "fp32", "--device", "cpu"]
            made += [
                {"name": f"evaluate {name}", "do": "evaluate", "model": model, "file": new},
                {
                    "name": f"predict {name}",
                    "do": "call",
                    "words": ["predict", model, new, "-o", f"{self.out(world, name)}.{suffix}", *common],
                },
            ]
        model, new = str(self.out(1, "classify")), str(self.place / "labels.new.jsonl")
        few = self.place / "few.jsonl"
        few.write_text('{"text": "a dog"}\n')
        made += [
            {"name": "score", "do": "call", "words": ["evaluate", model, new, "--json", *common]},
            {"name": "predictions", "do": "predict", "model": model, "file": new},
            {"name": "print", "do": "call", "words": ["predict", model, str(few), *common]},
            {"name": "predict -", "do": "call", "words": ["predict", model, "-"], "stdin": "a dog\n"},
            {"name": "embed", "do": "call", "words": ["embed", str(self.out(1, "embed, pairs")), str(few)]},
            {
                "name": "search",
                "do": "call",
                "words": ["search", str(self.out(1, "embed, pairs")), str(few), "a dog"],
            },
            {"name": "bad row", "do": "call", "words": ["evaluate", model, str(few)]},
        ]
        return made


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("several"), tiny)


def history(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in COUNTERS} for line in lines]


def farthest(one: Path, other: Path) -> float:
    """How far two saved models lie apart, in the weight that differs most."""
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def same(ours: object, theirs: object, tolerance: float = 1e-5) -> None:
    """The same down to the last text and flag, floats to the tolerance."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key], tolerance)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            same(mine, yours, tolerance)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, abs=tolerance, rel=0, nan_ok=True)
    else:
        assert ours == theirs


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(("name", "world"), EACH)
def test_several_processes_learn_what_one_learns(name, world, runs):
    one, several = runs.out(1, name), runs.out(world, name)
    assert [found["processes"] for found in runs.of(world, name)] == [world] * world
    lines = history(one)
    per_epoch = num_batches(26 if PARITY[name][1] in {"scores", "judged", "pairs", "threes"} else 25, 8)
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, 2 * per_epoch + 1))
    same(history(several), lines)
    assert farthest(one, several) <= 1e-5
    assert farthest(one / "last", several / "last") <= 1e-5
    for found in runs.of(world, name):  # every process has the scores
        same(found["scores"], runs.of(1, name)[0]["scores"])
    ours, theirs = (json.loads((out / "scores.json").read_text()) for out in (several, one))
    same({k: ours[k] for k in ("dev", "test")}, {k: theirs[k] for k in ("dev", "test")})
    assert ours["run"]["best_step"] == theirs["run"]["best_step"]


def test_the_comparison_sees_another_batch_and_another_gradient(runs):
    """Or weights within 1e-5 would say little."""
    assert farthest(runs.out(1, "classify"), runs.out(1, "other batch")) > 1e-3
    assert farthest(runs.out(1, "classify"), runs.out(1, "half the gradient")) > 1e-3


@pytest.mark.parametrize("world", SEVERAL)
def test_with_the_usual_epsilon_losses_and_scores_are_the_same_too(world, runs):
    same(history(runs.out(world, "usual Adam")), history(runs.out(1, "usual Adam")))
    assert (
        farthest(runs.out(1, "usual Adam"), runs.out(world, "usual Adam")) <= 8 * 1e-3
    )  # as far as a gradient of rounding alone goes


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", ["classify", "straight", "SimCSE"])
def test_all_processes_have_the_same_weights_after_every_step(name, world, runs):
    each = runs.of(world, name)
    weights = [[step["weights"] for step in found["steps"]] for found in each]
    assert all(w == weights[0] for w in weights)
    assert len(set(weights[0])) == len(weights[0])


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", ["straight", "SimCSE"])
def test_no_two_processes_drop_alike(name, world, runs):
    each = runs.of(world, name)
    for step in zip(*(found["steps"] for found in each), strict=True):
        assert len({s["random"] for s in step}) == world


@pytest.mark.parametrize("world", [1, *SEVERAL])
@pytest.mark.parametrize(
    ("name", "rows"),
    [("classify", 25), ("straight", 25), ("classify, weighted, in parts", 25), ("embed, pairs", 26)],
)
def test_every_epoch_has_each_row_once_over_all_processes_in_an_order_of_its_own(name, rows, world, runs):
    each = [found["steps"] for found in runs.of(world, name)]
    per_epoch = num_batches(rows, 8)
    assert len(each[0]) == (3 if name == "straight" else 2) * per_epoch
    orders = []
    for epoch in range(len(each[0]) // per_epoch):
        order = []
        for step in list(zip(*each, strict=True))[epoch * per_epoch : (epoch + 1) * per_epoch]:
            batch = step[0]["batch"]
            assert all(s["batch"] == batch for s in step)
            assert sorted(row for s in step for row in s["own"]) == sorted(batch)
            order += batch
        assert sorted(order) == list(range(rows))
        assert order == epoch_order(rows, 42, epoch).tolist()
        orders.append(order)
    assert orders[0] != orders[1]
    if world > 1:  # the last batch is of fewer rows than there are processes, or of as many
        assert sorted(len(found[per_epoch - 1]["own"]) for found in each) == [0] * (world - rows % 8) + [
            1
        ] * (rows % 8)


@pytest.mark.parametrize("world", [1, *SEVERAL])
def test_simcse_learns(world, runs):
    losses = [line["loss"] for line in history(runs.out(world, "SimCSE")) if line["event"] == "epoch"]
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.parametrize("world", SEVERAL)
def test_memory_that_is_short_in_one_process_changes_nothing(world, runs):
    for found in runs.of(world, "short of memory"):
        assert "scores" in found
    said = runs.of(world, "short of memory")[0]["said"]
    (warning,) = [line for line in said if line.startswith("warning: out of memory")]
    assert "in another process" in warning
    assert farthest(runs.out(world, "classify"), runs.out(world, "short of memory")) <= 1e-5


@pytest.mark.parametrize("world", SEVERAL)
def test_with_the_cache_on_disk_the_first_process_makes_it_for_all_and_nothing_changes(world, runs):
    assert farthest(runs.out(world, "classify"), runs.out(world, "cached")) == 0
    entries, of_one = (sorted(p.name for p in (runs.place / f"cache-{w}").iterdir()) for w in (world, 1))
    assert entries == of_one
    assert entries


def test_so_it_is_with_fgm(runs):
    assert "scores" in runs.ran["short in FGM"]["short"][0]
    assert farthest(runs.out(2, "classify, FGM and EMA"), runs.out(2, "short in FGM")) <= 1e-5


# ---------------------------------------------------------------- one writer


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", ["classify", "tag, CRF in windows", "embed, pairs", "straight"])
def test_several_processes_write_the_same_files_as_one_and_each_once(name, world, runs):
    def files(out: Path) -> list[str]:
        return sorted(
            str(p.relative_to(out).parent if "tfevents" in p.name else p.relative_to(out))
            for p in out.rglob("*")
            if p.is_file()
        )

    assert files(runs.out(world, name)) == files(runs.out(1, name))
    names = files(runs.out(world, name))
    assert names.count("history.jsonl") == names.count("README.md") == 1
    assert not [n for n in names if n.endswith(".part") or "checkpoint" in n]


@pytest.mark.parametrize("world", SEVERAL)
def test_the_first_process_talks_and_the_others_do_not(world, runs):
    first, *others = [found["said"] for found in runs.of(world, "classify")]
    assert all(said == [] for said in others)
    assert sum(line.startswith("step     3 ") for line in first) == 1
    assert [line.split(" in ")[0] for line in first if line.startswith("done")] == ["done"]


@pytest.mark.parametrize("world", SEVERAL)
def test_throughput_counts_the_rows_of_all_processes(world, runs):
    def counts(out: Path) -> tuple[float, float]:
        run = json.loads((out / "scores.json").read_text())["run"]
        return run["rows_per_s"] * run["train_seconds"], run["tokens_per_s"] * run["train_seconds"]

    assert counts(runs.out(world, "classify")) == pytest.approx(counts(runs.out(1, "classify")), rel=0.05)


def test_trackers_are_told_once_and_the_processes_stay_together_to_the_end(runs):
    each, out = runs.ran["tracked"]["tracked"], runs.place / "tracked-2"
    assert [found["processes"] for found in each] == [2, 2]
    events = [p.parent for p in out.rglob("*tfevents*")]
    assert len(events) == len(set(events)) > 0
    assert farthest(runs.out(1, "classify"), out) <= 1e-5


# ---------------------------------------------------------------- to be stopped, and to go on


@pytest.mark.parametrize("world", [1, *SEVERAL])
def test_a_signal_to_one_process_stops_all_after_the_same_step_with_a_checkpoint(world, runs):
    stopped = [found["stopped"] for found in runs.of(world, "interrupted")]
    assert [number for _, number in stopped] == [signal.SIGTERM] * world
    steps = [len(found["steps"]) for found in runs.of(world, "interrupted")]
    assert len(set(steps)) == 1
    assert steps[0] in {6, 7}  # the others hear of it at the beginning of the next step
    assert all(f"stopped at step {steps[0]} of 12; go on with: bertune train" in text for text, _ in stopped)
    assert any(
        f"goes on from {runs.out(world, 'interrupted')}/checkpoints" in line
        for line in runs.of(world, "gone on")[0]["said"]
    )


@pytest.mark.parametrize("world", [1, *SEVERAL])
def test_as_many_processes_go_on_bit_for_bit(world, runs):
    straight, again = runs.out(world, "straight"), runs.out(world, "interrupted")
    assert farthest(straight, again) == farthest(straight / "last", again / "last") == 0
    assert history(straight) == history(again)
    assert runs.of(world, "straight")[0]["scores"] == runs.of(world, "gone on")[0]["scores"]
    for before, stopped, after in zip(
        *(runs.of(world, job) for job in ("straight", "interrupted", "gone on")), strict=True
    ):
        assert (
            stopped["steps"] + after["steps"] == before["steps"]
        )  # rows, dropout and weights of each process
    assert not any("bit for bit" in line for line in runs.of(world, "gone on")[0]["said"])


@pytest.mark.parametrize("world", SEVERAL)
def test_another_number_of_processes_goes_on_and_says_that_it_rounds_otherwise(world, runs):
    (said,) = [line for line in runs.of(world, "passed on")[0]["said"] if "bit for bit" in line]
    assert (
        said
        == f"resume: equal up to rounding but not bit for bit, since the machine has changed: processes {world - 1} then, {world} now"
    )
    assert farthest(runs.out(1, "classify"), runs.out(world, "passed on")) <= 1e-5
    same(history(runs.out(world, "passed on")), history(runs.out(1, "classify")))


def test_one_process_goes_on_where_three_were_stopped(runs, tmp_path, capsys):
    shutil.copytree(runs.out(3, "left"), tmp_path / "left")
    bertune.train(tmp_path / "left", resume=True)
    assert "processes 3 then, 1 now" in capsys.readouterr().err
    assert farthest(runs.out(1, "classify"), tmp_path / "left") <= 1e-5
    same(history(tmp_path / "left"), history(runs.out(1, "classify")))


# ---------------------------------------------------------------- use


@pytest.mark.parametrize(("name", "world"), USED)
def test_several_processes_predict_every_row_once_in_order_to_the_last_bit(name, world, runs):
    suffix = "jsonl" if name.startswith("tag") else "csv"
    one, several = (Path(f"{runs.out(w, name)}.{suffix}") for w in (1, world))
    assert several.read_bytes() == one.read_bytes()
    rows = [
        json.loads(line) for line in (runs.place / f"{ROWS[name]}.new.jsonl").read_text("utf-8").splitlines()
    ]
    if suffix == "csv":
        with several.open(newline="", encoding="utf-8") as file:
            assert [r["text"] for r in csv.DictReader(file)] == [r["text"] for r in rows]
    else:
        assert len(several.read_text("utf-8").splitlines()) == len(rows) == 101
    assert [found["code"] for found in runs.of(world, f"predict {name}")] == [0] * world
    assert [
        f"101 rows predicted, written to {several}" in f["stderr"] for f in runs.of(world, f"predict {name}")
    ] == [True] + [False] * (world - 1)


@pytest.mark.parametrize(("name", "world"), USED)
def test_several_processes_find_the_figures_of_one(name, world, runs):
    (expected,) = runs.of(1, f"evaluate {name}")
    for scores, loss, cut in runs.of(world, f"evaluate {name}"):  # each of them has them
        assert scores == expected[0]
        assert cut == expected[2]
        same(loss, expected[1], 1e-9)  # summed in another order


@pytest.mark.parametrize("world", SEVERAL)
def test_figures_are_printed_once(world, runs):
    first, *others = runs.of(world, "score")
    same(json.loads(first["stdout"]), json.loads(runs.of(1, "score")[0]["stdout"]), 1e-9)
    assert all((found["code"], found["stdout"], found["stderr"]) == (0, "", "") for found in others)


@pytest.mark.parametrize("world", SEVERAL)
def test_in_python_every_process_has_all_predictions(world, runs):
    (expected,) = runs.of(1, "predictions")
    assert len(expected) == 101
    assert all(found == expected for found in runs.of(world, "predictions"))


@pytest.mark.parametrize("world", SEVERAL)
def test_one_row_is_printed_once(world, runs):
    first, *others = runs.of(world, "print")
    assert first["stdout"] == runs.of(1, "print")[0]["stdout"] != ""
    assert all(found["code"] == 0 and found["stdout"] == found["stderr"] == "" for found in others)


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize(
    ("job", "why"),
    [
        (
            "predict -",
            "standard input cannot be read by several processes; give a file, or start one process",
        ),
        ("embed", "embed: works in one process, and {} were started; start it without a launcher"),
        ("search", "search: works in one process, and {} were started; start it without a launcher"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_in_one_line_each(job, why, world, runs):
    for rank, found in enumerate(runs.of(world, job)):
        assert (found["code"], found["stdout"]) == (2, "")
        assert found["stderr"] == f"bertune: process {rank} of {world}: {why.format(world)}\n"


@pytest.mark.parametrize("world", SEVERAL)
def test_rows_that_cannot_be_scored_end_all_processes(world, runs):
    for found in runs.of(world, "bad row"):
        assert found["code"] == 2
        assert "few.jsonl" in found["stderr"]


# ---------------------------------------------------------------- a process that fails


@pytest.fixture(scope="module")
def failed(tiny, tmp_path_factory) -> tuple[Path, dict[str, Ran]]:
    """Runs by the command line in which one process of two fails."""
    place = tmp_path_factory.mktemp("failed")
    write_data(place)
    (place / "mine.py").write_text(
        "import os\nfrom bertune.errors import DataError\nfrom bertune.tasks.classify import Classify\n\n\n"
        "class Mine(Classify):\n    def fit(self, examples, note):\n        super().fit(examples, note)\n"
        "        if os.environ.get('RANK') == '1':\n            raise DataError('rows.csv: no such file on this machine')\n"
    )
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")

    def stage(name: str, task: str = "classify", out: str | None = None, **trouble: dict) -> dict:
        rows = [f"data.{split}={place / f'labels.{split}.jsonl'}" for split in ("train", "dev")]
        words = [
            "train",
            task,
            *rows,
            f"model={tiny}",
            f"out={place / (out or name)}",
            "train.batch_size=8",
            "train.checkpoint_every=2",
        ]
        return {
            "name": name,
            "world": 2,
            "jobs": [{"name": name, "do": "main", "words": words, "trouble": trouble}],
        }

    nowhere = [str(place / "nowhere"), str(place / "labels.new.jsonl"), "-o", str(place / "new.csv")]
    return place, start(
        place,
        [
            stage("reads", str(place / "mine.py")),
            stage("learns", error={"rank": 1, "step": 5, "text": "a bug"}),
            stage("leads", error={"rank": 0, "step": 5, "text": "a bug"}),
            stage("full", out="full"),
            {
                "name": "nowhere",
                "world": 2,
                "jobs": [{"name": "nowhere", "do": "main", "words": ["predict", *nowhere]}],
            },
        ],
    )


LOST = "bertune: process {} of 2: another process has ended; its message is the reason"


def test_a_process_that_cannot_read_its_rows_ends_all_and_says_why(failed):
    place, ran = failed
    assert ran["reads"].codes == [1, 2]
    assert (
        ran["reads"].err[1].splitlines()[-1]
        == "bertune: process 1 of 2: rows.csv: no such file on this machine"
    )
    assert ran["reads"].err[0].splitlines()[-1] == LOST.format(0)
    assert not (place / "reads" / "scores.json").exists()


@pytest.mark.parametrize(("name", "bad"), [("learns", 1), ("leads", 0)])
def test_a_process_that_fails_in_a_step_ends_all_with_its_error_and_the_last_checkpoint_stays(
    name, bad, failed
):
    place, ran = failed
    assert ran[name].codes == [1, 1]
    assert "RuntimeError: a bug" in ran[name].err[bad]
    assert ran[name].err[1 - bad].splitlines()[-1] == LOST.format(1 - bad)
    assert sorted(p.name for p in (place / name / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]


def test_a_folder_that_holds_something_is_refused_by_all(failed):
    place, ran = failed
    assert ran["full"].codes[0] == 2
    assert ran["full"].codes[1] in {1, 2}
    assert "is not empty and may hold another run" in ran["full"].err[0]
    assert [p.name for p in (place / "full").iterdir()] == ["mine.txt"]


def test_a_model_that_is_not_there_is_named(failed):
    _, ran = failed
    assert 2 in ran["nowhere"].codes
    assert 0 not in ran["nowhere"].codes
    for code, err in zip(ran["nowhere"].codes, ran["nowhere"].err, strict=True):
        assert code == 1 or "nowhere" in err.splitlines()[-1]  # or it has only seen that the other had ended


# ---------------------------------------------------------------- real launchers

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

SLOW = '''
import time
from bertune.tasks.classify import Classify


class Slow(Classify):
    """Choose labels, slowly."""

    def loss(self, out, batch):
        time.sleep(0.03)
        return super().loss(out, batch)
'''


class Launched:
    """A launcher with its processes, in a session of their own."""

    def __init__(self, launcher: list[str], words: list[str], place: Path, name: str) -> None:
        self.files = [(place / f"{name}.{kind}").open("w") for kind in ("out", "err")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment = {k: v for k, v in environment.items() if k not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
        command = [sys.executable, "-m", *launcher, "-m", "bertune", *words]
        self.process = subprocess.Popen(
            command, stdout=self.files[0], stderr=self.files[1], start_new_session=True, env=environment
        )

    def workers(self) -> list[int]:
        import psutil

        return [
            p.pid
            for p in psutil.Process(self.process.pid).children(recursive=True)
            if "bertune" in " ".join(p.cmdline())
        ]

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait(self, seconds: float = LIMIT) -> tuple[int, str, str]:
        """Return its code, and what was written to standard output and standard error."""
        try:
            code = self.process.wait(seconds)
        finally:
            self.end()
        return code, *(Path(f.name).read_text("utf-8") for f in self.files)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for file in self.files:
            file.close()


def until(happens: object, launched: Launched) -> None:
    end = time.monotonic() + LIMIT
    while not happens():
        assert launched.process.poll() is None, Path(launched.files[1].name).read_text("utf-8")
        assert time.monotonic() < end
        time.sleep(0.05)


def test_torchrun_and_accelerate_launch_a_run_that_is_killed_stopped_and_finished(tiny, tmp_path):
    """kill -9 of one process, then SIGTERM to the launcher, then to the end: as if nothing had been. accelerate's file is the document's."""
    write_data(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    (config,) = [
        text
        for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "use_cpu" in text
    ]
    (tmp_path / "cpu.yaml").write_text(config)
    accelerate = [
        "accelerate.commands.launch",
        "--config_file",
        str(tmp_path / "cpu.yaml"),
        "--mixed_precision",
        "bf16",
    ]  # not looked at
    rows = [f"data.{split}={tmp_path / f'labels.{split}.jsonl'}" for split in ("train", "dev")]
    words = [
        "train",
        str(tmp_path / "slow.py"),
        *rows,
        f"model={tiny}",
        "train.batch_size=8",
        "train.epochs=10",
        "train.precision=fp32",
    ]
    words += ["train.checkpoint_every=4", "train.keep_checkpoints=100", "log.every=1", "device=cpu"]
    out, checkpoints = tmp_path / "out", tmp_path / "out" / "checkpoints"
    again = [*words, f"out={out}", "--resume"]

    def written() -> set[str]:
        return {p.name for p in checkpoints.glob("step-*") if p.suffix != ".part"}

    with Launched(accelerate, [*words, f"out={tmp_path / 'straight'}"], tmp_path, "straight") as straight:
        with Launched(TORCHRUN, again, tmp_path, "killed") as killed:
            until(lambda: "step-00000004" in written(), killed)
            os.kill(killed.workers()[-1], signal.SIGKILL)
            code, printed, said = killed.wait(60)
        assert (code, printed) == (1, "")
        assert "nothing to resume" in said
        assert "Signal 9 (SIGKILL)" in said
        before = written()

        with Launched(TORCHRUN, again, tmp_path, "stopped") as stopped:
            until(lambda: len(written() - before) >= 2, stopped)
            os.kill(stopped.process.pid, signal.SIGTERM)
            code, printed, said = stopped.wait(60)
        assert (code != 0, printed) == (True, "")
        last = max(written())
        step = int(last.split("-")[1])
        assert step < 40
        assert (
            said.count(f"stopped at step {step} of 40; go on with: bertune train {out} --resume") == 2
        )  # both, after the same step
        assert not list(checkpoints.glob("*.part"))

        code, printed, said = straight.wait()
        assert code == 0, said
        assert printed == f"{tmp_path / 'straight'}\n"
        assert "computes in fp32 on cpu" in said

    with Launched(accelerate, again, tmp_path, "finished") as finished:
        code, printed, said = finished.wait()
    assert code == 0, said
    assert printed == f"{out}\n"  # once
    assert f"goes on from {checkpoints / last}, step {step}" in said
    assert "bit for bit" not in said
    assert farthest(tmp_path / "straight", out) == farthest(tmp_path / "straight" / "last", out / "last") == 0
    assert history(out) == history(tmp_path / "straight")
    assert not checkpoints.exists()


def test_a_process_that_fails_ends_the_launcher_with_its_error(tiny, tmp_path):
    write_data(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import os\nfrom bertune.tasks.classify import Classify\n\n\nclass Mine(Classify):\n    def loss(self, out, batch):\n"
        "        if os.environ['RANK'] == '1':\n            raise ValueError('a bug of mine')\n        return super().loss(out, batch)\n"
    )
    rows = [f"data.{split}={tmp_path / f'labels.{split}.jsonl'}" for split in ("train", "dev")]
    words = [
        "train",
        str(tmp_path / "mine.py"),
        *rows,
        f"model={tiny}",
        f"out={tmp_path / 'out'}",
        "device=cpu",
    ]
    with Launched(TORCHRUN, words, tmp_path, "failed") as failed:
        code, printed, said = failed.wait(120)
    assert code != 0
    assert printed == ""
    assert "ValueError: a bug of mine" in said


# ---------------------------------------------------------------- how rows are dealt

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_rows_are_dealt_so_that_each_is_there_once_in_order_and_tokens_are_even(lengths, parts, shuffled):
    held = np.array(lengths)
    rows = list(range(len(lengths)))
    shuffled.shuffle(rows)
    rows = rows[: shuffled.randint(0, len(rows))]
    dealt = process_shares(rows, held, parts)
    assert len(dealt) == parts
    assert sorted(row for part in dealt for row in part) == sorted(rows)
    for part in dealt:
        assert part == [row for row in rows if row in set(part)]
    tokens = [int(held[part].sum()) if part else 0 for part in dealt]
    assert max(tokens) - min(tokens) <= max((lengths[row] for row in rows), default=0)
    assert process_shares(rows, held, parts) == dealt


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 5))
def test_over_an_epoch_the_processes_have_each_row_once_whatever_the_numbers(num_rows, seed, size, parts):
    lengths = np.arange(num_rows) % 17 + 1
    order = epoch_order(num_rows, seed, 3)
    seen: list[list[int]] = [[] for _ in range(parts)]
    for begin in range(0, num_rows, size):
        for mine, part in zip(
            seen, process_shares(order[begin : begin + size].tolist(), lengths, parts), strict=True
        ):
            mine += part
    assert sorted(row for mine in seen for row in mine) == list(range(num_rows))
    if num_rows > 20:
        assert order.tolist() != epoch_order(num_rows, seed, 4).tolist()
        assert order.tolist() != epoch_order(num_rows, (seed + 1) % 2**32, 3).tolist()
