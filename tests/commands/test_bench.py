"""`bertune bench` as a user runs it: tiny sets, several seeds, one table; stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from tests.conftest import make_encoder
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.commands.bench_request import BenchRequest, make_plan
from bertune.commands.bench_run import run_job
from bertune.selection.bench.records import read_predictions

WORDS = {"good": "pos", "great": "pos", "fine": "pos", "bad": "neg", "awful": "neg", "poor": "neg"}
NOUNS = ("dog", "cat", "tree", "house", "car", "book")
ROWS = [{"text": f"the {n} is {w}", "label": label} for w, label in WORDS.items() for n in NOUNS]
PAIRS = [
    {"text": f"the {a}", "text_b": f"a {b}", "label": float(a == b) * 3 + 0.1 * i}
    for a in NOUNS
    for i, b in enumerate(NOUNS)
]
SENTENCES = [
    {"tokens": ["the", noun, "is", word], "tags": ["O", "B-X" if word in {"good", "bad"} else "O", "O", "O"]}
    for word in WORDS
    for noun in NOUNS
]


@pytest.fixture
def one_process(monkeypatch):
    """Train in this process, which imports once; tests of crashes and signals do without."""

    def run(module, job, log):
        assert module == "bertune.commands.bench_run"
        log.write_bytes(b"")
        return 0 if run_job(json.loads(json.dumps(job))).is_done else 2

    monkeypatch.setattr("bertune.commands.bench.run_process", run)


@pytest.fixture
def suite(tiny, write, tmp_path):
    class Suite:
        out = tmp_path / "out"
        model = str(tiny)
        files = {
            "classify": write("c.jsonl", ROWS),
            "regress": write("r.jsonl", PAIRS),
            "tag": write("t.jsonl", SENTENCES),
            "embed": None,
        }

        def set(self, task="classify", **changes):
            data = {"train": self.files[task], "dev": self.files[task], **changes.pop("data", {})}
            return {"task": task, "data": data, **changes}

        def settings(self, **changes):
            return {
                "sets": {"mood": self.set(), "near": self.set("regress")},
                "settings": {"train": {"precision": "fp32", "batch_size": 8, "max_steps": 3}},
                "seeds": [1, 2],
                "models": [self.model],
                **changes,
            }

        def file(self, name="mine.yaml", **changes):
            path = tmp_path / name
            path.write_text(yaml.safe_dump(self.settings(**changes)), encoding="utf-8")
            return path

        def call(self, *words):
            result = CliRunner().invoke(app, ["bench", *map(str, words)])
            return result.exit_code, result.stdout, result.stderr

        def json(self):
            return json.loads((self.out / "bench.json").read_text(encoding="utf-8"))

    return Suite()


@pytest.fixture
def other(tmp_path):
    return make_encoder(tmp_path / "other", seed=7)


def test_from_a_file_to_one_table(suite):
    code, out, said = suite.call(suite.file(), "-o", suite.out)
    assert code == 0, said
    lines = out.splitlines()
    assert lines[-1] == str(suite.out)
    assert all(len(line) <= 80 for line in lines[:-1]), out
    assert {path.name for path in suite.out.iterdir()} == {
        "plan.json", "runs", "bench.json", "bench.md", "bench.html",
    }  # fmt: skip
    found = suite.json()
    by_hand = bertune.train(
        suite.set(), [f"model={suite.model}", "seed=2", "train.max_steps=3", "train.batch_size=8",
                      "train.precision=fp32", f"out={suite.out.parent / 'again'}"], quiet=True,
    )  # fmt: skip
    mood = found["sets"]["mood"]["models"]["tiny"]
    assert mood["seeds"]["2"]["scores"]["dev"] == by_hand.scores["dev"].to_json()
    values = [mood["seeds"][s]["scores"]["dev"]["values"]["accuracy"] for s in ("1", "2")]
    assert mood["dev"]["mean"] == pytest.approx(np.mean(values))
    assert mood["dev"]["interval_kind"] == "over seeds (Student's t)"
    near = found["sets"]["near"]["models"]["tiny"]
    mean = (mood["dev"]["mean"] + near["dev"]["mean"]) / 2
    assert found["suite_scores"]["tiny"]["dev"]["mean"] == pytest.approx(mean)
    assert found["suite_scores"]["tiny"]["dev"]["mean_of"] == ["mood", "near"]
    (machine,) = found["machines"]
    assert {"cores", "device", "precision", "python", "bertune", "torch"} <= machine.keys()
    assert mood["peak_memory_gb"] > 0 < mood["rows_per_s"]
    assert not list(suite.out.rglob("model.safetensors"))
    assert not list(suite.out.rglob("*.part*"))
    page = (suite.out / "bench.html").read_text(encoding="utf-8")
    for part in ("mood", f"{mood['dev']['mean']:.4f}", "over seeds"):
        assert part in page
        assert part in (suite.out / "bench.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("one_process")
def test_the_same_command_goes_on_and_may_grow(suite):
    first = suite.call(suite.file(seeds=[1]), "-o", suite.out)
    assert first[0] == 0, first[2]
    assert "one seed" in first[2]
    assert "One seed says nothing about the spread" in first[1]
    assert "bootstrap" in first[1]
    before = {path: path.stat().st_mtime_ns for path in suite.out.rglob("seed-1.json")}
    code, _, said = suite.call(suite.file(), "-o", suite.out)  # a second seed
    assert code == 0, said
    assert said.count("done before") == 2
    assert "goes on" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert suite.json()["seeds"] == [1, 2]


@pytest.mark.usefixtures("one_process")
def test_runs_of_other_rows_are_run_again(suite, tmp_path):
    words = [suite.file(seeds=[1]), "-o", suite.out, "--keep-models"]
    assert suite.call(*words)[0] == 0
    before = suite.json()["sets"]["mood"]["models"]["tiny"]
    with (tmp_path / "c.jsonl").open("a") as file:
        file.write('{"text": "the small dog is bad", "label": "neg"}\n')
    code, _, said = suite.call(*words)
    assert code == 0, said
    assert f"mood, tiny, seed 1: is run again, since '{tmp_path / 'c.jsonl'}' has changed since" in said
    assert said.count("done before") == 1
    after = suite.json()["sets"]["mood"]["models"]["tiny"]
    assert after["seeds"]["1"]["data"]["dev"]["rows"] == before["seeds"]["1"]["data"]["dev"]["rows"] + 1


@pytest.mark.usefixtures("one_process")
def test_other_settings_are_refused_with_what_differs(suite):
    assert suite.call(suite.file(seeds=[1]), "-o", suite.out)[0] == 0
    kept = {path: path.read_bytes() for path in suite.out.rglob("*") if path.is_file()}
    for words, expected in (
        (["train.epochs=7"], "train.epochs of 'mood' was None, is 7"),
        (["--sets", "near"], "'mood' was run there before"),
        (["--seeds", "4"], "--seeds: 1 was run there before"),
        (["--model", "minilm"], "--model or --compare: 'tiny' was run there before"),
    ):
        code, out, said = suite.call(suite.file(seeds=[1]), "-o", suite.out, *words)
        assert (code, out) == (2, "")
        assert expected in said
    assert {path: path.read_bytes() for path in suite.out.rglob("*") if path.is_file()} == kept


@pytest.mark.usefixtures("one_process")
def test_a_broken_set_is_told_and_the_others_go_on(suite, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a dog", "label": "pos"}\nno json\n')
    sets = {"bad": suite.set(data={"train": str(broken)}), "mood": suite.set()}
    code, out, said = suite.call(suite.file(sets=sets, seeds=[1]), "-o", suite.out)
    assert code == 2
    assert out.splitlines()[-1] == str(suite.out)
    assert "failed: bad, tiny, seed 1:" in out
    assert "broken.jsonl:2" in out
    assert "Traceback" not in out + said
    found = suite.json()
    assert found["sets"]["mood"]["models"]["tiny"]["dev"]["mean"] > 0
    assert found["failed"][0]["run"] == "bad, tiny, seed 1"
    broken.write_text((tmp_path / "c.jsonl").read_text())  # mended: only that run is tried again
    code, out, said = suite.call(suite.file(sets=sets, seeds=[1]), "-o", suite.out)
    assert code == 0, said
    assert said.count("done before") == 1
    assert not suite.json()["failed"]


def test_a_crash_of_a_run_ends_nothing_else(suite, tmp_path):
    task = tmp_path / "mine.py"
    task.write_text(
        "import os\nfrom bertune.tasks.classify import Classify\n"
        "class Mine(Classify):\n    '''Dies.'''\n"
        "    def loss(self, *args, **kwargs):\n        os.kill(os.getpid(), 9)\n"
    )
    sets = {"dies": {**suite.set(), "task": str(task)}, "mood": suite.set()}
    code, out, _ = suite.call(suite.file(sets=sets, seeds=[1]), "-o", suite.out)
    assert code == 2
    assert "SIGKILL" in out
    assert "memory" in out
    assert "dev" in suite.json()["sets"]["mood"]["models"]["tiny"]


@pytest.mark.parametrize(
    ("source", "words", "expected"),
    [
        ("gleu", [], ["no suite", "did you mean 'glue'"]),
        ("glue:colla", ["--model", "minilm"], ["did you mean 'cola'"]),
        ("glue", ["--sets", "colla", "--model", "minilm"], ["did you mean 'cola'"]),
        ("glue", ["--sets", "rte,rte", "--model", "minilm"], ["names 'rte' twice"]),
        ("glue", ["--root", "nowhere", "--model", "minilm"], ["nowhere"]),
        ("glue", ["data.root=nowhere", "--model", "minilm"], ["nowhere"]),
        ("glue", ["--root", "a", "data.root=b", "--model", "minilm"], ["leave one of them out"]),
        ("file", ["--sets", "moood"], ["has no set 'moood'", "did you mean 'mood'"]),
        ("file", ["--seeds", ""], ["--seeds: must name one seed at least"]),
        ("file", ["--seeds", "1,1"], ["--seeds: names 1 twice"]),
        ("file", ["--seeds", "1,x"], ["--seeds: must be whole numbers", "'x'"]),
        ("file", ["--seeds", "-1"], ["--seeds: must be whole numbers"]),
        ("file", ["--model", "TINY", "--model", "TINY/"], ["is given twice"]),
        ("file", ["--model", "no/such/folder"], ["no/such/folder"]),
        ("file", ["train.epochz=1"], ["all sets: train.epochz: no such setting"]),
        ("file", ["seed=3"], ["--seeds 1,2,3"]),
        ("file", ["model=x"], ["--model MODEL"]),
        ("file", ["cola"], ["'cola' is not a setting", "--sets"]),
        ("file", ["--compare", "train.decay=0.9"], ["train.decay"]),
        ("file", ["--compare", "seed=1"], ["--seeds"]),
        ("file", ["--compare", "train.ema=0.9", "--compare", "train.ema=0.9"], ["twice"]),
        ("file", ["--model", "TINY", "--model", "minilm", "--compare", "train.ema=0.9"], ["for one model"]),
        ("missing.yaml", [], ["cannot read this suite"]),
    ],
)
def test_bad_calls_are_refused_and_nothing_is_written(source, words, expected, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = suite.file() if source == "file" else source
    words = [word.replace("TINY", suite.model) for word in words]
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, said = suite.call(source, "-o", suite.out, *words)
    assert (code, out) == (2, ""), said
    for part in expected:
        assert part in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sets": {}}, "must name a set"),
        ({"sets": {"a": "glue:nothing"}}, "glue has no set 'nothing'"),
        ({"sets": {"a": "nothing"}}, "'nothing' is no named set"),
        ({"sets": {"a": {"set": "glue:rte", "task": "tag"}}}, "task: comes from `set`"),
        ({"sets": {"a": {"task": "clasify"}}}, "set a: "),
        ({"sets": {"a": {"task": "classify"}}}, "set a: data.train: must be given"),
        ({"sets": {"a b": {"set": "-"}, "a/b": {"set": "-"}}}, "is no named set"),
        ({"seeds": []}, "seeds: must name one seed"),
        ({"seeds": [1, 1]}, "seeds: names 1 twice"),
        ({"seads": [1]}, "did you mean 'seeds'"),
        ({"models": []}, "needs an encoder for 'mood', 'near'"),
        ({"settings": {"train": {"epochz": 1}}}, "train.epochz"),
    ],
)
def test_bad_files_are_refused_and_nothing_is_written(changes, expected, suite):
    code, out, said = suite.call(suite.file(**changes), "-o", suite.out)
    assert (code, out) == (2, ""), said
    assert expected in said
    assert not suite.out.exists()


def test_folders_of_others_several_processes_and_run_files_are_refused(suite, tmp_path, monkeypatch):
    suite.out.mkdir()
    (suite.out / "notes.txt").write_text("mine")
    code, _, said = suite.call(suite.file(), "-o", suite.out)
    assert code == 2
    assert "is not empty and holds no bench" in said
    run_file = tmp_path / "run.yaml"
    run_file.write_text(yaml.safe_dump(suite.set()))
    code, _, said = suite.call(run_file)
    assert code == 2
    assert "is a run file; a suite names its sets" in said
    same = {"a b": suite.set(), "a/b": suite.set()}
    code, _, said = suite.call(suite.file(sets=same), "-o", tmp_path / "o2")
    assert code == 2
    assert "would share a folder" in said
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(bertune.ConfigError, match="starts its runs itself"):
        bertune.bench(str(suite.file()), out=tmp_path / "o3")


@pytest.mark.usefixtures("one_process")
def test_two_models_are_compared_pair_by_pair(suite, other):
    from scipy.stats import ttest_rel
    from statsmodels.stats.multitest import multipletests

    tested = []
    sets = {"mood": suite.set(), "near": suite.set("regress"), "spans": suite.set("tag")}
    words = [suite.file(sets=sets, seeds=[1, 2, 3]), "-o", suite.out, "train.learning_rate=1e-3"]
    code, out, said = suite.call(*words, "--model", suite.model, "--model", other)
    assert code == 0, said
    assert all(len(line) <= 80 for line in out.splitlines()[:-1]), out
    found = suite.json()
    (versus,) = found["comparisons"]
    assert (versus["a"], versus["b"]) == ("tiny", "other")
    for name, each in versus["sets"].items():
        scores = {
            model: [
                values["scores"]["dev"]["values"][each["metric"]]
                for values in found["sets"][name]["models"][model]["seeds"].values()
            ]
            for model in ("tiny", "other")
        }
        a, b = scores["tiny"], scores["other"]
        assert each["difference"] == pytest.approx(np.mean(b) - np.mean(a))
        if np.ptp(np.subtract(b, a)) > 0:
            tested.append(name)
            test = ttest_rel(b, a)
            assert each["p_value"] == pytest.approx(test.pvalue)
            interval = test.confidence_interval(0.95)
            assert each["interval_95"] == pytest.approx([interval.low, interval.high])
    assert "near" in tested
    p_values = [each["p_value"] for each in versus["sets"].values()]
    assert [each["p_holm"] for each in versus["sets"].values()] == pytest.approx(
        multipletests(p_values, method="holm")[1]
    )
    wins = [each["better"] for each in versus["sets"].values()]
    assert versus["wins_of_b"] == wins.count("other")
    assert versus["no_difference_shown"] == wins.count(None)


@pytest.mark.usefixtures("one_process")
def test_rows_are_compared_as_bertune_compare_does(suite, other, tmp_path):
    """One seed: difference, interval and p are those of `bertune compare` on the same two models."""
    for name, task in (("mood", "classify"), ("near", "regress"), ("spans", "tag")):
        out = tmp_path / name
        result = bertune.bench(
            suite.settings(sets={name: suite.set(task)}, seeds=[5]),
            ["train.learning_rate=1e-3"],
            models=[suite.model, other],
            out=out,
            keep_models=True,
        )
        folders = [out / "runs" / model / name / "seed-5" for model in ("tiny", "other")]
        own = bertune.compare(folders, suite.files[task], precision="fp32")
        (versus,) = result.versus
        (each,) = versus.sets
        (pair,) = each.rows.values()
        main, by_compare = pair.main, own.pairs[0].main
        assert main.difference == pytest.approx(by_compare.difference, abs=1e-5)
        assert main.interval == pytest.approx(by_compare.interval, abs=1e-3)
        assert main.p_value == pytest.approx(by_compare.p_value, abs=1e-3)
        assert (each.p_value, each.interval) == (main.p_value, main.interval)
        assert each.kind == "rows"
        assert pair.per_label == own.pairs[0].per_label
        assert pair.mcnemar == own.pairs[0].mcnemar
        assert len(read_predictions(folders[0].with_name("seed-5.predictions.jsonl.gz"))) == own.num_rows


@pytest.mark.usefixtures("one_process")
def test_settings_are_compared_with_the_base(suite):
    code, out, said = suite.call(
        suite.file(seeds=[1]), "-o", suite.out, "--compare", "train.learning_rate=1e-3 train.max_steps=4"
    )
    assert code == 0, said
    assert "A tiny, B train.learning_rate=1e-3 train.max_steps=4" in out
    found = suite.json()
    models = found["sets"]["mood"]["models"]
    steps = [model["seeds"]["1"]["run"]["steps"] for model in models.values()]
    assert steps == [3, 4]
    assert "verdict: B is better on " in out


@pytest.mark.usefixtures("one_process")
def test_all_tasks_are_compared_and_kept_models_stay(suite, other, write):
    """Several labels a row, pairs with scores, vectors: with a test of dev rows where values are kept."""
    related = [{"text": f"the {a}", "text_b": f"a {a}"} for a in NOUNS] * 4
    many = [{"text": row["text"], "label": [row["label"], "all"]} for row in ROWS]
    sets = {
        "many": suite.set(data={"train": write("m.jsonl", many), "dev": write("m2.jsonl", many)}),
        "near": {**suite.set("regress"), "task": "match"},
        "found": suite.set(
            "embed", data={"train": write("e.jsonl", related), "dev": write("e2.jsonl", related)}
        ),
        "split": suite.set(data={"dev": None, "dev_fraction": 0.3}),
    }
    models = [suite.model, str(other)]
    result = bertune.bench(suite.settings(sets=sets), models=models, out=suite.out, keep_models=True)
    assert not result.failed
    (versus,) = result.versus
    by_name = {each.name: each for each in versus.sets}
    assert [len(by_name[name].rows) for name in ("many", "near", "found", "split")] == [2, 2, 0, 2]
    kept = len(list(suite.out.rglob("model.safetensors")))
    bertune.bench(suite.settings(sets=sets), models=models, out=suite.out)
    assert len(list(suite.out.rglob("model.safetensors"))) == kept > 0


def glue_folder(root, *names, test_rows=0):
    """A folder with sets of GLUE, of a few rows, and a test file with as many as the official one."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        labels = ["entailment", "not_entailment"]
        rows = [
            f"{i}\tthe {n}\ta {w}\t{labels[i % 2]}" for i, (n, w) in enumerate(zip(NOUNS, WORDS, strict=True))
        ]
        header = "index\tsentence1\tsentence2\tlabel"
        for split in ("train", "dev", "dev_matched", "dev_mismatched"):
            (folder / f"{split}.tsv").write_text("\n".join([header, *rows]) + "\n")
        lines = [f"{i}\tthe {NOUNS[i % 6]}\ta cat" for i in range(test_rows)]
        (folder / "test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *lines]) + "\n")
    return root


@pytest.mark.usefixtures("one_process")
def test_named_sets_and_files_for_a_leaderboard(suite, tmp_path):
    root = glue_folder(tmp_path / "glue", "RTE", test_rows=3000)
    words = [
        "glue",
        "--root",
        root,
        "--sets",
        "rte,wnli",
        "--model",
        suite.model,
        "-o",
        suite.out,
        "--submit",
    ]
    code, out, said = suite.call(*words, "--seeds", "1,2", "train.max_steps=2", "--keep-models")
    assert code == 0, said
    assert f"not run: glue:wnli: WNLI/train.tsv is not in {root}" in out
    assert "submission: glue:rte: of seed" in said
    assert "missing: AX.tsv, CoLA.tsv" in said
    seed = 1 + ("of seed 2" in said)
    folder = suite.out / "runs" / "tiny" / "glue-rte" / f"seed-{seed}"
    by_predict = CliRunner().invoke(
        app,
        [
            "predict",
            str(folder),
            "glue:rte",
            f"data.root={root}",
            "--format",
            "leaderboard",
            "-o",
            str(tmp_path),
        ],
    )
    assert by_predict.exit_code == 0, by_predict.stderr
    written = (suite.out / "submission" / "tiny" / "RTE.tsv").read_text()
    assert written == (tmp_path / "RTE.tsv").read_text()
    lines = written.splitlines()
    assert (len(lines), lines[0]) == (3001, "index\tprediction")
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}
    assert suite.json()["sets"]["glue:wnli"]["why_not"]
    assert suite.json()["sets"]["glue:rte"]["published"]


