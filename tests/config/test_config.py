"""A run file is read as YAML 1.2, checked as a whole, and written back as an equal one."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bertune.config.load import apply_override, dump_config, idle_settings, read_config, resolve_config
from bertune.config.schema import DataConfig, RunConfig, Section, TrainConfig
from bertune.config.yaml import parse_yaml
from bertune.errors import ConfigError
from bertune.tasks import load_task, task_names
from bertune.tasks.classify import ClassifyOptions


def run_of(**sections: object) -> RunConfig:
    return resolve_config({"task": "classify", **sections}, ClassifyOptions)[0]


def again(run: RunConfig) -> RunConfig:
    """The run as it is after it was written and read."""
    return resolve_config(parse_yaml(dump_config(run), "run.yaml"), ClassifyOptions)[0]


def refusal(raw: dict, options: type[Section] = ClassifyOptions) -> list[str]:
    """The lines of the error with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(raw, options)
    return str(caught.value).split("\n")


# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-5", 3e-5),
        ("1E3", 1000.0),
        ("2.5e+2", 250.0),
        ("-.5", -0.5),
        ("7.", 7.0),
        ("+12", 12),
        ("-3", -3),
        ("0", 0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01 10:00:00", "2024-05-01 10:00:00"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("0b11", "0b11"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("nullable", "nullable"),
        ("'3e-5'", "3e-5"),
        ('"true"', "true"),
    ],
)
def test_yaml_scalars(text: str, value: object) -> None:
    read_config = parse_yaml(text, "here")
    assert read_config == value
    assert type(read_config) is type(value)


def test_yaml_nan() -> None:
    assert math.isnan(parse_yaml(".nan", "here"))


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("-017", -17), ("08", 8), ("[01, 09]", [1, 9])])
def test_yaml_integers_that_begin_with_0_are_decimal(text: str, value: object) -> None:
    # A former bug: PyYAML's constructor takes 010 as octal 8, and raises a bare ValueError on 08 and 09.
    assert parse_yaml(text, "here") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "task: classify\ndata: {train: a.csv}\ntask: regress\n",
            "run.yaml:3: not valid YAML: the key 'task' is given twice",
        ),
        (
            "train:\n  epochs: 3\n  seed: 1\n  epochs: 4\n",
            "run.yaml:4: not valid YAML: the key 'epochs' is given twice",
        ),
        ("x: {a: 1, b: 2, a: 1}", "run.yaml:1: not valid YAML: the key 'a' is given twice"),
        ("- {1: a}\n- {1: a, 1: b}", "run.yaml:2: not valid YAML: the key 1 is given twice"),
        ("a: b\nc: [1, 2\n", "run.yaml:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "run.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: *other\n", "run.yaml:1: not valid YAML: found undefined alias 'other'"),
    ],
)
def test_broken_yaml_names_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "\x01", "? [a]\n: 1"]
)
def test_yaml_that_is_more_than_data_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^run\.yaml.*: not valid YAML: "):
        parse_yaml(text, "run.yaml")


def test_the_same_key_in_two_sections_is_fine() -> None:
    assert parse_yaml("a: {x: 1}\nb: {x: 2}", "here") == {"a": {"x": 1}, "b": {"x": 2}}


# ---------------------------------------------------------------- reading a run


def test_read_a_file_with_overrides_on_top(write) -> None:
    path = write(
        "run.yaml", "\ufefftask: classify\nseed: 7\ntrain:\n  epochs: 2\n  learning_rate: 3e-5\nlog:\n"
    )
    assert read_config(path, ["train.epochs=0.5", "log.every=5", "data.train=评论.csv"]) == {
        "task": "classify",
        "seed": 7,
        "train": {"epochs": 0.5, "learning_rate": 3e-5},
        "log": {"every": 5},
        "data": {"train": "评论.csv"},
    }


@pytest.mark.parametrize("name", ["run.yaml", "run.yml"])
def test_both_endings_are_run_files(write, name: str) -> None:
    assert read_config(write(name, "task: regress\n")) == {"task": "regress"}


def test_a_word_is_a_task() -> None:
    assert read_config("classify", ["seed=1"]) == {"task": "classify", "seed": 1}
    assert read_config("./mine.py") == {"task": "./mine.py"}


