"""Every kind of bad input: exit code 2, one line that names file, line, what was found and what is allowed, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertune.cli.app import app

GOOD = "text,label\n" + "".join(
    f"the dog is {w} {n},{label}\n" for n in range(6) for w, label in (("good", "pos"), ("bad", "neg"))
)
TSV = GOOD.replace(",", "\t")


@pytest.fixture
def bench(tmp_path, monkeypatch, tiny):
    """Run the command line in an empty folder; return exit code, stdout, and the last line of stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, files: dict[str, str | bytes] | None = None):
        for name, content in (files or {}).items():
            Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        before = sorted(os.listdir())
        found = CliRunner().invoke(app, [w.replace("TINY", str(tiny)) for w in words])
        return found.exit_code, found.stderr.strip().splitlines(), sorted(os.listdir()) == before

    return run


XLSX = b"PK\x03\x04\x14\x00[Content_Types].xml<x/>PK\x03\x04xl/workbook.xml"
CASES = {
    "missing file": ({}, ["data.train=train.csv"], ["train.csv: no such file"]),
    "missing file, near miss": ({"trian.csv": GOOD}, ["data.train=train.csv"], ["no such file", "did you mean 'trian.csv'"]),
    "folder for a file": ({}, ["data.train=."], ["is a folder"]),
    "unknown format": ({"rows.xlsx": GOOD}, ["data.train=rows.xlsx"], ["rows.xlsx: cannot tell the format", "csv, tsv, json"]),
    "missing text column": ({"t.csv": GOOD.replace("text,", "words,", 1)}, ["data.train=t.csv"], ["no column for 'text'", "'words', 'label'"]),
    "missing label column": ({"t.csv": GOOD.replace(",label", ",kind", 1)}, ["data.train=t.csv"], ["no column for 'label'", "'text', 'kind'"]),
    "mapped column not there": ({"t.csv": GOOD}, ["data.train=t.csv", "data.columns={text: review}"], ["no column 'review'", "'text', 'label'"]),
    "mapped part not there": ({"t.csv": GOOD}, ["data.train=t.csv", "data.columns={txt: text}"], ["'txt' is not a field", "did you mean 'text'"]),
    "empty file": ({"t.csv": ""}, ["data.train=t.csv"], ["t.csv: holds no rows"]),
    "header only": ({"t.csv": "text,label\n"}, ["data.train=t.csv"], ["t.csv: holds no rows"]),
    "too few columns": ({"t.csv": GOOD + "alone\n"}, ["data.train=t.csv"], ["t.csv:14: 1 columns where 2 are expected (text, label)"]),
    "too many columns": ({"t.csv": GOOD + "a,b,c\n"}, ["data.train=t.csv"], ["t.csv:14: 3 columns where 2 are expected (text, label)"]),
    "empty text": ({"t.csv": GOOD + ' ,pos\n'}, ["data.train=t.csv"], ["t.csv:14: 'text' is empty"]),
    "missing label": ({"t.csv": GOOD + "a dog,\n"}, ["data.train=t.csv"], ["t.csv:14: 'label' is missing"]),
    "several bad rows": ({"t.csv": GOOD + ",pos\na dog,\n,neg\n"}, ["data.train=t.csv"], ["t.csv:14: 'text' is empty", "and 2 more bad rows: t.csv:15, t.csv:16"]),
    "unknown label in dev": (
        {"t.csv": GOOD, "d.csv": "text,label\na dog,pos\na cat,posi\n"},
        ["data.train=t.csv", "data.dev=d.csv"],
        ["d.csv:3: label 'posi' is not among the 2 labels", "'neg', 'pos'", "did you mean 'pos'"],
    ),
    "unknown label in test": (
        {"t.csv": GOOD, "d.csv": "text,label\na cat,other\n"}, ["data.train=t.csv", "data.test=d.csv"], ["d.csv:2: label 'other'"],
    ),
    "a pair in dev": (
        {"t.csv": GOOD, "d.csv": "text,text_b,label\na cat,a dog,pos\n"},
        ["data.train=t.csv", "data.dev=d.csv"],
        ["d.csv:2: a pair of texts, where the training rows have a single text"],
    ),
    "one label only": ({"t.csv": "text,label\na,x\nb,x\n"}, ["data.train=t.csv"], ["all 2 rows have the label 'x'", "at least two"]),
    "mixed types": ({"t.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": "no"}\n'}, ["data.train=t.jsonl"], ["t.jsonl:2: the label is text ('no'), but a number at t.jsonl:1"]),
    "text is no text": ({"t.jsonl": '{"text": ["a"], "label": 1}\n'}, ["data.train=t.jsonl"], ["t.jsonl:1: 'text' must be text, got list"]),
    "list as single label": (
        {"t.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": ["y"]}\n'}, ["data.train=t.jsonl"], ["t.jsonl:2: 'label' must be one label, got list"],
    ),
    "broken JSON line": ({"t.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", \n'}, ["data.train=t.jsonl"], ["t.jsonl:2: broken JSON"]),
    "JSON line is no object": ({"t.jsonl": '{"text": "a", "label": "x"}\n[1]\n'}, ["data.train=t.jsonl"], ["t.jsonl:2: expected a JSON object"]),
    "broken JSON array": ({"t.json": '[{"text": "a", "label": "x"},\n {"text"]'}, ["data.train=t.json"], ["t.json:2: broken JSON"]),
    "wrong encoding": ({"t.csv": GOOD.encode() + "很好,pos\n".encode("gb18030")}, ["data.train=t.csv"], ["t.csv:14: not utf-8 text", "data.encoding=gb18030"]),
    "UTF-8 read as something else": (
        {"t.csv": GOOD + "天很好,pos\n"}, ["data.train=t.csv", "data.encoding=gb18030"], ["t.csv:14: ", "not gb18030", "set data.encoding=utf-8"],
    ),
    "header where none is expected": (
        {"t.csv": "id,text,label\n" + GOOD}, ["data.train=t.csv", "data.columns=[text,label]"], ["t.csv:1: 3 columns where 2", "data.columns=null"],
    ),
    "unknown encoding": ({"t.csv": GOOD}, ["data.train=t.csv", "data.encoding=utf-9"], ["data.encoding: 'utf-9' is not an encoding"]),
    "broken quotation": ({"t.csv": GOOD + '"a dog" x,pos\n'}, ["data.train=t.csv"], ["t.csv:14: broken quotation", "data.quoting=none"]),
    "tabs, not semicolons": (
        {"t.csv": TSV}, ["data.train=t.csv", "data.columns=[text,label]", "data.delimiter=semicolon"],
        ["t.csv: no line is divided by semicolons (data.delimiter), but by tabs; set data.delimiter=tab"],
    ),
    "tabs, not semicolons, with a header": (
        {"t.csv": TSV}, ["data.train=t.csv", "data.delimiter=semicolon"],
        ["t.csv: no line is divided by semicolons (data.delimiter), but by tabs; set data.delimiter=tab"],
    ),
    "a workbook": ({"t.csv": XLSX}, ["data.train=t.csv"], ["t.csv: is an Excel workbook (xlsx); save the sheet as csv"]),
    "damaged gzip": ({"t.csv.gz": b"not gzip"}, ["data.train=t.csv.gz"], ["t.csv.gz: the compressed file is damaged"]),
    "damaged parquet": ({"t.parquet": b"PAR1 no"}, ["data.train=t.parquet"], ["t.parquet: not a readable parquet file"]),
    "unknown key": ({"t.csv": GOOD}, ["data.train=t.csv", "train.lerning_rate=1"], ["train.lerning_rate: no such setting", "did you mean 'learning_rate'"]),
    "unknown option": ({"t.csv": GOOD}, ["data.train=t.csv", "options.poling=cls"], ["options.poling: no such setting", "did you mean 'pooling'"]),
    "bad value": ({"t.csv": GOOD}, ["data.train=t.csv", "train.schedule=lineal"], ["train.schedule: input should be 'linear'", "(got 'lineal')"]),
    "no settings at all": ({}, [], ["data.train: must be given"]),
    "not a setting": ({}, ["epochs"], ["'epochs' is not a setting", "section.name=value"]),
    "value as section": ({}, ["seed.x=1"], ["seed: input should be a valid integer"]),
    "taken folder": ({"t.csv": GOOD, "taken": "x"}, ["data.train=t.csv", "out=taken"], ["out: 'taken' is not empty and may hold another run"]),
    "unknown model folder": ({"t.csv": GOOD}, ["data.train=t.csv", "model=./nowhere"], ["model: no folder './nowhere'"]),
    "model without config": ({"t.csv": GOOD}, ["data.train=t.csv", "model=."], ["model: the folder '.' holds no config.json"]),
    "model not on the Hub": ({"t.csv": GOOD}, ["data.train=t.csv", "model=minillm"], ["model: 'minillm' is no folder here", "did you mean 'minilm'"]),
    "max_length": ({"t.csv": GOOD}, ["data.train=t.csv", "data.max_length=999"], ["data.max_length: 999 is more than the 64 positions"]),
    "fp16 on a CPU": ({"t.csv": GOOD}, ["data.train=t.csv", "train.precision=fp16", "device=cpu"], ["precision fp16 needs a CUDA GPU"]),
    "class weight of no label": ({"t.csv": GOOD}, ["data.train=t.csv", "options.class_weights={psi: 2}"], ["options.class_weights: no such labels: 'psi'"]),
    "positive label of no label": ({"t.csv": GOOD}, ["data.train=t.csv", "options.positive_label=psi"], ["options.positive_label: 'psi' is not a label"]),
    "half a letter": ({"t.jsonl": '{"text": "a \\ud83d", "label": "x"}\n'}, ["data.train=t.jsonl"], ["t.jsonl:1: 'text' has half a character"]),
    "out inside a file": ({"t.csv": GOOD, "taken": "x"}, ["data.train=t.csv", "out=taken/x"], ["out: 'taken/x' cannot be written"]),
    "threshold of single labels": ({"t.csv": GOOD + "so so,mid\nmeh,mid\n"}, ["data.train=t.csv", "options.threshold=0.9"], ["options.threshold is for several labels a row"]),
    "delimiter of single labels": (
        {"t.csv": GOOD}, ["data.train=t.csv", "options.problem_type=single_label", "data.label_delimiter=pipe"], ["data.label_delimiter contradicts"],
    ),
    "smoothing under focal loss": (
        {"t.csv": GOOD}, ["data.train=t.csv", "options.loss=focal", "options.label_smoothing=0.1"], ["options.label_smoothing has no effect"],
    ),
    "unknown tracker": ({"t.csv": GOOD}, ["data.train=t.csv", "log.trackers=[tensorbord]"], ["log.trackers: no tracker 'tensorbord'", "did you mean 'tensorboard'"]),
    "labels file missing": ({"t.csv": GOOD}, ["data.train=t.csv", "data.labels=labels.txt"], ["data.labels: cannot read 'labels.txt'"]),
    "labels lack one": ({"t.csv": GOOD}, ["data.train=t.csv", "data.labels=[pos, other]"], ["label 'neg' is not among the 2 labels"]),
    "yaml given twice": ({"r.yaml": "task: classify\nseed: 1\nseed: 2\n"}, ["r.yaml"], ["r.yaml:3: not valid YAML: the key 'seed' is given twice"]),
    "yaml missing": ({}, ["r.yaml"], ["r.yaml: cannot read this run file"]),
    "no task": ({"r.yaml": "seed: 1\n"}, ["r.yaml"], ["task: must be given"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_training_refuses(name, bench):
    files, settings, expected = CASES[name]
    if settings[:1] == ["r.yaml"]:
        words = ["train", "r.yaml"]
    else:
        words = [
            "train",
            "classify",
            *([] if any(s.startswith("model") for s in settings) else ["model=TINY"]),
            *settings,
        ]
    code, said, nothing_written = bench(*words, files=files)
    assert code == 2, said
    errors = [line for line in said if line.startswith("bertune: ")]
    assert len(errors) == 1, said
    assert said[-1] == errors[0]
    for part in expected:
        assert part in errors[0]
    assert nothing_written


def test_several_wrong_settings_are_named_at_once(bench):
    code, said, nothing_written = bench(
        "train", "classify", "train.epoch=1", "seeed=1", "options.dropout=2", "train.batch_size=0"
    )
    assert code == 2
    assert nothing_written
    text = "\n".join(said)
    assert "4 settings are wrong" in text
    for part in (
        "train.epoch: ",
        "did you mean 'epochs'",
        "seeed: ",
        "did you mean 'seed'",
        "options.dropout: ",
        "train.batch_size: ",
    ):
        assert part in text


REGRESSION = {
    "text as target": ("text,label\na dog,1\na cat,high\n", "t.csv:3: 'label' must be a number, got 'high'"),
    "NaN target": ("text,label\na dog,1\na cat,nan\n", "t.csv:3: 'label' must be a finite number, got 'nan'"),
    "no target": ("text,label\na dog,1\na cat,\n", "t.csv:3: 'label' is missing"),
    "constant target": ("text,label\na dog,1\na cat,1\n", "every target is 1.0"),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_refuses(name, bench):
    content, expected = REGRESSION[name]
    code, said, nothing_written = bench(
        "train", "regress", "model=TINY", "data.train=t.csv", files={"t.csv": content}
    )
    assert code == 2
    assert expected in said[-1]
    assert nothing_written


WORDS = "the O\ndog B-ANIMAL\nis O\ngood O\n\na O\ncat B-ANIMAL\n\n"
JSONL = '{"text": ["the", "dog"], "label": ["O", "B-ANIMAL"]}\n'
SPANS = '{"text": "the dog", "spans": [{"start": 4, "end": 7, "label": "animal"}]}\n'
TAGGING = {
    "text and label of different length": ({"t.jsonl": JSONL + '{"text": ["a", "cat"], "label": ["O"]}\n'}, [], "t.jsonl:2: 2 words but 1 tags"),
    "unknown tag in dev": (
        {"t.conll": WORDS, "d.conll": "a O\n\none O\nred O\ncar B-THING\n"}, ["data.dev=d.conll"], "d.conll:5: label 'THING' is not among the 1 labels",
    ),
    "no tag at all": ({"t.conll": WORDS + "a O\nred X-CAR\n"}, [], "t.conll:10: word 2 ('red'): 'X-CAR' is not a tag"),
    "tag without type": ({"t.conll": WORDS + "a O\nred O\ncar B-\n"}, [], "t.conll:11: word 3 ('car'): the tag 'B-' has no type; write B-TYPE"),
    "span outside the text": (
        {"t.jsonl": SPANS + '{"text": "a cat", "spans": [{"start": 2, "end": 6, "label": "animal"}]}\n'}, [],
        "t.jsonl:2: the span 2 to 6 'animal' lies outside the text of 5 characters",
    ),
    "overlapping spans": (
        {"t.jsonl": SPANS + '{"text": "a big cat", "spans": [[2, 9, "animal"], [6, 9, "cat"]]}\n'}, [],
        "t.jsonl:2: the spans 2 to 9 'animal' ('big cat') and 6 to 9 'cat' ('cat') overlap, and a word has one label only",
    ),
    "span without label": ({"t.jsonl": SPANS + '{"text": "a cat", "spans": [{"start": 2, "end": 5}]}\n'}, [], "t.jsonl:2: {'start': 2, 'end': 5} in"),
    "span with another text": (
        {"t.jsonl": SPANS + '{"text": "\U0001f600 a cat.", "spans": [{"start": 5, "end": 8, "label": "animal", "text": "cat"}]}\n'}, [],
        "says that its text is 'cat', but the text there is 'at.'",
    ),
    "half a column missing": ({"t.conll": WORDS + "a O\nred\ncar B-THING\n\none O\n"}, [], "t.conll:10: 1 columns divided by blanks where 2 are expected"),
    "tags missing altogether": ({"t.conll": "the\ndog\n\na\ncat\n"}, [], "no column for 'label'; columns found: 'words'"),
    "no entity": ({"t.conll": "the O\ndog O\n"}, [], "t.conll: no row has an entity"),
    "a word that is none": ({"t.jsonl": JSONL + '{"text": ["a", null], "label": ["O", "O"]}\n'}, [], "t.jsonl:2: word 2 of 'text' must be text, got None"),
    "labels of whole texts": ({"t.jsonl": JSONL.replace('["O", "B-ANIMAL"]', "3")}, [], "t.jsonl:1: 'label' must be a list of tags or of spans, got int"),
    "drop_labels": ({"t.conll": WORDS}, ["data.drop_labels=[O]"], "data.drop_labels is for labels of whole texts"),
    "names for other columns": ({"t.conll": WORDS}, ["data.columns=[text,_,label]"], "2 columns, but data.columns names 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAGGING)
def test_tagging_refuses(name, bench):
    files, settings, expected = TAGGING[name]
    code, said, nothing_written = bench(
        "train", "tag", "model=TINY", f"data.train={next(iter(files))}", *settings, files=files
    )
    assert code == 2
    assert expected in said[-1]
    assert nothing_written


def test_unknown_task_and_unknown_verb(bench):
    code, said, _ = bench("train", "clasify")
    assert code == 2
    assert (
        "no task 'clasify'; did you mean 'classify'; tasks: classify, embed, match, pretrain, regress, tag"
        in said[-1].replace("?", "")
    )
    assert bench("trian")[0] == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no such folder"), ("{}", "has format None"), ("{", "bertune.json: damaged")],
)
def test_a_folder_that_is_no_model_is_refused(bench, content, expected):
    if content is not None:
        Path("m").mkdir()
        Path("m/bertune.json").write_text(content)
    for verb in ("evaluate", "predict"):
        code, said, nothing_written = bench(verb, "m", "t.csv", files={"t.csv": GOOD})
        assert code == 2
        assert expected in said[-1]
        assert nothing_written or content is None


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("ours")

    monkeypatch.setattr("bertune.commands.train.train", broken)
    found = CliRunner().invoke(app, ["train", "classify"])
    assert found.exit_code == 1
    assert isinstance(found.exception, RuntimeError)
