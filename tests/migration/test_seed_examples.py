"""Every example of a reference runs: a few steps of a tiny encoder, on made rows in its format."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tests.chinesebert_folder import write_folder

import bertune
from bertune.config.load import read_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("seed-*.yaml"))
WORDS = ("good", "bad", "dog", "cat", "tree", "house", "red", "blue")
TAGS = ("O", "B-PER", "I-PER", "S-LOC")
ROWS = 24


def sentence(number: int) -> str:
    words = itertools.islice(itertools.cycle(WORDS), number % 8, number % 8 + 3 + number % 4)
    return f"{' '.join(words)} {number}"


def labels_of(settings: dict[str, Any]) -> list[Any]:
    """Labels of the rows: those of the settings, numbers to regress, or two or three classes."""
    given = settings["data"].get("labels")
    if isinstance(given, list):
        return given
    if settings["task"] == "regress":
        return [0.5, 2.0, 4.5]
    return (
        ["entailment", "neutral", "contradiction"]
        if "nli" in settings["data"]["train"].lower()
        else ["0", "1"]
    )


def tagging_file(file: Path) -> None:
    """JSON lines of characters and tags."""
    tags = [("O", "O", "B-PER", "I-PER"), ("S-LOC", "O", "O", "O")]
    rows = [{"text": list("ab天地"), "label": list(tags[number % 2])} for number in range(ROWS)]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def table_file(file: Path, columns: list[str], labels: list[Any]) -> None:
    """Lines of columns with tabs between them, and no header, as in bertorch and in GLUE's CoLA."""
    lines = []
    for number in range(ROWS):
        cells = {"text": sentence(number), "text_b": sentence(number + number % 3), "_": "x"}
        cells["label"] = str(labels[number % len(labels)])
        lines.append("\t".join(cells[column] for column in columns))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def named_file(file: Path, columns: dict[str, str], labels: list[Any]) -> None:
    """JSON lines with the columns of a run."""
    rows = [
        {
            column: labels[number % len(labels)] if field == "label" else sentence(number + len(field))
            for field, column in columns.items()
        }
        for number in range(ROWS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_files(settings: dict[str, Any], folder: Path) -> list[str]:
    """Write the data of a run in its own format; return what to override."""
    data, task, labels = settings["data"], settings["task"], labels_of(settings)
    columns = data.get("columns")
    overrides = []
    for split in ("train", "dev", "test"):
        if split not in data:
            continue
        end = Path(data[split]).suffix if ":" not in data[split] else ".jsonl"
        file = folder / f"{split}{end or '.json'}"
        if task == "tag":
            tagging_file(file)
        elif task == "embed":
            count = 3 if split == "dev" else 1 if "wiki" in data[split] else 2
            table_file(file, columns[:count], [0, 3, 5])
        elif isinstance(columns, list):
            table_file(file, columns, labels)
        else:
            named_file(file, columns or {"text": "text", "label": "label"}, labels)
        overrides.append(f"data.{split}={file}")
    if isinstance(data.get("labels"), str):
        names = TAGS if task == "tag" else labels
        (folder / "labels.txt").write_text("\n".join(map(str, names)) + "\n", encoding="utf-8")
        overrides.append(f"data.labels={folder / 'labels.txt'}")
    return overrides


def first_stage(folder: Path, encoder: Path) -> Path:
    """A model of in-batch negatives, which the second stage begins with."""
    table_file(folder / "first.txt", ["text", "text_b"], [0])
    overrides = [f"data.train={folder / 'first.txt'}", "data.columns=[text,text_b]", "data.dev_fraction=0"]
    settings = {"task": "embed", "model": str(encoder), "options": {"pooling": "pooler"}}
    return bertune.train(
        settings,
        [*overrides, f"out={folder / 'first'}", "train.max_steps=1", "data.max_length=32"],
        quiet=True,
    ).folder


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs(file, tiny, tmp_path):
    settings = read_config(file)
    encoder = write_folder(tmp_path / "encoder") if "glyphs" in settings["train"] else tiny
    encoder = first_stage(tmp_path, tiny) if "stage2" in file.stem else encoder
    overrides = [
        *write_files(settings, tmp_path),
        *(
            f"model={encoder}",
            f"out={tmp_path / 'out'}",
            "data.max_length=32",
            "log.trackers=[]",
            "device=cpu",
        ),
        *("train.max_steps=2", "train.batch_size=8", "train.micro_batches=1"),
    ]
    result = bertune.train(file, overrides, quiet=True)
    assert (result.folder / "model.safetensors").exists()
    assert result.scores is None or result.scores.values


SENTENCES = "--train_data_file train.txt --dev_data_file dev.txt"


@pytest.mark.parametrize(
    "command",
    [
        f"run_sentencebert.py {SENTENCES} --pooling_mode mean --concat_multiply",
        f"run_simcse.py {SENTENCES.replace('train.txt', 'wiki.txt')} --pooling_mode cls",
        f"run_batchneg.py {SENTENCES} --pooling_mode mean --output_emb_size 16 --mean_loss",
    ],
)
def test_other_ways_of_pooling_run(command, tiny, tmp_path):
    """Where no layer follows pooling, no rate is set for it."""
    settings = bertune.convert(f"python {command} --batch_size 8").settings
    overrides = [*write_files(settings, tmp_path), f"model={tiny}", f"out={tmp_path / 'out'}"]
    bertune.train(settings, [*overrides, "data.max_length=32", "train.max_steps=2"], quiet=True)
    assert (tmp_path / "out" / "scores.json").exists()