def test_an_empty_run_file_lacks_only_its_task(write) -> None:
    raw = read_config(write("run.yaml", "# nothing yet\n"))
    assert refusal(raw) == ["task: must be given"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read this run file: No such file or directory"),
        (b"task: \xff\xfe\n", "cannot read this run file: not UTF-8 text"),
        (b"- task\n- classify\n", "a run file is a mapping such as 'task: classify', got list"),
        (b"classify\n", "a run file is a mapping such as 'task: classify', got str"),
    ],
)
def test_run_files_that_cannot_be_read(write, tmp_path, content: bytes | None, message: str) -> None:
    path = str(tmp_path / "none.yaml") if content is None else write("run.yaml", content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("content", ["[]\n", "false\n", "0\n", '""\n'])
def test_a_run_file_that_holds_an_empty_value_is_no_mapping(write, content: str) -> None:
    # A former bug: `parse_yaml(...) or {}` takes every false value for an empty file.
    with pytest.raises(ConfigError, match="a run file is a mapping such as"):
        read_config(write("run.yaml", content))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=3e-5", 3e-5),
        ("a.b=[x, no]", ["x", "no"]),
        ("a.b={text: review}", {"text": "review"}),
        ("a.b=", None),
        ("a.b=x=y", "x=y"),
        (" a.b =1", 1),
        ("a.b=true", True),
        ("a.b='7'", "7"),
        ("a.b=;", ";"),
    ],
)
def test_overrides_hold_yaml(override: str, value: object) -> None:
    raw: dict = {"a": {"c": 1}}
    apply_override(raw, override)
    assert raw == {"a": {"c": 1, "b": value}}


@pytest.mark.parametrize("before", [{}, {"a": None}, {"a": {"b": None}}, {"a": {"b": {"c": 0}}}])
def test_overrides_make_the_sections_they_need(before: dict) -> None:
    apply_override(before, "a.b.c=1")
    assert before == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize("override", ["train.epochs", "", "=3", "train.=3", ".epochs=3", "train..epochs=3"])
