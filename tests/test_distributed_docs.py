"""The examples of docs/distributed.md parse: bash, torchrun, accelerate, Slurm's and Kubernetes' rules."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from bertune.config.schema import RunConfig

PAGE = Path(__file__).parents[1] / "docs" / "distributed.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(kind: str, with_: str = "") -> list[str]:
    return [text for name, text in BLOCKS if name == kind and with_ in text]


def commands(text: str) -> list[list[str]]:
    """The words of each torchrun of a block, variables as they stand."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if "torchrun " in line and not line.startswith("#")]
    return [shlex.split(line[line.index("torchrun ") :].rstrip("& "), comments=True) for line in lines]


def test_every_block_is_of_a_kind_that_is_checked_here():
    assert {name for name, _ in BLOCKS} <= {"bash", "yaml", "json"}
    assert TEXT.count("```") == 2 * len(BLOCKS)
    assert len(blocks("bash", "#SBATCH")) == 1
    assert len(blocks("yaml", "kind: Job")) == 1


@pytest.mark.parametrize("text", blocks("bash"), ids=lambda text: text.splitlines()[0][:40])
def test_bash_reads_every_script(text):
    found = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("text", blocks("yaml") + blocks("json"), ids=lambda text: text.splitlines()[1][:40])
def test_every_yaml_and_json_can_be_read(text):
    parts = list(yaml.safe_load_all(text))
    assert parts
    assert all(isinstance(part, dict) for part in parts)


def as_torchrun_takes_it(words: list[str]) -> list[str]:
    """What is left for bertune of the words of a torchrun."""
    from torch.distributed.run import parse_args

    parsed = parse_args([re.sub(r"\$\w+", "4", word) for word in words[1:]])
    assert parsed.module
    assert parsed.training_script == "bertune"
    return list(parsed.training_script_args)


def test_torchrun_takes_every_command_and_bertune_knows_what_it_starts():
    from bertune.cli.app import app

    verbs = {command.callback.__name__ for command in app.registered_commands}
    found = [as_torchrun_takes_it(words) for text in blocks("bash") for words in commands(text)]
    (manifest,) = blocks("yaml", "kind: Job")
    job = next(part for part in yaml.safe_load_all(manifest) if part["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found.append(as_torchrun_takes_it(container["command"]))
    assert len(found) >= 7
    assert {words[0] for words in found} <= verbs
    again = [words for words in found if "--resume" in words]
    assert all(words[0] == "train" and any(word.startswith("out=") for word in words) for words in again)
    assert len(again) == 3  # two machines, Slurm, Kubernetes


def test_the_pods_of_the_job_find_each_other():
    (manifest,) = blocks("yaml", "kind: Job")
    service, job = yaml.safe_load_all(manifest)
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    name, template, spec = job["metadata"]["name"], job["spec"]["template"]["spec"], job["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["metadata"]["name"] == template["subdomain"]
    (container,) = template["containers"]
    assert spec["completionMode"] == "Indexed"  # which names pods NAME-0, NAME-1
    assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:29500" in container["command"]
    assert f"--nnodes={spec['completions']}" in container["command"]
    assert spec["completions"] == spec["parallelism"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in template["volumes"]}
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in container["command"]


CONFIGS = blocks("yaml", "compute_environment")


@pytest.mark.parametrize("text", CONFIGS, ids=["GPUs", "machines", "processor", "pieces"])
def test_accelerate_takes_every_configuration_and_starts_several_processes(text, tmp_path):
    """In the code of its launcher; the one for a processor is run in tests/cli/test_distributed.py."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    file = tmp_path / "accelerate.yaml"
    file.write_text(text)
    known = load_config_from_file(str(file))
    assert known.num_processes in {2, 4, 8}
    words = ["--config_file", str(file), "-m", "bertune", "train", "run.yaml", "out=runs/big"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.multi_gpu or arguments.use_fsdp  # or it would start one
    assert not arguments.cpu
    assert (arguments.module, arguments.training_script, arguments.num_processes) == (
        True,
        "bertune",
        known.num_processes,
    )


def test_multi_cpu_would_start_one_process(tmp_path):
    """As the page says of accelerate; when this fails, accelerate has learnt it, and the page may say so."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    file = tmp_path / "accelerate.yaml"
    file.write_text(CONFIGS[2].replace("MULTI_GPU", "MULTI_CPU"))
    words = ["--config_file", str(file), "-m", "bertune", "train", "run.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert not arguments.multi_gpu
    command, environment = prepare_simple_launcher_cmd_env(arguments)
    assert command == [sys.executable, "-m", "bertune", "train", "run.yaml"]
    assert "WORLD_SIZE" not in environment or environment["WORLD_SIZE"] == os.environ.get("WORLD_SIZE")


@pytest.mark.parametrize("section", ["train", "data"])
def test_the_settings_that_the_page_names_exist(section):
    named = set(re.findall(rf"`{section}\.(\w+)", TEXT))
    assert named <= set(RunConfig.model_fields[section].annotation.model_fields)
    assert named or section == "data"


@pytest.mark.skipif(os.name == "nt", reason="Slurm's scripts are bash")
@pytest.mark.parametrize(
    ("ends", "expected"),
    [("", (0, "requeue 7")), ("0", (0, "")), ("3", (3, ""))],
    ids=["time is up", "done", "error"],
)
def test_the_slurm_script_puts_a_job_back_when_its_time_is_up_and_only_then(ends, expected, tmp_path):
    """With stand-ins for Slurm's commands."""
    (script,) = blocks("bash", "#SBATCH")
    stand_ins = {
        "srun": f'echo "$@" > {tmp_path}/srun; echo $$ > {tmp_path}/pid\n'
        + (
            f"exit {ends}"
            if ends
            else f"trap 'sleep 0.5; echo stopped > {tmp_path}/stopped; exit 1' TERM\n"
            "while :; do sleep 0.05; done"
        ),
        "scancel": f'[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat {tmp_path}/pid)"',
        "scontrol": 'if [ "$1" = show ]; then printf "one\\ntwo\\n"; '
        f'else test -e {tmp_path}/stopped && echo "$@" > {tmp_path}/requeue; fi',
    }
    for name, text in stand_ins.items():
        file = tmp_path / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
        "SLURM_JOB_NODELIST": "one,two",
    }
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    (tmp_path / "job.sh").write_text(script)
    with subprocess.Popen(
        ["bash", str(tmp_path / "job.sh")], env=environment, start_new_session=True
    ) as running:
        try:
            end = time.monotonic() + 60
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.2)
            if not ends:
                running.send_signal(signal.SIGUSR1)
            code = running.wait(60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    back = tmp_path / "requeue"
    assert (code, back.read_text().strip() if back.exists() else "") == expected
    words = shlex.split((tmp_path / "srun").read_text())
    assert words[0] == "torchrun"
    assert "one:29500" in words
    assert as_torchrun_takes_it(words) == ["train", "run.yaml", "out=runs/big", "--resume"]
