"""Runs whose data is kept on disk: the same results, whole entries only, keys that know everything, memory that does not grow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.data.test_example_store import TASKS, sentence

import bertune
from bertune.console import Console
from bertune.data import arrow, dataset_cache, example_store
from bertune.data.example_store import ExampleWriter
from bertune.data.mapped_dataset import DatasetWriter
from bertune.errors import BertuneError, ConfigError, DataError
from bertune.tasks.base import datasets
from bertune.tasks.base.datasets import ProgressReporter, _open, uses_cache
from bertune.text import workers


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(example_store, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(datasets, "CHUNK_SIZE", 5)
    monkeypatch.setattr(arrow, "RELEASE_THRESHOLD", 1 << 12)
    return tmp_path / "cache"


@pytest.fixture
def said(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(Console, "info", lambda self, line: lines.append(line))
    return lines


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(task: str, file: Path, tiny: Path, out: Path, *more: str) -> dict:
    """Train a little; return everything that must not depend on the cache."""
    settings = [
        f"model={tiny}",
        f"data.train={file}",
        f"out={out}",
        "train.max_steps=4",
        "train.batch_size=8",
        "train.eval_every=2",
        "data.workers=1",
    ]
    bertune.train(task, [*settings, *more])
    scores = json.loads((out / "scores.json").read_text())
    return {
        "weights": (out / "model.safetensors").read_bytes(),
        "meta": json.loads((out / "bertune.json").read_text()),
        "dev": scores["dev"],
    }


def names(place: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in place.iterdir())


@pytest.mark.parametrize("name", TASKS)
def test_the_cache_changes_nothing(name, tiny, tmp_path, place, said):
    task, rows, settings = TASKS[name]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    notes, results = [], []
    for n, how in enumerate(("off", "on", "on")):
        said.clear()
        results.append(train(task, file, tiny, tmp_path / f"out{n}", f"data.cache={how}", *settings))
        notes.append(
            [
                line
                for line in said
                if line.startswith(("data:", "task:", "rows:"))
                and "cache" not in line
                and "rows/s" not in line
            ]
        )
        assert place.exists() == (how == "on")
    assert any("rows and what was learned from them come from the cache" in line for line in said)
    assert any("tokens come from the cache" in line for line in said)
    assert names(place) == ["rows", "tokens"]
    assert results[0] == results[1] == results[2]
    assert notes[0] == notes[1] == notes[2]


OWN_TASKS = {
    "nothing of its own": ("    pass\n", True),
    "fit": (
        "    def fit(self, examples, note):\n        super().fit(examples, note)\n        self.extra = len(examples)\n",
        False,
    ),
    "init": (
        "    def __init__(self, options, data):\n        super().__init__(options, data)\n        self.seen = []\n\n"
        "    def fit(self, examples, note):\n        super().fit(examples, note)\n        self.seen.append(len(examples))\n",
        False,
    ),
    "read": (
        "    def read(self, row):\n        self.longest = max(getattr(self, 'longest', 0), len(row.fields['text']))\n"
        "        return super().read(row)\n",
        False,
    ),
    "fit and state": (
        "    def fit(self, examples, note):\n        super().fit(examples, note)\n        self.extra = len(examples)\n\n"
        "    def state(self):\n        return {**super().state(), 'extra': self.extra}\n\n"
        "    def load_state(self, state):\n        super().load_state(state)\n        self.extra = state['extra']\n",
        True,
    ),
}
"""Bodies of tasks, and whether their state holds all that they learn."""


@pytest.mark.parametrize("name", OWN_TASKS)
def test_a_task_of_your_own_learns_again(name, tiny, tmp_path, place, said):
    """Unless its state holds all that it learns, rows are read again; its tokens come from the cache."""
    body, is_complete = OWN_TASKS[name]
    mine = tmp_path / "mine.py"
    mine.write_text(f"from bertune.tasks import classify\n\n\nclass Mine(classify.Classify):\n{body}")
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    off = train(str(mine), file, tiny, tmp_path / "a", "data.cache=off")
    for out in ("b", "c"):
        said.clear()
        on = train(str(mine), file, tiny, tmp_path / out, "data.cache=on")
        assert on["weights"] == off["weights"]
    assert (
        any("rows and what was learned from them come from the cache" in line for line in said) == is_complete
    )
    assert any("tokens come from the cache" in line for line in said)
    assert names(place) == ["rows", "tokens"]
    mine.write_text(mine.read_text() + "# changed\n")
    train(str(mine), file, tiny, tmp_path / "d", "data.cache=on")
    assert len(list(place.iterdir())) == 4


def test_auto_is_for_large_files(tiny, tmp_path, place, monkeypatch):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    first = train("classify", file, tiny, tmp_path / "a")
    assert not place.exists()
    monkeypatch.setattr(datasets, "CACHE_THRESHOLD", 100)
    assert train("classify", file, tiny, tmp_path / "b")["weights"] == first["weights"]
    assert names(place) == ["rows", "tokens"]


def test_several_processes_tokenise_the_same(tiny, tmp_path, place, monkeypatch):
    monkeypatch.setattr(workers, "MIN_TEXTS", 4)
    for name in ("classify", "tag", "embed"):
        task, rows, settings = TASKS[name]
        file = write_rows(tmp_path / f"{name}.jsonl", rows)
        one = train(task, file, tiny, tmp_path / f"{name}1", "data.cache=on", *settings)
        shutil.rmtree(place)
        three = train(task, file, tiny, tmp_path / f"{name}3", "data.cache=on", "data.workers=3", *settings)
        assert one["weights"] == three["weights"]


def test_a_process_that_ends_is_done_without(tiny, monkeypatch):
    from bertune.config.schema import DataConfig
    from bertune.text.load import load_tokenizer

    tokenizer = load_tokenizer(tiny, 64, DataConfig())
    texts = [(sentence(n),) for n in range(900)]
    said: list[str] = []
    with workers.parallel_tokenizer(tokenizer, 3, said.append) as parallel:
        right = [list(p.input_ids) for p in tokenizer.encode(texts)]
        assert [list(p.input_ids) for p in parallel.encode(texts)] == right
        assert said == []
        parallel._workers[0]._process.kill()
        assert [list(p.input_ids) for p in parallel.encode(texts)] == right
        assert len(said) == 1
        assert [list(p.input_ids) for p in parallel.encode(texts)] == right
        assert parallel.max_token_id == tokenizer.max_token_id


@pytest.mark.parametrize(
    "change",
    ["content", "name", "columns", "seed", "options", "dev_fraction", "max_length", "tokenizer", "labels"],
)
def test_the_key_knows_what_matters(change, tiny, tmp_path, place):
    rows = TASKS["classify"][1]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    before = ["data.cache=on", f"data.labels={labels}"]
    train("classify", file, tiny, tmp_path / "a", *before)
    there = set(place.iterdir())
    more, model = [], tiny
    if change == "content":
        write_rows(file, [{**rows[0], "text": "another text"}, *rows[1:]])
    elif change == "name":
        file = file.rename(tmp_path / "other.jsonl")
    elif change == "labels":
        labels.write_text("b\na\n")
    elif change == "tokenizer":
        model = tmp_path / "model"
        shutil.copytree(tiny, model)
        made = json.loads((model / "tokenizer.json").read_text())
        made["added_tokens"].append(
            {
                "id": 5,
                "content": '"',
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": True,
                "special": False,
            }
        )
        (model / "tokenizer.json").write_text(json.dumps(made))
    else:
        more = {
            "columns": ["data.columns.label=label"], "seed": ["seed=7"], "options": ["options.label_smoothing=0.1"], "dev_fraction": ["data.dev_fraction=0.3"],
            "max_length": ["data.max_length=5"],
        }[change]  # fmt: skip
    right = train("classify", file, model, tmp_path / "right", *before, *more, "data.cache=off")
    assert train("classify", file, model, tmp_path / "b", *before, *more)["weights"] == right["weights"]
    new = names_of(set(place.iterdir()) - there)
    assert new == (["tokens"] if change in {"max_length", "tokenizer"} else ["rows", "tokens"])


def names_of(paths: set[Path]) -> list[str]:
    return sorted(path.name.split("-")[0] for path in paths)


def test_settings_that_do_not_matter_share_an_entry(tiny, tmp_path, place):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    train(
        "classify",
        file,
        tiny,
        tmp_path / "b",
        "data.cache=on",
        "train.learning_rate=1e-4",
        "data.workers=2",
        "log.every=1",
    )
    assert names(place) == ["rows", "tokens"]


@pytest.mark.parametrize(
    "fault", ["cut", "bit", "missing", "manifest", "empty manifest", "no manifest", "format", "list"]
)
@pytest.mark.parametrize("kind", ["rows", "tokens"])
def test_a_damaged_entry_is_said_and_made_anew(fault, kind, tiny, tmp_path, place, said):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    right = train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    (entry,) = place.glob(f"{kind}-*")
    victim = next(entry.glob("train.*.arrow"))
    manifest = entry / "manifest.json"
    content = victim.read_bytes()
    if fault == "cut":
        victim.write_bytes(content[:-100])
    elif fault == "bit":
        middle = len(content) // 2
        victim.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    elif fault == "missing":
        victim.unlink()
    elif fault == "no manifest":
        manifest.unlink()
    elif fault == "format":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 0}))
    else:
        manifest.write_text(
            {"manifest": manifest.read_text()[:50], "empty manifest": "", "list": "[1]"}[fault]
        )
    said.clear()
    assert train("classify", file, tiny, tmp_path / "b", "data.cache=on") == right
    assert sum("is damaged" in line for line in said) == 1
    said.clear()
    train("classify", file, tiny, tmp_path / "c", "data.cache=on")
    assert not any("is damaged" in line for line in said)
    assert names(place) == ["rows", "tokens"]


def test_bad_rows_leave_nothing_behind(tiny, tmp_path, place):
    file = write_rows(tmp_path / "rows.jsonl", [*TASKS["classify"][1], {"text": " ", "label": "a"}])
    for how in ("on", "off"):
        with pytest.raises(DataError, match=r"rows.jsonl:61: 'text' is empty"):
            train("classify", file, tiny, tmp_path / how, f"data.cache={how}")
    assert list(place.iterdir()) == []


def test_a_folder_that_cannot_be_written(tiny, tmp_path, place):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    place.write_text("a file where the folder should be")
    with pytest.raises(
        ConfigError,
        match=r"data\.cache: .* cannot be written: .*; set data\.cache=off, or the environment variable BERTUNE_CACHE",
    ):
        train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    place.unlink()


@pytest.mark.parametrize("where", ["rows", "tokens"])
def test_a_full_disk(where, tiny, tmp_path, place, monkeypatch):
    import errno

    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((ExampleWriter, "_flush") if where == "rows" else (DatasetWriter, "_put")), full)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device; set data\.cache=off"):
        train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    assert all(not path.name.endswith(".part") for path in place.iterdir())


RUN = "import sys, bertune\nbertune.train(sys.argv[1], sys.argv[2:], quiet=True)\n"


def test_runs_at_once_do_not_harm_each_other(tiny, tmp_path, place):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    right = train("classify", file, tiny, tmp_path / "right", "data.cache=off")
    settings = [
        f"model={tiny}",
        f"data.train={file}",
        "train.max_steps=4",
        "train.batch_size=8",
        "train.eval_every=2",
        "data.cache=on",
    ]
    runs = [
        subprocess.Popen([sys.executable, "-c", RUN, "classify", *settings, f"out={tmp_path / str(n)}"])
        for n in range(3)
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    for n in range(3):
        assert (tmp_path / str(n) / "model.safetensors").read_bytes() == right["weights"]
    assert names(place) == ["rows", "tokens"]


def test_the_second_to_finish_takes_the_entry_of_the_first(place):
    with dataset_cache.create_entry("rows", "k") as one, dataset_cache.create_entry("rows", "k") as two:
        (one / "x").write_text("1")
        (two / "x").write_text("1")
        first = dataset_cache.commit_entry(one, "rows", "k", {}, {"who": 1})
        second = dataset_cache.commit_entry(two, "rows", "k", {}, {"who": 2})
    assert first == second
    assert [path.name for path in place.iterdir()] == ["rows-k"]
    assert dataset_cache.find_entry("rows", "k", print).meta == {"who": 1}


def test_a_killed_run_leaves_nothing_that_counts(tiny, tmp_path, place, said):
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    with dataset_cache.create_entry("rows", "killed") as part:
        (part / "train.examples.arrow").write_bytes(b"half")
        shutil.copytree(part, part.with_name("rows-killed.1-0.part"), dirs_exist_ok=True)
    train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    assert not any("damaged" in line for line in said)
    unfinished = [entry for entry in dataset_cache.list_entries() if not entry.manifest]
    assert [entry.path.name for entry in unfinished] == ["rows-killed.1-0.part"]
    assert len(dataset_cache.remove_entries()) == 2  # the unfinished one may belong to a run that is going on
    os.utime(unfinished[0].path / "train.examples.arrow", (1, 1))
    os.utime(unfinished[0].path, (1, 1))
    assert [entry.path.name for entry in dataset_cache.remove_entries()] == ["rows-killed.1-0.part"]
    assert list(place.iterdir()) == []


def test_evaluate_keeps_large_files_on_disk(tiny, tmp_path, place, monkeypatch):
    for name in ("classify", "tag", "match", "embed"):
        task, rows, settings = TASKS[name]
        file = write_rows(tmp_path / f"{name}.jsonl", rows)
        train(task, file, tiny, tmp_path / name, *settings)
        here = bertune.evaluate(tmp_path / name, str(file), precision="fp32")
        with monkeypatch.context() as patch:
            patch.setattr(datasets, "CACHE_THRESHOLD", 100)
            there = bertune.evaluate(tmp_path / name, str(file), precision="fp32")
        assert (here.scores, here.num_truncated_rows) == (there.scores, there.num_truncated_rows)
        assert here.loss == there.loss or here.loss != here.loss
        assert not place.exists() or list(place.iterdir()) == []


def test_rates_are_said(tiny, tmp_path, said, monkeypatch):
    monkeypatch.setattr(ProgressReporter, "INTERVAL", 0.0)
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    text = "\n".join(said)
    for line in (
        "data: train: 14 rows read",
        "60 rows read and checked in",
        "data: train: 54 rows tokenised in",
        "rows/s",
        "of 54 rows tokenised",
    ):
        assert line in text, line


def test_hub_data_is_left_to_datasets(tiny, said):
    from bertune.config.schema import DataConfig

    assert not uses_cache(DataConfig(cache="on"), [["hub:glue/cola"]], Console())
    assert "no effect on data sets of a hub" in said[0]


PEAK = """
import resource, sys, bertune
from bertune.cli import main
bertune  # imports nothing yet
import atexit
atexit.register(lambda: print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_does_not_grow_with_the_rows(tiny, tmp_path, place):
    peaks: dict[str, list[int]] = {"train": [], "warm": [], "predict": [], "evaluate": []}
    for rows in (3_000, 60_000):
        file = tmp_path / f"{rows}.jsonl"
        with file.open("w") as out:
            for n in range(rows):
                out.write(
                    json.dumps({"text": f"{sentence(n * 7)} {n} and {sentence(n, 60)}", "label": "ab"[n % 2]})
                    + "\n"
                )
        dev = write_rows(
            tmp_path / "dev.jsonl", [{"text": sentence(n), "label": "ab"[n % 2]} for n in range(50)]
        )
        settings = [
            "train",
            "classify",
            f"model={tiny}",
            f"data.train={file}",
            f"data.dev={dev}",
            "train.max_steps=100",
            "data.cache=on",
            "data.workers=1",
        ]
        commands = {
            "train": [*settings, f"out={tmp_path / f'a{rows}'}"],
            "warm": [*settings, f"out={tmp_path / f'b{rows}'}"],
            "predict": ["predict", str(tmp_path / f"a{rows}"), str(file), "-o", str(tmp_path / "p.csv")],
        }
        for what, command in commands.items():
            run = subprocess.run(
                [sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True
            )
            peaks[what].append(int(run.stdout.split("peak")[1]))
    for what in commands:
        assert peaks[what][1] < 1.1 * peaks[what][0], peaks


def test_clearing_while_a_run_reads(tiny, tmp_path, place):
    """On Windows files that are open stay; elsewhere a run that has opened them goes on."""
    file = write_rows(tmp_path / "rows.jsonl", TASKS["classify"][1])
    train("classify", file, tiny, tmp_path / "a", "data.cache=on")
    (entry,) = place.glob("rows-*")
    examples = _open(dataset_cache.find_entry("rows", entry.name.split("-")[1], print), "train")
    right = list(examples)
    if sys.platform != "win32":
        dataset_cache.remove_entries()
        assert list(examples) == right


def test_old_entries(place):
    for key, age in (("new", 0), ("old", 3 * 86400)):
        with dataset_cache.create_entry("tokens", key) as part:
            (part / "x").write_text("1")
            dataset_cache.commit_entry(part, "tokens", key, {}, {})
        manifest = json.loads((place / f"tokens-{key}" / "manifest.json").read_text())
        (place / f"tokens-{key}" / "manifest.json").write_text(
            json.dumps({**manifest, "made": time.time() - age})
        )
    assert [entry.path.name for entry in dataset_cache.list_entries()] == ["tokens-new", "tokens-old"]
    assert [entry.path.name for entry in dataset_cache.remove_entries(2 * 86400)] == ["tokens-old"]
    assert [path.name for path in place.iterdir()] == ["tokens-new"]


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert dataset_cache.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("BERTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert dataset_cache.cache_dir() == tmp_path / "xdg" / "bertune"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert dataset_cache.cache_dir() == Path.home() / "Library" / "Caches" / "bertune"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert dataset_cache.cache_dir() == tmp_path / "local" / "bertune" / "cache"


def test_errors_are_ours(tiny, tmp_path):
    with pytest.raises(BertuneError, match="no such file"):
        train("classify", tmp_path / "nothing.csv", tiny, tmp_path / "a", "data.cache=on")