def test_overrides_without_name_or_value(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_override({}, override)
    assert (
        str(caught.value)
        == f"{override!r} is not a setting; write section.name=value, such as train.epochs=3"
    )


def test_overrides_cannot_go_through_a_value() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_override({"task": "classify"}, "task.name=x")
    assert str(caught.value) == "'task.name=x': 'task' is a value, not a section"


def test_an_override_that_is_no_yaml_names_itself() -> None:
    with pytest.raises(ConfigError, match=r"^data\.train=\[a:1: not valid YAML: "):
        apply_override({}, "data.train=[a")


@pytest.mark.parametrize("mark", ["|", ",", "#", ">", "/", ";", "&"])
def test_a_label_delimiter_is_what_was_written_or_an_error(mark: str) -> None:
    # A former bug: `data.label_delimiter=|` is YAML for an empty text and `#` for nothing; both are taken
    # without a word, and then no label is cut at all.
    try:
        raw = read_config("classify", [f"data.label_delimiter={mark}"])
        run, _ = resolve_config(raw, ClassifyOptions)
    except ConfigError:
        return
    assert run.data.label_delimiter == mark


def test_an_empty_label_delimiter_is_refused() -> None:
    # A former bug: DataConfig takes "", which makes the problem multi-label and cuts nothing.
    assert refusal({"task": "classify", "data": {"label_delimiter": ""}})[0].startswith(
        "data.label_delimiter: "
    )


# ---------------------------------------------------------------- checking a run


def test_defaults_of_an_empty_run() -> None:
    run, options = resolve_config({"task": "classify"}, ClassifyOptions)
    assert (run.model, run.seed, run.device, run.out) == ("minilm", 42, "auto", None)
    assert run.data == DataConfig()
    assert run.train == TrainConfig()
    assert run.options == options.model_dump() == ClassifyOptions().model_dump()


@pytest.mark.parametrize("section", ["data", "options", "train", "log"])
def test_a_section_without_content_is_all_defaults(section: str) -> None:
    assert run_of(**{section: None}) == run_of()


def test_options_are_filled_in_and_returned() -> None:
    run, options = resolve_config({"task": "classify", "options": {"pooling": "mean"}}, ClassifyOptions)
    assert options.pooling == "mean"
    assert run.options["pooling"] == "mean"
    assert run.options["loss"] == "cross_entropy"


def allowed(section: type[Section]) -> str:
    return "allowed here: " + ", ".join(sorted(section.model_fields))


def one_of(names: str) -> str:
    *most, last = [repr(name) for name in names.split()]
    return f"input should be {', '.join(most)} or {last}"


def test_every_fault_is_reported_at_once() -> None:
    lines = refusal(
        {
            "modle": "x",
            "seed": -1,
            "data": {"trian": "a.csv", "dev_fraction": 2, "encoding": "utf-99", "delimiter": "::"},
            "options": {"poolling": "cls", "dropout": 1, "metric": "f2"},
            "train": {"lerning_rate": 1, "batch_size": 0, "schedule": "step"},
            "log": {"evry": 1},
        }
    )
    assert lines[0] == "14 settings are wrong:"
    assert sorted(lines[1:]) == sorted(
        [
            "task: must be given",
            f"modle: no such setting; did you mean 'model'?; {allowed(RunConfig)}",
            "seed: input should be greater than or equal to 0 (got -1)",
            f"data.trian: no such setting; did you mean 'train'?; {allowed(DataConfig)}",
            "data.dev_fraction: input should be less than 1 (got 2)",
            "data.encoding: 'utf-99' is not an encoding that Python knows "
            "(utf-8, gb18030, big5, utf-16 ...) (got 'utf-99')",
            "data.delimiter: must be one character, or tab, comma, semicolon, pipe, blank (got '::')",
            f"options.poolling: no such setting; did you mean 'pooling'?; {allowed(ClassifyOptions)}",
            "options.dropout: input should be less than 1 (got 1)",
            f"options.metric: {one_of('auto accuracy f1 f1_macro f1_micro f1_weighted mcc')} (got 'f2')",
            f"train.lerning_rate: no such setting; did you mean 'learning_rate'?; {allowed(TrainConfig)}",
            "train.batch_size: input should be greater than or equal to 1 (got 0)",
            "train.schedule: "
            f"{one_of('linear cosine cosine_with_restarts polynomial constant constant_with_warmup')} "
            "(got 'step')",
            "log.evry: no such setting; did you mean 'every'?; allowed here: every, trackers",
        ]
    )


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            {"zzz": 1},
            "zzz: no such setting; allowed here: data, device, log, model, model_code, options, out, seed, "
            "task, train",
        ),
        (
            {"log": {"trackres": 1}},
            "log.trackres: no such setting; did you mean 'trackers'?; allowed here: every, trackers",
        ),
        ({"task": None}, "task: input should be a valid string (got None)"),
        ({"task": 3}, "task: input should be a valid string (got 3)"),
        (
            {"data": "a.csv"},
            "data: input should be a valid dictionary or instance of DataConfig (got 'a.csv')",
        ),
        (
            {"options": "cls"},
            "options: input should be a valid dictionary or instance of ClassifyOptions (got 'cls')",
        ),
        (
            {"data": {"train": 3}},
            "data.train: input should be a valid string (got 3), or input should be a valid list (got 3)",
        ),
        ({"train": {"epochs": 0}}, "train.epochs: input should be greater than 0 (got 0)"),
        (
            {"train": {"learning_rate": math.inf}},
            "train.learning_rate: input should be 'auto' (got inf), "
            "or input should be a finite number (got inf)",
        ),
        (
            {"train": {"batch_size": 8, "micro_batches": 9}},
            "train: micro_batches 9 is more than batch_size 8",
        ),
        (
            {"train": {"warmup_ratio": 1}},
            "train.warmup_ratio: input should be 'auto' (got 1), or input should be less than 1 (got 1)",
        ),
        (
            {"train": {"learning_rate": "fast"}},
            "train.learning_rate: input should be 'auto' (got 'fast'), or input should be a valid number, "
            "unable to parse string as a number (got 'fast')",
        ),
        ({"data": {"max_length": 3}}, "data.max_length: input should be greater than or equal to 4 (got 3)"),
        (
            {"data": {"labels": ["a", "b", "a"]}},
            "data.labels: names a label twice: 'a', 'b', 'a' (got ['a', 'b', 'a'])",
        ),
        (
            {"data": {"format": "xlsx"}},
            "data.format: input should be 'auto', 'csv', 'tsv', 'json', 'jsonl', 'fasttext', 'parquet', "
            "'conll' or 'lines' (got 'xlsx')",
        ),
        ({"seed": 2**32}, "seed: input should be less than 4294967296 (got 4294967296)"),
    ],
)
def test_single_faults(raw: dict, line: str) -> None:
    assert refusal({"task": "classify", **raw}) == [line]


def test_eval_every_is_epoch_or_a_count() -> None:
    assert run_of(train={"eval_every": 50}).train.eval_every == 50
    (line,) = refusal({"task": "classify", "train": {"eval_every": "step"}})
    assert line.startswith("train.eval_every: input should be 'epoch' or 'end' (got 'step'), or ")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        run_of().train.epochs = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_name", "delimiter"),
    [
        ("tab", "\t"),
        ("\\t", "\t"),
        ("\t", "\t"),
        ("comma", ","),
        ("semicolon", ";"),
        ("pipe", "|"),
        ("|", "|"),
        (None, None),
    ],
)
def test_delimiters_by_name(given_name: str | None, delimiter: str | None) -> None:
    assert DataConfig(delimiter=given_name).delimiter == delimiter


