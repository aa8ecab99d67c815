"""`bertune convert`: every command of the references, and what users make of them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.config.load import read_config, resolve_config
from bertune.config.yaml import dump_flow, parse_yaml
from bertune.errors import ConfigError
from bertune.migration.flag import read_values
from bertune.migration.shell import read_command
from bertune.migration.training_arguments import TRAINING
from bertune.tasks import load_task

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CLASSIFIER = "python run_classifier.py --train_data_file t.tsv --label_file l.txt"
MLM = "python run_mlm.py --model_name_or_path m --do_train --do_eval --output_dir o"
NEW_MLM = "python run_mlm.py --model_type bert --do_train --train_file t.txt"
GLUE = "python run_glue.py --model_name_or_path m --do_train --do_eval --output_dir o"


def load_examples():
    name = "seed_examples"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


SEEDS = load_examples()


def call(*words: str, stdin: str | None = None):
    return CliRunner().invoke(app, ["convert", *words], input=stdin)


def settings_of(command: str) -> dict:
    return bertune.convert(command).settings


@pytest.mark.parametrize("name", SEEDS.EXAMPLES)
def test_a_command_of_a_reference_is_its_example(name, tmp_path):
    """Command to YAML to settings, all of them allowed, equal to those of the file in examples."""
    found = call(SEEDS.EXAMPLES[name].command)
    assert found.exit_code == 0, found.output
    (tmp_path / "run.yaml").write_text(found.stdout, encoding="utf-8")
    printed, example = read_config(tmp_path / "run.yaml"), read_config(EXAMPLES / f"{name}.yaml")
    assert printed == example == settings_of(SEEDS.EXAMPLES[name].command)
    run, _ = resolve_config(printed, load_task(printed["task"]).Options)
    assert run.out == printed["out"]
    assert (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8") == SEEDS.example_text(name)


def test_every_example_of_a_reference_has_a_command():
    by_hand = {"seed-001-glue-cola-tune", "seed-002-yelp"}
    assert {path.stem for path in EXAMPLES.glob("seed-*.yaml")} == {*SEEDS.EXAMPLES, *by_hand}


def test_a_command_that_predicts_becomes_one():
    found = call(SEEDS.RUN_BASE_PREDICT)
    assert found.exit_code == 0
    assert found.stdout == (
        "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node 2 -m bertune predict "
        "../../data/outputs/clf/final_checkpoint path/to/your/test_file "
        "-o ../../data/outputs/clf/predictions.json\n"
    )
    assert "--num_labels: not needed" in found.stderr
    predict = (
        "python predict.py --input_file 'my pairs.txt' --output_file o.txt --init_from_ckpt ck/model.bin"
    )
    assert call(predict).stdout == (
        "bertune predict ck 'my pairs.txt' \"data.columns=[text,text_b]\" --format csv -o o.txt\n"
    )


def test_the_defaults_of_bertorch_are_written_out():
    train = settings_of(f"{CLASSIFIER} --dev_data_file d.tsv")["train"]
    assert train == {
        "epochs": 3, "batch_size": 32, "learning_rate": 5e-5, "head_learning_rate": 5e-5, "weight_decay": 0.0,
        "adam_epsilon": 1e-6, "max_grad_norm": 1.0, "schedule": "linear", "warmup_ratio": 0.0,
        "precision": "fp32", "eval_every": 100,
    }  # fmt: skip


def test_without_a_dev_file_bertorch_trains_on_all_rows():
    found = settings_of(CLASSIFIER)
    assert found["data"]["dev_fraction"] == 0.0
    assert found["train"]["eval_every"] == "end"


@pytest.mark.parametrize(
    ("launcher", "processes", "prefix"),
    [
        ("python", 1, "bertune"),
        ("python3 -u", 1, "bertune"),
        ("nohup python", 1, "bertune"),
        ("CUDA_VISIBLE_DEVICES=3 python", 1, "CUDA_VISIBLE_DEVICES=3 bertune"),
        ("torchrun --nproc_per_node=4", 4, "torchrun --nproc-per-node 4 -m bertune"),
        ("torchrun --nproc-per-node 4 --nnodes 2 --node_rank 1 --master_addr 10.0.0.1 --master_port 29500", 8,
         "torchrun --nproc-per-node 4 --nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 29500 "
         "-m bertune"),
        ("python -m torch.distributed.launch --nproc_per_node 2 --use_env", 2,
         "torchrun --nproc-per-node 2 -m bertune"),
        ("python -m torch.distributed.run --standalone --nproc_per_node=2", 2,
         "torchrun --nproc-per-node 2 -m bertune"),
        ("CUDA_VISIBLE_DEVICES=0,1,2 torchrun --nproc_per_node=gpu", 3,
         "CUDA_VISIBLE_DEVICES=0,1,2 torchrun --nproc-per-node 3 -m bertune"),
        ("accelerate launch", 1, "bertune"),
        ("accelerate launch --multi_gpu --num_processes 8 --num_machines 2 --machine_rank 0 "
         "--main_process_ip h --main_process_port 1", 8,
         "torchrun --nproc-per-node 4 --nnodes 2 --node-rank 0 --master-addr h --master-port 1 -m bertune"),
        ("accelerate launch --multi_gpu --gpu_ids 0,1", 2,
         "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node 2 -m bertune"),
    ],
)  # fmt: skip
def test_launchers(launcher, processes, prefix):
    command = CLASSIFIER.replace("python", launcher, 1)
    found = bertune.convert(command)
    assert found.settings["train"]["batch_size"] == 32 * processes
    assert found.commands == (f"{prefix} train RUN.yaml",)


@given(
    rows=st.integers(1, 64),
    processes=st.integers(1, 16),
    accumulation=st.integers(1, 8),
    script=st.integers(0, 1),
)
@settings(max_examples=40)
def test_the_batch_is_rows_times_processes_times_accumulation(rows, processes, accumulation, script):
    name, more = (("run_base.py", ""), ("run_glue.py", "--output_dir o"))[script]
    found = settings_of(
        f"torchrun --nproc_per_node {processes} {name} --do_train --train_file t.json "
        f"--model_name_or_path m {more} "
        f"--per_device_train_batch_size {rows} --gradient_accumulation_steps {accumulation}"
    )
    assert found["train"]["batch_size"] == rows * processes * accumulation
    assert found["train"].get("micro_batches", 1) == accumulation


@pytest.mark.parametrize(
    ("flags", "section", "name", "value"),
    [
        ("--eval_strategy epoch", "train", "eval_every", "epoch"),
        ("--evaluation_strategy steps --eval_steps 50", "train", "eval_every", 50),
        ("--eval_strategy steps", "train", "eval_every", 500),
        ("--eval_strategy steps --logging_steps 30", "train", "eval_every", 30),
        ("", "train", "eval_every", "end"),
        ("--save_strategy no", "train", "checkpoint_every", "never"),
        ("--save_steps 200", "train", "checkpoint_every", 200),
        ("--save_total_limit 1", "train", "keep_checkpoints", 1),
        ("--warmup_ratio 0.1", "train", "warmup_ratio", 0.1),
        ("--warmup_steps 0.06", "train", "warmup_ratio", 0.06),
        ("--warmup_steps 100", "train", "warmup_steps", 100),
        ("--max_steps 10", "train", "max_steps", 10),
        ("--fp16", "train", "precision", "fp16"),
        ("--bf16 True", "train", "precision", "bf16"),
        ("--fp16 False", "train", "precision", "fp32"),
        ("--label_smoothing_factor 0.1", "options", "label_smoothing", 0.1),
        ("--metric_for_best_model eval_matthews_correlation", "options", "metric", "mcc"),
        ("--max_train_samples 100", "data", "limit", 100),
        ("--report_to tensorboard wandb", "log", "trackers", ["tensorboard", "wandb"]),
        ("--learning-rate 1e-5", "train", "learning_rate", 1e-5),
        ("--learning_rate=1e-5", "train", "head_learning_rate", 1e-5),
        ("--lr_scheduler_type cosine_with_restarts --lr_scheduler_kwargs '{\"num_cycles\": 2}'",
         "train", "schedule_cycles", 2),
        ("--per_gpu_train_batch_size 4", "train", "batch_size", 4),
        ("--adam_epsilon 1e-6", "train", "adam_epsilon", 1e-6),
    ],
)  # fmt: skip
def test_training_arguments(flags, section, name, value):
    assert settings_of(f"{GLUE} --task_name mrpc {flags}")[section][name] == value


def test_python_alone_with_several_gpus_is_data_parallel_in_trainer_only():
    glue = bertune.convert(f"CUDA_VISIBLE_DEVICES=0,1 {GLUE} --task_name rte")
    assert glue.settings["train"]["batch_size"] == 16
    assert any("DataParallel" in note for note in glue.notes)
    assert settings_of(f"CUDA_VISIBLE_DEVICES=0,1 {CLASSIFIER}")["train"]["batch_size"] == 32


def test_a_data_set_of_the_hub_and_both_run_ner():
    found = settings_of(
        "python run_ner.py --model_name_or_path m --dataset_name conll2003 --do_train --output_dir o"
    )
    assert found["data"]["train"] == "hub:conll2003:train"
    assert found["task"] == "tag"
    named = settings_of(
        "python run_ner.py --model_name_or_path m --train_file t.json --text_column_name w "
        "--label_column_name t --do_train --output_dir o"
    )
    assert named["data"]["columns"] == {"text": "w", "label": "t"}
    bertorch = bertune.convert("python run_ner.py --train_data_file t.json --label_file l.txt --tag bio")
    assert bertorch.tool == "bertorch"
    assert bertorch.settings["options"]["scheme"] == "BIO"


def test_run_base_looks_at_the_labels_and_columns_of_a_file(tmp_path):
    base = "python run_base.py --do_train --model_name_or_path m --train_file"
    (tmp_path / "n.csv").write_text("a,b,y\nx,y,1.5\nx,z,2\n", encoding="utf-8")
    (tmp_path / "c.json").write_text('{"sequence1": "x", "label": 1}\n', encoding="utf-8")
    found = settings_of(f"{base} {tmp_path / 'n.csv'} --label_key y")
    assert found["task"] == "regress"
    assert found["data"]["columns"] == {"text": "a", "text_b": "b", "label": "y"}
    assert settings_of(f"{base} {tmp_path / 'c.json'}")["task"] == "classify"
    assert settings_of(f"{base} {tmp_path / 'c.json'} --num_labels 1")["task"] == "regress"


def test_run_glue_that_only_evaluates_and_predicts_becomes_commands():
    glue = "torchrun --nproc_per_node 2 run_glue.py --model_name_or_path m --task_name stsb --output_dir o"
    found = bertune.convert(f"{glue} --do_eval --do_predict")
    assert found.settings == {}
    start = "torchrun --nproc-per-node 2 -m bertune"
    assert found.text == (
        f"{start} evaluate m glue:stsb:dev\n{start} predict m glue:stsb:test -o o/predictions.jsonl\n"
    )


def test_without_a_validation_file_run_glue_trains_on_all_rows():
    found = settings_of(f"{GLUE} --train_file t.csv --eval_strategy epoch")
    assert found["data"]["dev_fraction"] == 0.0
    assert found["train"]["eval_every"] == "end"


def test_arguments_in_a_json_file(tmp_path):
    values = {"model_name_or_path": "m", "task_name": "cola", "do_train": True, "fp16": False, "fsdp": [],
              "learning_rate": 2e-5, "report_to": ["tensorboard"], "output_dir": "o",
              "_n_gpu": 1}  # fmt: skip
    file = tmp_path / "args.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    of_file = bertune.convert(str(file))
    assert of_file.settings["train"]["learning_rate"] == 2e-5
    assert of_file.settings["log"]["trackers"] == ["tensorboard"]
    assert bertune.convert(f"python run_glue.py {file}").settings == of_file.settings
    assert bertune.convert(values).settings == of_file.settings


def test_input_from_a_file_standard_input_and_words(tmp_path):
    file = tmp_path / "train.sh"
    file.write_text(
        f"#!/bin/bash\ncd bertorch\n{CLASSIFIER} \\\n  --epochs 2 > log.txt 2>&1 &\n", encoding="utf-8"
    )
    expected = bertune.convert(f"{CLASSIFIER} --epochs 2").text
    assert call(str(file)).stdout == expected
    assert call("-", stdin=file.read_text(encoding="utf-8")).stdout == expected
    assert call("--", *CLASSIFIER.split(), "--epochs", "2").stdout == expected
    assert "'cd bertorch': not part of the command" in call(str(file)).stderr


def test_the_run_file_is_written_and_never_overwritten(tmp_path):
    output = tmp_path / "run.yaml"
    first = call(CLASSIFIER, "-o", str(output))
    assert (first.exit_code, first.stdout) == (0, f"bertune train {output}\n")
    # A long path is on a line of its own.
    head = output.read_text(encoding="utf-8").replace(" \\\n#      ", "")
    assert f"#   bertune train {output}\n" in head
    assert call(CLASSIFIER, "-o", str(output)).exit_code == 0
    other = call(f"{CLASSIFIER} --epochs 9", "-o", str(output))
    assert other.exit_code == 2
    assert "exists already with other content" in other.stderr
    assert read_config(output)["train"]["epochs"] == 3


def test_json(tmp_path):
    found = json.loads(call(CLASSIFIER, "--json").stdout)
    assert found["settings"] == settings_of(CLASSIFIER)
    assert set(found) == {"tool", "script", "settings", "commands", "notes"}


BAD = [
    (
        "python run_classifier.py --train_file a",
        "has no flag --train_file; did you mean '--train_data_file'?",
    ),
    ("python run_classifier.py --train_data_file a", "--label_file must be given"),
    (f"{CLASSIFIER} --epochs", "--epochs: has no value"),
    (f"{CLASSIFIER} --epochs many", "--epochs: 'many' is not a number"),
    (f"{CLASSIFIER} --epochs 1.5", "--epochs: '1.5' is not a whole number"),
    (f"{CLASSIFIER} --scheduler lineal", "did you mean 'linear'"),
    (f"{CLASSIFIER} --save_best_model=yes", "takes no value"),
    (f"{CLASSIFIER} --max_ 3", "is the beginning of --max_seq_length, --max_grad_norm"),
    (f"{CLASSIFIER} dev.tsv", "'dev.tsv' belongs to no flag"),
    (f"{CLASSIFIER} --warmup_proportion 2", "train.warmup_ratio"),
    (f"{CLASSIFIER} --batch_size 0", "train.batch_size"),
    (f"{CLASSIFIER} --saved_dir 'x", "does not end"),
    (f"{CLASSIFIER} --saved_dir $OUT", "$OUT, which nothing sets"),
    (f"{CLASSIFIER} --saved_dir $(date)", "$(...)"),
    (f"{CLASSIFIER}; {CLASSIFIER}", "there are 2 commands"),
    ("python train.py --x 1", "train.py: its flags are not known"),
    ("python run_glu.py --x 1", "did you mean 'run_glue.py'"),
    ("", "no command with a Python script"),
    ("bertune train classify", "no command with a Python script"),
    ("torchrun --nproc_per_node=many run_classifier.py", "'many' is not a number of processes"),
    ("python run_sentencebert.py --train_data_file a --is_nli", "--is_nli needs --label_file"),
    ("python run_base.py --train_file a", "--do_train or --do_predict"),
    ("python run_base.py --do_train --train_file a", "--model_name_or_path must be given"),
    ("python run_base.py --do_predict", "--do_predict needs --test_file"),
    ("python run_base.py --do_train --train_file a --model_name_or_path m --label_key y", "--sentence1_key"),
    (
        "python run_base.py --do_train --train_file a --model_name_or_path m --checkpointing_steps x",
        "neither epoch",
    ),
    ("python run_glue.py --model_name_or_path m --task_name cola", "--do_train, --do_eval or --do_predict"),
    (f"{GLUE}", "--dataset_name, --train_file, or --task_name"),
    (f"{GLUE} --task_name colla", "did you mean 'cola'"),
    (f"{GLUE} --task_name cola --fp16 maybe", "neither true nor false"),
    (f"{GLUE} --task_name cola --lr_scheduler_kwargs x", "is not JSON"),
    ("python run_mlm.py --model_name_or_path m --train_file t.txt", "--do_train, --do_eval or --do_predict"),
    (f"{MLM}", "--dataset_name or --train_file must be given"),
    (f"{MLM} --train_file t.txt --config_overrides hidden_size=8", "is for a model from nothing"),
    ("python run_mlm.py --do_train --train_file t.txt", "--model_type bert"),
    ("python run_mlm.py --do_train --train_file t.txt --model_type albert", "only a bert can begin"),
    (f"{NEW_MLM} --config_overrides hidden_size", "is no NAME=VALUE"),
    (f"{NEW_MLM} --config_overrides hidden_size=1e3", "must be a whole number"),
    (f"{NEW_MLM} --config_overrides num_attention_heads=7", "heads 7 do not divide hidden_size 768"),
    (f"{NEW_MLM} --max_seq_length 1024", "add --config_overrides max_position_embeddings=1024"),
    ("python run_mlm.py --do_eval --model_name_or_path m", "--validation_file must be given"),
    ("missing.json", "cannot be read"),
    ("missing.sh", "missing.sh: no such file, and no command"),
]


def test_run_mlm_goes_on_with_a_pretrained_encoder():
    found = bertune.convert(f"{MLM} --train_file t.txt --validation_file d.txt --max_seq_length 128")
    assert {name: found.settings[name] for name in ("task", "model", "data", "options")} == {
        "task": "pretrain", "model": "m",
        "data": {"train": "t.txt", "dev": "d.txt", "format": "lines", "max_length": 128},
        "options": {"fraction": 0.15, "packing": "joined"},
    }  # fmt: skip
    train = found.settings["train"]
    assert (train["learning_rate"], train["batch_size"], train["epochs"]) == (5e-5, 8, 3)
    assert (train["schedule"], train["weight_decay"]) == ("linear", 0.0)
    assert found.commands == ("bertune train RUN.yaml",)
    by_line = settings_of(f"{MLM} --train_file t.csv --line_by_line --mlm_probability 0.3")
    assert by_line["options"] == {"fraction": 0.3, "packing": "none"}
    assert by_line["data"] == {"train": "t.csv", "dev_fraction": 0.05}
    assert by_line["train"]["eval_every"] == "end"
    split = f"{MLM} --train_file t.csv --validation_split_percentage 10 --eval_strategy epoch"
    assert settings_of(split)["data"]["dev_fraction"] == 0.1
    assert settings_of(split)["train"]["eval_every"] == "epoch"


def test_run_mlm_begins_from_nothing():
    found = bertune.convert(
        f"{NEW_MLM} --tokenizer_name bert-base-uncased "
        "--config_overrides num_hidden_layers=2,hidden_size=128,num_attention_heads=2,x=1"
    )
    assert found.settings["model"] == "new"
    assert found.settings["options"]["new"] == {
        "layers": 2, "hidden_size": 128, "heads": 2, "intermediate_size": 3072, "max_positions": 512,
        "vocab_size": 30522,
    }  # fmt: skip
    assert any(line.startswith("--config_overrides x: not available") for line in found.notes)
    assert any("trained on the training rows" in line for line in found.notes)


def test_run_mlm_reads_a_data_set_of_the_hub_and_only_scores_a_model():
    hub = settings_of(f"{MLM} --dataset_name wikitext --dataset_config_name wikitext-2-raw-v1")["data"]
    assert hub == {
        "train": "hub:wikitext/wikitext-2-raw-v1:train", "dev": "hub:wikitext/wikitext-2-raw-v1:validation",
    }  # fmt: skip
    scored = bertune.convert("python run_mlm.py --do_eval --model_name_or_path m --validation_file d.txt")
    assert scored.commands == ("bertune evaluate m d.txt",)


@pytest.mark.parametrize(("command", "message"), BAD)
def test_bad_input_is_refused_with_what_to_do(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = call(command, "-o", "run.yaml")
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError):
        bertune.convert(command)


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("--optim adafactor", "--optim: not available"),
        (
            "--lr_scheduler_type reduce_lr_on_plateau",
            "--lr_scheduler_type reduce_lr_on_plateau: not available",
        ),
        ("--group_by_length", "--group_by_length: not needed"),
        ("--gradient_checkpointing", "--gradient_checkpointing: not available"),
        ("--deepspeed ds.json", "--deepspeed: not available"),
        ("--push_to_hub", "--push_to_hub: not available"),
        ("--metric_for_best_model eval_loss", "--metric_for_best_model eval_loss: not available"),
        ("--eval_strategy steps --eval_steps 0.1", "a fraction of all steps is not available"),
    ],
)
def test_what_has_no_meaning_here_is_said(flags, note):
    assert any(
        line.startswith(note) or note in line
        for line in bertune.convert(f"{GLUE} --task_name rte {flags}").notes
    )


def test_adamw_by_any_name_needs_no_note():
    assert bertune.convert(f"{GLUE} --task_name rte --optim adamw_torch").notes == ()


WORDS = st.lists(
    st.text("ab12 '\"\\$#-=./(){}[]天", min_size=0, max_size=8).filter(lambda t: "$" not in t),
    min_size=1,
    max_size=5,
)


@given(words=WORDS)
def test_words_that_a_shell_quotes_come_back(words):
    import shlex

    found = read_command(shlex.join(["python", "a.py", *words]))
    assert list(found.words) == ["python", "a.py", *words]


PLAIN = st.text("ab01.e-/: #'{}[],天", max_size=10)


@given(
    value=st.recursive(
        PLAIN | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
        max_leaves=6,
    )
)
def test_a_value_on_one_line_is_read_back(value):
    line = dump_flow(value)
    assert "\n" not in line
    assert parse_yaml(f"key: {line}", "test") == {"key": value}


def test_a_folder_named_after_a_rate_keeps_its_name(tmp_path):
    command = f"{CLASSIFIER} --saved_dir runs/lr3.0e-05 --learning_rate 3e-5"
    (tmp_path / "run.yaml").write_text(bertune.convert(command).text, encoding="utf-8")
    assert read_config(tmp_path / "run.yaml")["out"] == "runs/lr3.0e-05"


SHELL = [
    "python a.py --x 'a b' \"c d\" e\\ f",
    'python a.py --x "a\\"b" \'a\\b\' "$HOME_" # a comment',
    "python a.py --x=1 \\\n  --y 2",
    "N=3\npython a.py --n $N --m ${N}x '$N' \"<$N>\"",
    "python a.py a#b --c ''",
    "export TASK=mrpc; python a.py --task $TASK --out /tmp/$TASK/",
]


@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("text", SHELL)
def test_words_are_those_of_bash(text):
    text = text.replace("$HOME_", "")
    shown = subprocess.run(
        ["bash", "-c", text.replace("python a.py", "printf '%s\\0' python a.py")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert list(read_command(text).words) == shown.split("\0")[:-1]


@pytest.mark.parametrize(
    "line",
    [
        "--learning_rate 1e-4 --fp16 --num_train_epochs=2 --output_dir o",
        "--bf16 true --logging_steps 10 --report_to tensorboard --seed 7",
        "--fp16 no --eval_strategy steps --eval_steps 5 --save_total_limit 2",
        "--dataloader_pin_memory False --max_steps -1 --warmup_steps 0.1",
        "--per_device_train 4 --weight_dec 0.1",
    ],
)
def test_values_are_those_of_transformers(line):
    from transformers import HfArgumentParser, TrainingArguments

    theirs = HfArgumentParser(TrainingArguments).parse_args(line.split())
    ours = read_values(line.split(), TRAINING, "run_glue.py")
    for name, value in ours.given.items():
        expected = getattr(theirs, name)
        assert (value[0] if name == "report_to" else value) == getattr(expected, "value", expected), name
