"""Tables of flags: every setting exists, every value is allowed, nothing of the other tool is forgotten."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from bertune.commands.convert import convert
from bertune.config.schema import RunConfig
from bertune.migration import accelerate_flags, bertorch_flags, transformers_flags
from bertune.migration.programs import PROGRAMS
from bertune.migration.sentence_transformers_flags import ARGUMENTS, LOSSES
from bertune.migration.training_arguments import FIELDS, OLDER, TRAINING
from bertune.tasks import load_task, task_names

ROOT = Path(__file__).parents[2]
TABLES = {
    **{f"bertorch {name}": flags for name, flags in bertorch_flags.FLAGS.items()},
    "run_base": accelerate_flags.RUN_BASE,
    "tnews": accelerate_flags.TNEWS,
    "run_glue": transformers_flags.GLUE,
    "run_ner": transformers_flags.NER,
    "run_mlm": transformers_flags.MLM,
    "SentenceTransformerTrainingArguments": ARGUMENTS,
}
BASES = {
    **{
        f"bertorch {script}": f"python {script} --train_data_file t.tsv --dev_data_file d.tsv{more}"
        for script, more in {
            "run_classifier.py": " --label_file l.txt", "run_sentencebert.py": " --label_file l.txt",
            "run_simcse.py": "", "run_batchneg.py": "", "run_ner.py": " --label_file l.txt",
        }.items()
    },
    "bertorch predict.py": "python predict.py --input_file a.txt --output_file b.txt "
    "--init_from_ckpt c/d.bin",
    "NLPer-Arsenal run_base.py": "python run_base.py --do_train --train_file t.json --model_name_or_path m "
    "--sentence1_key a --test_file e.json",
    "ChineseBert_pytorch tnews.py": "python tnews.py",
    "transformers run_glue.py": "python run_glue.py --do_train --model_name_or_path m "
    "--train_file t.csv --test_file e.csv",
    "transformers run_ner.py": "python run_ner.py --do_train --model_name_or_path m "
    "--train_file t.json --test_file e.json",
    "transformers run_mlm.py": "python run_mlm.py --do_train --model_type bert --train_file t.txt",
}  # fmt: skip
SAMPLES = {
    "switch": "", "bool": "true", "int": 9, "float": 0.5, "list": "label", "warmup_proportion": 0.2,
    "gradient_accumulation_steps": 2, "checkpointing_steps": 10, "resume_from_checkpoint": "c",
    "metric_for_best_model": "f1", "lr_scheduler_kwargs": "'{}'", "report_to": "tensorboard",
    "lr_scheduler_type": "cosine", "config_overrides": "num_hidden_layers=2",
}  # fmt: skip
SEED_FLAGS = {
    "common": "local_rank pretrained_model_name_or_path init_from_ckpt train_data_file dev_data_file "
    "batch_size scheduler learning_rate warmup_proportion seed save_steps logging_steps weight_decay epochs "
    "max_seq_length saved_dir max_grad_norm save_best_model",
    "run_classifier.py": "label_file is_text_pair",
    "run_sentencebert.py": "label_file is_nli pooling_mode concat_multiply output_emb_size",
    "run_simcse.py": "margin scale dropout pooling_mode output_emb_size",
    "run_batchneg.py": "margin scale pooling_mode output_emb_size mean_loss",
    "run_ner.py": "label_file tag crf_learning_rate use_crf",
    "predict.py": "pretrained_model_name_or_path input_file output_file init_from_ckpt batch_size "
    "max_seq_length pooling_mode output_emb_size",
    "run_base.py": "do_train do_predict train_file validation_file test_file sentence1_key sentence2_key "
    "label_key num_labels cache_dir max_length pad_to_max_length model_name_or_path use_slow_tokenizer "
    "per_device_train_batch_size per_device_eval_batch_size learning_rate weight_decay num_train_epochs "
    "max_train_steps gradient_accumulation_steps lr_scheduler_type num_warmup_steps output_dir "
    "model_checkpoint seed checkpointing_steps resume_from_checkpoint with_tracking report_to "
    "ignore_mismatched_sizes",
    "tnews.py": "task_name train_file validation_file max_length pad_to_max_length model_name_or_path "
    "per_device_train_batch_size per_device_eval_batch_size learning_rate weight_decay num_train_epochs "
    "max_train_steps gradient_accumulation_steps lr_scheduler_type num_warmup_steps output_dir seed",
}
"""The flags in the usage messages of the references."""


def annotation_of(path: str):
    """The types that a setting may have; of an option, one for each task that has it."""
    section, _, name = path.rpartition(".")
    if section == "options":
        models = [load_task(task).Options for task in task_names()]
    else:
        models = [RunConfig.model_fields[section].annotation if section else RunConfig]
    return [
        (model.model_fields[name].annotation, model.model_fields[name].metadata)
        for model in models
        if name in model.model_fields
    ]


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_of_a_flag_exists(table):
    for flag in TABLES[table]:
        assert all(annotation_of(path) for path in flag.settings), flag.name
        assert bool(flag.settings) == (flag.status == "setting"), flag.name
        assert flag.note or flag.status in {"setting", "command"}, flag.name
        assert bool(flag.here) == (flag.status == "command"), flag.name


@pytest.mark.parametrize("table", TABLES)
def test_no_flag_stands_twice(table):
    names = [flag.name for flag in TABLES[table]]
    assert len(names) == len(set(names))


SILENT = {
    "local_rank",
    "do_eval",
    "load_best_model_at_end",
    "lr_scheduler_kwargs",
    "per_gpu_train_batch_size",
}
"""Flags whose sample changes nothing, and of which nothing need be said."""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: f"{p.tool} {p.script}")
def test_every_flag_makes_settings_that_are_allowed_or_is_spoken_of(program):
    """Each choice of each flag, and a plain value where there are none; `convert` checks the settings."""
    base = BASES[f"{program.tool} {program.script}"]
    plain = convert(base)
    for flag in program.flags:
        sample = "false" if flag.default is True else SAMPLES.get(flag.name, SAMPLES.get(flag.kind, "x"))
        for value in [sample] if not flag.choices else [c for c in flag.choices if c != flag.default]:
            if f"--{flag.name} " in f"{base} ":
                continue
            found = convert(f"{base} --{flag.name} {value}")
            is_silent = (found.text, found.notes) == (plain.text, plain.notes)
            assert not is_silent or flag.name in SILENT, f"{flag.name} {value}"


@pytest.mark.parametrize("script", [name for name in SEED_FLAGS if name != "common"])
def test_every_flag_of_a_usage_message_is_there(script):
    program = next(p for p in PROGRAMS if p.script == script and p.tool != "transformers")
    named = SEED_FLAGS[script].split()
    if program.tool == "bertorch" and script != "predict.py":
        named += SEED_FLAGS["common"].split()
    assert {flag.name for flag in program.flags} == set(named)


def test_no_training_argument_is_forgotten():
    from transformers import TrainingArguments

    named = {flag.name for flag in TRAINING}
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert fields - named == set()
    assert named - fields == set()
    assert {flag.name for flag in OLDER} & fields == set()


def test_defaults_of_training_arguments_are_those_of_transformers():
    from transformers import TrainingArguments

    theirs = {
        field.name: field.default_factory() if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(TrainingArguments)
    }
    for flag in TRAINING:
        value = theirs[flag.name]
        value = getattr(value, "value", value)  # enumerations
        assert (list(flag.default) if isinstance(flag.default, tuple) else flag.default) == value, flag.name


def test_no_loss_and_no_argument_of_sentence_transformers_is_forgotten():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer import losses
    from transformers import TrainingArguments

    helpers = ("DistanceMetric", "DistanceFunction", "DataLoader")
    exported = {name for name in losses.__all__ if not name.endswith(helpers)}
    assert exported - {loss.name for loss in LOSSES} == set()
    fields = {f.name for f in dataclasses.fields(SentenceTransformerTrainingArguments)}
    fields -= {f.name for f in dataclasses.fields(TrainingArguments)}
    assert fields - {flag.name for flag in ARGUMENTS} == set()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.here], ids=lambda loss: loss.name)
def test_the_run_of_a_loss_is_a_run(loss):
    from bertune.config.load import read_config, resolve_config

    task, *overrides = loss.here.split()
    resolve_config(read_config(task, overrides), load_task(task).Options)


def script(name: str):
    """A module of the folder scripts."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "from").glob("*.md")), ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_what_the_flags_say(page):
    text = page.read_text(encoding="utf-8")
    assert script("migration_docs").page_text(text) == text


def test_every_table_is_on_a_page_and_every_flag_in_a_table():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "from").glob("*.md"))
    assert set(re.findall(r"<!-- table: (.+?) -->", pages)) == set(script("migration_docs").TABLES)
    for flags in (*TABLES.values(), FIELDS):
        assert [flag.name for flag in flags if not re.search(rf"`(--)?{flag.name}`", pages)] == []