@pytest.mark.parametrize("encoding", ["utf-8", "GB18030", "utf_16", "big5", "latin-1"])
def test_known_encodings(encoding: str) -> None:
    assert DataConfig(encoding=encoding).encoding == encoding


@pytest.mark.parametrize("name", ["labels", "drop_labels"])
def test_labels_become_text(name: str) -> None:
    data = DataConfig.model_validate({name: parse_yaml("[0, 1, true, no, -1, 好, 2024-05-01]", "here")})
    assert getattr(data, name) == ["0", "1", "true", "no", "-1", "好", "2024-05-01"]


def test_labels_that_become_the_same_text_are_named_twice() -> None:
    assert refusal({"task": "classify", "data": {"labels": [1, "1"]}})[0].startswith(
        "data.labels: names a label twice: '1', '1'"
    )


# ---------------------------------------------------------------- settings without effect


@pytest.mark.parametrize(
    ("sections", "idle"),
    [
        ({}, {}),
        ({"data": {"dev": "d.csv", "dev_fraction": 0.2}}, {"data.dev_fraction=0.2": "data.dev is given"}),
        ({"data": {"dev": "d.csv", "dev_fraction": 0.1}}, {}),  # the default, as a resolved run states it
        ({"data": {"dev_fraction": 0.2}}, {}),
        ({"data": {"format": "json", "quoting": "none"}}, {"data.quoting=none": "data.format is json"}),
        ({"data": {"format": "parquet", "delimiter": "|"}}, {"data.delimiter=|": "data.format is parquet"}),
        ({"data": {"format": "csv", "delimiter": "|", "quoting": "none"}}, {}),
        ({"train": {"max_steps": 9, "epochs": 2}}, {"train.epochs=2.0": "train.max_steps is given"}),
        ({"train": {"max_steps": 9}}, {}),
        (
            {"train": {"warmup_steps": 9, "warmup_ratio": 0.2}},
            {"train.warmup_ratio=0.2": "train.warmup_steps is given"},
        ),
        (
            {"train": {"schedule": "constant", "warmup_ratio": 0.2}},
            {"train.warmup_ratio=0.2": "train.schedule is constant"},
        ),
        (
            {"train": {"schedule": "constant", "warmup_steps": 9}},
            {"train.warmup_steps=9": "train.schedule is constant"},
        ),
        ({"train": {"schedule": "constant_with_warmup", "warmup_steps": 9}}, {}),
        ({"train": {"schedule_cycles": 2}}, {"train.schedule_cycles=2": "train.schedule is linear"}),
        ({"train": {"schedule": "cosine_with_restarts", "schedule_cycles": 2}}, {}),
        (
            {"train": {"schedule": "cosine", "schedule_power": 2}},
            {"train.schedule_power=2.0": "train.schedule is cosine"},
        ),
        ({"train": {"schedule": "polynomial", "schedule_power": 2}}, {}),
        ({"train": {"min_delta": 0.1}}, {"train.min_delta=0.1": "train.patience is not given"}),
        ({"train": {"min_delta": 0.1, "patience": 1}}, {}),
        (
            {
                "data": {"dev": "d", "dev_fraction": 0.3},
                "train": {"min_delta": 1, "max_steps": 9, "epochs": 9},
            },
            {
                "data.dev_fraction=0.3": "data.dev is given",
                "train.epochs=9.0": "train.max_steps is given",
                "train.min_delta=1.0": "train.patience is not given",
            },
        ),
    ],
)
def test_idle_settings(sections: dict, idle: dict[str, str]) -> None:
    run = run_of(**sections)
    told = [f"{setting} has no effect, since {because}" for setting, because in idle.items()]
    assert idle_settings(run) == told
    assert idle_settings(again(run)) == told


# ---------------------------------------------------------------- writing a run and reading it again


def test_a_resolved_run_says_everything_but_where_it_was_put() -> None:
    raw = yaml.safe_load(dump_config(run_of(out="somewhere", data={"train": "训练.csv"})))
    assert set(raw) == set(RunConfig.model_fields) - {"out"}
    assert set(raw["data"]) == set(DataConfig.model_fields)
    assert set(raw["train"]) == set(TrainConfig.model_fields)
    assert set(raw["options"]) == set(ClassifyOptions.model_fields)
    assert raw["data"]["train"] == "训练.csv"