def test_rows_of_one_training_file_are_trained_on_once(suite, tmp_path):
    root = glue_folder(tmp_path / "glue", "MNLI", "RTE")
    choose = {"overrides": ["data.labels=null"], "models": [suite.model], "root": root}

    def plan_of(sets):
        empty = {"seeds": None, "compare": [], "out": suite.out}
        return make_plan(BenchRequest.of("glue", **choose, **empty, sets=sets), lambda _: None)

    plan = plan_of(None)
    assert [data.name for data in plan.runnable] == ["glue:mnli", "glue:rte"]
    reasons = {data.name: data.why_not for data in plan.sets}
    assert reasons["glue:mnli-mm"] == "trains on the rows of glue:mnli; name both in --sets to run it too"
    assert len(reasons) == plan.size
    assert plan.seeds == (1, 2, 3)
    own = {"sets": {"rte": {"set": "glue:rte", "data": {"root": str(root)}}, "mood": suite.set()}}
    mixed = make_plan(
        BenchRequest.of(
            suite.settings(**own), [], models=[], root=None, seeds=None, sets=None, compare=[], out=suite.out
        ),
        lambda _: None,
    )
    assert mixed.sets[0].settings["data"]["train"] == plan.sets[8].settings["data"]["train"]
    assert mixed.sets[1].settings["data"]["train"] == suite.files["classify"]
    both = plan_of("mnli,mnli-mm")
    assert [data.name for data in both.runnable] == ["glue:mnli", "glue:mnli-mm"]
    assert next(data.boards for data in plan.runnable) == ("glue:mnli", "glue:mnli-mm", "glue:ax")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
