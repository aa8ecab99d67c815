"""All entities of known files are read, in every notation; and a tagger learns from real sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.real.test_real import chinese, data

import bertune
from bertune.commands.train import prepare
from bertune.tasks.base.reading import read_and_fit

pytestmark = pytest.mark.real

# Sentences, entities, and entities that begin with an inside tag: the publishers' scripts leave these out.
COUNTS = {
    "resume/train.json": (3821, 13440, 2, "BIOS"),
    "resume/train.char.bmes": (3821, 13440, 2, "BMES"),
    "resume/dev.char.bmes": (463, 1497, 0, "BMES"),
    "resume/test.json": (477, 1630, 0, "BIO"),
    "weibo/train.json": (1350, 1895, 10, "BIOS"),
    "weibo/train.all.bmes": (1350, 1895, 10, "BMES"),
    "weibo/dev.all.bmes": (270, 389, 0, "BMES"),
    "weibo/test.json": (270, 418, 4, "BIOS"),
    "msra/train.txt": (20000, 29159, 3, "BIO"),
    "msra/dev.txt": (5092, 4257, 0, "BIO"),
    "msra/test.txt": (4631, 6192, 11, "BIO"),
    "wnut17/wnut17train.conll": (3394, 1975, 0, "BIO"),
    "wnut17/emerging.dev.conll": (1009, 836, 0, "BIO"),
    "wnut17/emerging.test.annotated": (1287, 1079, 0, "BIO"),
}


def read(name):
    _, task = prepare("tag")
    said: list[str] = []
    examples = read_and_fit([data(f"ner/{name}")], task, task.data, said.append)
    return task, examples, said


@pytest.mark.parametrize("name", COUNTS)
def test_every_entity_of_a_known_file_is_read(name):
    sentences, entities, illegal, scheme = COUNTS[name]
    task, examples, said = read(name)
    assert (len(examples), sum(len(e.target) for e in examples)) == (sentences, entities), said
    assert task.scheme == scheme
    (line,) = [line for line in said if f"tags in {scheme}" in line]
    assert ("transitions are illegal" in line) == (illegal > 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [("resume/test.json", "resume/test.char.bmes"), ("weibo/dev.json", "weibo/dev.all.bmes")],
)
def test_two_forms_of_a_file_say_the_same(one, other):
    found = [[(e.texts, e.words, e.target) for e in read(name)[1]] for name in (one, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("msra/test.txt", "zh"), ("weibo/test.json", "zh"), ("wnut17/emerging.test.annotated", "minilm")],
)
def test_every_entity_fits_words_and_windows(name, encoder):
    """bertorch loses a tenth of MSRA's entities at 128 tokens; here windows of 64 lose none."""
    from bertune.config.schema import DataConfig
    from bertune.encoders.pretrained import locate_model
    from bertune.text.load import load_tokenizer

    task, examples, _ = read(name)
    tokenizer = load_tokenizer(
        locate_model("minilm" if encoder == "minilm" else chinese()), 512, DataConfig(max_length=64)
    )
    encoded = task.encode(examples, tokenizer)
    said = " ".join(task.report())
    assert "no word of their own" not in said
    assert "begin or end inside" not in said
    assert "windows" in said
    labels = task.tags
    begun = sum(labels[tag][0] in "BS" for row in encoded for tag in row.target)
    assert begun == sum(len(e.target) for e in examples)


def test_few_characters_of_weibo_are_unknown():
    """m3e-small's tokenizer keeps upper case, and its vocabulary has next to none."""
    from bertune.config.schema import DataConfig
    from bertune.text.load import load_tokenizer

    task, examples, _ = read("weibo/test.json")
    tokenizer = load_tokenizer(Path(chinese()), 512, DataConfig())
    ids = [i for row in task.encode(examples, tokenizer) for i in row.inputs[0].input_ids]
    plain = [
        i for piece in tokenizer.encode([(" ".join(e.texts[0]),) for e in examples]) for i in piece.input_ids
    ]
    assert ids.count(tokenizer.unk_token_id) < 0.6 * plain.count(tokenizer.unk_token_id)


def test_a_tagger_learns_from_resumes(tmp_path):
    settings = [
        f"data.train={data('ner/resume/train.json')}", f"data.dev={data('ner/resume/dev.char.bmes')}",
        "data.limit=320", f"model={chinese()}",
        "train.epochs=2", "train.learning_rate=5e-4", "train.batch_size=16", "options.decoder=crf",
        f"out={tmp_path / 'out'}", "seed=1",
    ]  # fmt: skip
    scores = bertune.train("tag", settings, quiet=True).scores["dev"]
    assert sum(label["support"] for label in scores.per_label.values()) == 1497
    assert scores.values["f1"] > 0.7  # .806 with this seed