def test_a_resolved_run_is_readable() -> None:
    text = dump_config(run_of(data={"train": "训练.csv", "columns": {"text": "内容"}}))
    assert text.startswith("task: classify\nmodel: minilm\nseed: 42\n")
    assert "  train: 训练.csv\n" in text


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "data": {
                "train": ["a.csv", "b.csv"],
                "columns": ["_", "label", "text"],
                "delimiter": "tab",
                "labels": ["no", "yes"],
                "limit": 5,
            }
        },
        {
            "data": {
                "columns": {"text": "内容"},
                "label_delimiter": "|",
                "drop_labels": ["-", "", "null", "~"],
            }
        },
        {
            "train": {
                "learning_rate": 3e-5,
                "adam_epsilon": 1e-8,
                "eval_every": 7,
                "epochs": 0.1 + 0.2,
                "micro_batch_tokens": None,
                "fgm": 1,
            }
        },
        {
            "options": {"class_weights": {"1": 2.5, "no": 1e-7}, "positive_label": "yes", "dropout": 0},
            "log": {"trackers": ["tensorboard"]},
        },
        {
            "seed": 2**32 - 1,
            "device": "cpu",
            "model": "./no",
            "data": {"labels": ["2024-05-01", "12:30", "1.5", "010", "0x1F", "true"]},
        },
    ],
)
def test_a_run_comes_back_as_it_was(sections: dict) -> None:
    run = run_of(**sections)
    assert again(run).model_dump() == run.model_dump()
    assert dump_config(again(run)) == dump_config(run)


@pytest.mark.parametrize("label", ["1e3", "3e-5", "08", "09", "-08", "7E2", "+1e3"])
def test_labels_that_only_yaml_1_2_takes_for_numbers_come_back(label: str) -> None:
    # A former bug: dump quotes what YAML 1.1 takes for a number; the reader goes by 1.2, so these words are
    # written without quotes and read as numbers (1000.0), or not at all (ValueError on 08).
    run = run_of(data={"labels": [label, "other"]}, options={"positive_label": label})
    assert again(run).model_dump() == run.model_dump()


def test_a_next_line_character_comes_back() -> None:
    # A former bug: PyYAML writes U+0085 unescaped and reads it as a blank.
    run = run_of(data={"drop_labels": ["a\x85b"]})
    assert again(run).data.drop_labels == ["a\x85b"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85"), max_size=8)
NUMBER = st.floats(1e-300, 1e300)


@settings(
    deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(st.lists(TEXT, unique=True, max_size=4), st.dictionaries(TEXT, NUMBER, max_size=3), TEXT, NUMBER)
@example(["\ufeff", "\u2028", "\n", "\t x "], {"<<": 1.0, "=": 1.0, "? ": 1.0}, "- a: b #c", 1e16)
def test_any_run_comes_back_as_it_was(
    labels: list[str], weights: dict[str, float], train: str, rate: float
) -> None:
    # Finds the bug above too, in the form of '0E0'.
    run = run_of(
        data={"labels": labels, "train": train},
        options={"class_weights": weights},
        train={"learning_rate": rate},
    )
    assert again(run).model_dump() == run.model_dump()


def test_a_resolved_run_can_be_overridden(write) -> None:
    path = write("run.yaml", dump_config(run_of(train={"epochs": 2})))
    run, _ = resolve_config(read_config(path, ["train.epochs=5", "data.train=b.csv"]), ClassifyOptions)
    assert (run.train.epochs, run.data.train) == (5, "b.csv")


# ---------------------------------------------------------------- descriptions


def sections() -> list[type[BaseModel]]:
    nested = [field.annotation for field in RunConfig.model_fields.values()]
    own = [kind for kind in nested if isinstance(kind, type) and issubclass(kind, Section)]
    return [RunConfig, *own, *(load_task(name).Options for name in task_names())]


def test_the_sections_of_a_run() -> None:
    assert {"RunConfig", "DataConfig", "TrainConfig", "LogConfig", "ClassifyOptions"} <= {
        kind.__name__ for kind in sections()
    }


@pytest.mark.parametrize("section", sections(), ids=lambda kind: kind.__name__)
def test_every_setting_is_described(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        description = field.description or ""
        assert len(description) > 10, f"{section.__name__}.{name} has no description"
        assert description.rstrip().endswith((".", ")")), f"{section.__name__}.{name}: {description!r}"


@pytest.mark.parametrize("section", sections(), ids=lambda kind: kind.__name__)
def test_no_section_takes_an_unknown_name(section: type[BaseModel]) -> None:
    with pytest.raises(ValueError, match="no_such_setting"):
        section.model_validate({"no_such_setting": 1, **({"task": "x"} if section is RunConfig else {})})