def test_killed_and_gone_on_with(suite, tmp_path):
    """Wherever it is killed, the same command ends with the numbers of a bench that nobody stopped."""
    task = tmp_path / "slow.py"
    task.write_text(
        "import time\nfrom bertune.tasks.classify import Classify\n"
        "class Slow(Classify):\n    '''Takes its time.'''\n"
        "    def loss(self, *args, **kwargs):\n        time.sleep(0.1)\n"
        "        return super().loss(*args, **kwargs)\n"
    )
    sets = {"mood": {**suite.set(), "task": str(task)}}
    settings = {"train": {"precision": "fp32", "batch_size": 4, "epochs": 4, "checkpoint_every": 2}}
    file = suite.file(sets=sets, settings=settings)
    command = [sys.executable, "-m", "bertune", "bench", str(file), "-o", str(suite.out)]
    folder = suite.out / "runs" / "tiny" / "mood" / "seed-1"
    process = subprocess.Popen([*command, "-q"])
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*/state*")) and not list(folder.glob("checkpoints/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "went on after a stop" in done.stderr
    whole = bertune.bench(str(file), out=tmp_path / "whole")
    for name, each in suite.json()["sets"]["mood"]["models"]["tiny"]["seeds"].items():
        record = whole.results["mood", "tiny"].records[int(name)]
        assert each["scores"] == record.to_json()["scores"]
        assert each["run"]["steps"] == record.summary["steps"]
    assert not list(suite.out.rglob("*.part*"))
    assert not list(suite.out.rglob("checkpoints"))


def test_ctrl_c_says_how_to_go_on(suite, tmp_path):
    sets = {"mood": suite.set()}
    file = suite.file(sets=sets, settings={"train": {"epochs": 500, "precision": "fp32"}}, seeds=[1])
    command = [sys.executable, "-m", "bertune", "bench", str(file), "-o", str(suite.out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    history = suite.out / "runs" / "tiny" / "mood" / "seed-1" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not (history.is_file() and history.stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"go on with the same command: bertune bench {file} -o {suite.out}" in said
    assert list(history.parent.glob("checkpoints/*"))
