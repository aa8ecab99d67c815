"""Every set in every form: found, and read to the rows that it means."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.catalog.set_files import FORMS, forms_of, write_set

from bertune.catalog.sets import SUITES, find_set, is_set_name, set_settings, split_name, why_not_runnable
from bertune.catalog.use import named_files, named_rows, read_settings
from bertune.commands.train import resolve_run
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.errors import ConfigError
from bertune.tasks import load_task
from bertune.tasks.base.reading import Splits, read_examples, read_splits

ALL = [named_set for suite in SUITES.values() for named_set in suite]
IDS = [f"{name}-{folder}-{next(iter(files))}" for name, folder, files, _ in FORMS]


def read(name: str, root: Path, *overrides: str) -> tuple[Splits, list[str]]:
    """The rows of a run on a set, and all that is said."""
    notes: list[str] = []
    run, task = resolve_run(name, [f"data.root={root}", *overrides], notes.append)
    return read_splits(task, run.data, 42, notes.append), notes


@pytest.mark.parametrize(("name", "folder", "files", "rows"), FORMS, ids=IDS)
def test_a_set_is_read_in_each_of_its_forms(name, folder, files, rows, tmp_path):
    splits, notes = read(name, write_set(tmp_path, folder, files))
    assert (len(splits.train), len(splits.dev)) == rows
    assert not why_not_runnable(find_set(name), tmp_path)
    assert notes[0].startswith(f"{name}: train ")
    assert all('"' not in note or "quoting" not in note for note in notes)


@pytest.mark.parametrize(("name", "folder", "files", "rows"), FORMS, ids=IDS)
def test_the_test_rows_of_a_set_can_be_predicted(name, folder, files, rows, tmp_path):
    root = write_set(tmp_path, folder, files)
    named_set = find_set(name)
    run, task = resolve_run(name, [f"data.root={root}"], lambda _: None)
    has_test = any(layout.test in files for layout in named_set.layouts if layout.test)
    if not has_test:
        with pytest.raises(ConfigError, match=f"{name}: has no test rows here"):
            named_rows(name, [f"data.root={root}"], "test", lambda _: None)
        return
    read_splits(task, run.data, 42, lambda _: None)
    file, overrides = named_rows(name, [f"data.root={root}"], "test", lambda _: None)
    data = reading_config(run.data, file, overrides)
    assert len(read_examples([file], task, data, lambda _: None, require_target=False)) > 0
    # A model that learned from other files reads the same rows: what the set leaves open is as by default.
    other = DataConfig(columns=["label", "text"], label_delimiter="|", encoding="gb18030", format="csv")
    assert reading_config(other, file, overrides).model_dump(exclude={"label_delimiter"}) == data.model_copy(
        update={"labels": None, "train": None, "dev": None, "test": None}
    ).model_dump(exclude={"label_delimiter"})


def test_quotation_marks_of_glue_are_text_and_a_byte_order_mark_is_not(tmp_path):
    splits, _ = read("glue:mrpc", write_set(tmp_path, "MRPC", forms_of("glue:mrpc")))
    assert splits.train[0].texts == ('a "dog 0', '" a cat 0')
    assert [example.target for example in splits.train] == ["1", "0", "1", "0"]


def test_the_characters_of_golden_horse_lose_their_numbers(tmp_path):
    name, folder, files, _ = next(form for form in FORMS if "weiboNER_2nd_conll.train" in form[2])
    splits, _ = read(name, write_set(tmp_path, folder, files))
    assert [example.texts[0] for example in splits.train] == ["大地", "1好"]


def test_cola_has_no_header_and_keeps_its_first_row(tmp_path):
    splits, _ = read("glue:cola", write_set(tmp_path, "CoLA", forms_of("glue:cola")))
    assert splits.train[0].texts == ('the "dog 0',)
    assert splits.train[0].location.line == 1


def test_rows_of_qqp_that_lack_columns_are_left_out_and_counted(tmp_path):
    _, notes = read("glue:qqp", write_set(tmp_path, "QQP", forms_of("glue:qqp")))
    assert any(note.startswith("1 rows left out as unusable") for note in notes)


def test_a_repeated_text_between_train_and_dev_is_counted(tmp_path):
    files = {**forms_of("glue:cola"), "dev.tsv": 'gj04\t1\t\tthe "dog 0\ngj04\t0\t\ta cat\n'}
    _, notes = read("glue:cola", write_set(tmp_path, "CoLA", files))
    assert "1 of 2 dev rows have a text that is also a training row, which flatters the dev scores" in notes


def test_wnli_says_what_its_figures_are_worth(tmp_path):
    _, notes = read("glue:wnli", write_set(tmp_path, "WNLI", forms_of("glue:wnli")))
    assert any("opposite labels" in note for note in notes)


def test_both_halves_of_mnli_train_on_the_same_rows(tmp_path):
    root = write_set(tmp_path, "MNLI", forms_of("glue:mnli"))
    matched, mismatched = (
        set_settings(find_set(n), root, lambda _: None)["data"] for n in ("glue:mnli", "glue:mnli-mm")
    )
    assert matched["train"] == mismatched["train"]
    assert [Path(data["dev"]).name for data in (matched, mismatched)] == [
        "dev_matched.tsv",
        "dev_mismatched.tsv",
    ]


@pytest.mark.parametrize(
    "where", ["", "glue", "GLUE", "glue_data"], ids=["beside", "suite", "upper case", "as downloaded"]
)
def test_the_folder_of_a_set_is_found_below_the_root(where, tmp_path):
    root = tmp_path / "data"
    write_set(root, f"{where}/CoLA".strip("/"), forms_of("glue:cola"))
    for given in (root, root / where / "CoLA"):
        assert len(read("glue:cola", given)[0].train) == 4


def test_a_compressed_file_is_found(tmp_path):
    import gzip

    root = write_set(tmp_path, "RTE", forms_of("glue:rte"))
    train = root / "RTE" / "train.tsv"
    (root / "RTE" / "train.tsv.gz").write_bytes(gzip.compress(train.read_bytes()))
    train.unlink()
    assert len(read("glue:rte", root)[0].train) == 4


def test_the_form_with_all_files_is_taken(tmp_path):
    root = write_set(tmp_path, "tnews", {"train.tsv": "好\tnews_tech\n"})
    write_set(root, "tnews_public", forms_of("clue:tnews"))
    assert set_settings(find_set("clue:tnews"), root, lambda _: None)["data"]["train"].endswith("train.json")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"dev.tsv": "x\n"}, "QNLI/train.tsv is not in {root}"),
        ({"train.tsv": "x\n"}, "QNLI/dev.tsv is not in {root}"),
        ({"test.tsv": "x\n"}, "QNLI/train.tsv and QNLI/dev.tsv are not in {root}"),
        ({}, "QNLI/train.tsv is not in {root}"),
    ],
)
def test_what_is_missing_is_named(files, expected, tmp_path):
    root = write_set(tmp_path, "QNLI", files)
    assert why_not_runnable(find_set("glue:qnli"), root) == expected.format(root=root)


def test_a_set_without_training_rows_says_what_to_train(tmp_path):
    assert "train glue:mnli" in why_not_runnable(find_set("glue:ax"), tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root: .* is no folder"):
        read("glue:cola", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("glue:colla", "did you mean 'cola'"),
        ("glue:cola:tset", "did you mean 'test'"),
        ("ner:conll", "ner has no set 'conll'"),
        ("glue:lcqmc", "did you mean clue:lcqmc or sts:lcqmc"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(name, expected):
    with pytest.raises(ConfigError, match=expected):
        split_name(name)


def test_names_of_files_and_hubs_are_no_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue:cola").touch()
    assert not any(
        map(is_set_name, ("glue:cola", "hub:glue/cola", "classify", "glue", "C:/data/x.tsv", "glue:"))
    )
    assert is_set_name("glue:rte")


# ------------------------------------------------------------------------------------ settings


def test_a_run_file_and_overrides_count_more_than_the_set(tmp_path):
    root = write_set(tmp_path, "STS-B", forms_of("glue:stsb"))
    given = {
        "task": "glue:stsb",
        "data": {"root": str(root), "max_length": 12},
        "options": {"metric": "spearman"},
    }
    settings = read_settings(
        given, ["task=match", "options.metric=pearson", "train.epochs=1"], lambda _: None
    )
    assert settings["task"] == "match"
    assert settings["data"]["max_length"] == 12
    assert settings["options"] == {"metric": "pearson"}
    assert "root" not in settings["data"]
    assert given["data"]["root"] == str(root)  # what was given is as it was


def test_columns_of_a_run_file_replace_those_of_the_set(tmp_path):
    root = write_set(tmp_path, "RTE", forms_of("glue:rte"))
    given = {"task": "glue:rte", "data": {"columns": {"text": "sentence2"}, "root": str(root)}}
    assert read_settings(given, [], lambda _: None)["data"]["columns"] == {"text": "sentence2"}


def test_a_set_as_an_override_of_a_run_file(tmp_path):
    root = write_set(tmp_path, "RTE", forms_of("glue:rte"))
    settings = read_settings(
        {"task": "classify", "train": {"epochs": 2}}, ["task=glue:rte", f"data.root={root}"], lambda _: None
    )
    assert settings["task"] == "classify"
    assert settings["train"] == {"epochs": 2}
    assert settings["data"]["train"].endswith("train.tsv")


def test_without_a_root_the_hub_is_asked_and_that_is_said():
    notes: list[str] = []
    data = set_settings(find_set("glue:mnli-mm"), None, notes.append)["data"]
    assert data["train"] == "hub:nyu-mll/glue/mnli:train"
    assert data["dev"] == "hub:nyu-mll/glue/mnli:validation_mismatched"
    assert any("comes from the Hub" in note for note in notes)
    modelscope = set_settings(find_set("clue:tnews"), "modelscope", notes.append)["data"]
    assert modelscope["train"] == "modelscope:clue/tnews:train"
    assert modelscope["labels"][0] == "100"


def test_a_set_that_is_not_on_a_hub_says_so():
    with pytest.raises(ConfigError, match=r"ner:weibo: is not known to be on ModelScope; .*data\.root=DIR"):
        set_settings(find_set("ner:weibo"), "modelscope:", lambda _: None)


def test_a_split_of_a_set_is_no_run():
    with pytest.raises(ConfigError, match="glue:cola:dev: a run needs the whole set; write glue:cola"):
        read_settings("glue:cola:dev", [], lambda _: None)


def test_a_slip_in_the_name_of_a_suite_is_named():
    with pytest.raises(ConfigError, match="'glu' is no suite of data sets; did you mean 'glue'"):
        read_settings("glu:cola", [], lambda _: None)
    assert read_settings("./glu:cola.py", [], lambda _: None) == {"task": "./glu:cola.py"}


def test_an_empty_root_is_refused():
    with pytest.raises(ConfigError, match=r"data\.root: is empty"):
        read_settings("glue:cola", ["data.root="], lambda _: None)


def test_unlabelled_test_rows_are_not_scored(tmp_path):
    root = write_set(tmp_path, "CoLA", forms_of("glue:cola"))
    with pytest.raises(ConfigError, match=r"no targets to score; glue:cola:dev has; .*--format leaderboard"):
        named_rows("glue:cola:test", [f"data.root={root}"], "dev", lambda _: None, scored=True)


def test_the_labelled_test_rows_of_mrpc_are_scored_beside_those_of_the_leaderboard(tmp_path):
    first, second = (files for name, _, files, _ in FORMS if name == "glue:mrpc")
    root = write_set(
        tmp_path, "MRPC", {**first, "msr_paraphrase_test.txt": second["msr_paraphrase_test.txt"]}
    )
    for scored, expected in ((True, "msr_paraphrase_test.txt"), (False, "test.tsv")):
        file, _ = named_rows("glue:mrpc:test", [f"data.root={root}"], "dev", lambda _: None, scored=scored)
        assert Path(file).name == expected


def test_a_named_set_is_read_alone(tmp_path):
    with pytest.raises(ConfigError, match="glue:cola: a named set is read alone"):
        named_files(["glue:cola", "a.csv"], [], "dev", lambda _: None)


# ------------------------------------------------------------------------------------ data.root of other runs


def test_names_of_files_begin_at_the_root(tmp_path):
    data = DataConfig(root=str(tmp_path), train=["a.csv", "/b.csv", "hub:x", "modelscope:y/z"], dev="-")
    assert data.train == [str(tmp_path / "a.csv"), "/b.csv", "hub:x", "modelscope:y/z"]
    assert (data.dev, data.root) == ("-", None)
    assert named_rows("a.csv", [f"data.root={tmp_path}"], "dev", lambda _: None) == (
        str(tmp_path / "a.csv"),
        [],
    )


def test_a_hub_as_root_is_for_named_sets():
    with pytest.raises(
        ValueError, match=r"root=hub is for named sets, such as glue:cola; write data.train=hub:NAME"
    ):
        DataConfig(root="hub", train="a.csv")


@pytest.mark.parametrize("root", [3, ["a"], True])
def test_a_root_that_is_no_folder_is_refused(root):
    with pytest.raises(ValueError, match="root must be a folder"):
        DataConfig(root=root, train="a.csv")


# ------------------------------------------------------------------------------------ the catalogue itself


def test_names_are_unique_and_each_set_has_a_form_in_the_tests():
    names = [named_set.full_name for named_set in ALL]
    assert len(names) == len(set(names))
    assert {name for name, *_ in FORMS} == set(names) - {"glue:ax"}


@pytest.mark.parametrize("named_set", ALL, ids=lambda s: s.full_name)
def test_what_is_said_about_a_set_fits_together(named_set):
    options = load_task(named_set.task).Options.model_validate(dict(named_set.options))
    assert options.metric in {named_set.metric, "auto"}
    for layout in [*named_set.layouts, named_set.hub, named_set.modelscope]:
        if layout is None:
            continue
        for split in ("train", "test"):
            DataConfig.model_validate(dict(layout.reading(split)))
        if named_set.labels and "labels" in layout.data:
            assert len(layout.data["labels"]) == len(named_set.labels)
    board = named_set.leaderboard
    if board is not None and board.form != "cluener":
        assert len(board.labels) == len(named_set.labels)
        assert len(board.descriptions) in {0, len(board.labels)}
    for figure in named_set.published:
        assert 0 < figure.value < 100
        assert figure.source
        assert figure.note
        assert figure.split in {"dev", "test"}


def test_folders_may_be_removed_after_settings_were_read(tmp_path):
    root = write_set(tmp_path, "RTE", forms_of("glue:rte"))
    settings = read_settings("glue:rte", [f"data.root={root}"], lambda _: None)
    shutil.rmtree(root / "RTE")
    assert why_not_runnable(find_set("glue:rte"), root)
    assert settings["data"]["columns"]["text"] == "sentence1"
