"""What starts a script: python, torchrun, torch.distributed.launch, accelerate, deepspeed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from bertune.errors import ConfigError
from bertune.migration.shell import Command

_WITHOUT_VALUE = {
    *("use_env", "standalone", "no_python", "multi_gpu", "cpu", "mps", "tpu", "use_fsdp", "use_deepspeed"),
    *("debug", "quiet", "same_network", "u", "m", "module", "npu", "xpu"),
}
_PROCESSES = ("nproc_per_node", "num_processes", "num_gpus")
_NODES = ("nnodes", "num_machines", "num_nodes")
_OTHER_NODES = {
    "node_rank": "--node-rank", "machine_rank": "--node-rank",
    "master_addr": "--master-addr", "main_process_ip": "--master-addr",
    "master_port": "--master-port", "main_process_port": "--master-port",
}  # fmt: skip
_KNOWN = {*_PROCESSES, *_NODES, *_OTHER_NODES, *_WITHOUT_VALUE, "gpu_ids", "mixed_precision"}


@dataclass(frozen=True)
class Launch:
    """A script, its arguments, and how it is started."""

    script: str
    """The name of the file, without folders."""
    arguments: tuple[str, ...]
    processes: int = 1
    """Of all machines together."""
    prefix: str = "bertune"
    """What starts bertune in the same way, up to the verb."""
    visible_gpus: int = 0
    """How many GPUs CUDA_VISIBLE_DEVICES names; 0 where it is not set."""
    is_launched: bool = False
    """Whether a launcher starts it, and not python alone."""
    mixed_precision: str = "no"
    notes: tuple[str, ...] = ()


def read_launch(command: Command) -> Launch:
    """Tell what a command starts, and with how many processes.

    Raises:
        ConfigError: the number of processes is no number.
    """
    words = list(command.words)
    at = next(n for n, word in enumerate(words) if word.endswith(".py"))
    options = _options(words[:at])
    environment = dict(command.environment)
    is_accelerate = any(PurePath(word).name.startswith("accelerate") for word in words[:at])
    if options.get("gpu_ids", "all") != "all":
        environment.setdefault("CUDA_VISIBLE_DEVICES", options["gpu_ids"])
    devices = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    nodes = _number(options, _NODES, 1, len(devices))
    processes = _number(options, _PROCESSES, len(devices) if "multi_gpu" in options else 1, len(devices)) or 1
    processes *= 1 if is_accelerate else nodes
    return Launch(
        script=PurePath(words[at]).name,
        arguments=tuple(words[at + 1 :]),
        processes=processes,
        prefix=_prefix(environment, options, processes, nodes),
        visible_gpus=len(devices),
        is_launched=_is_launched(words[:at]),
        mixed_precision=options.get("mixed_precision", "no"),
        notes=(*command.notes, *_notes(words[:at], options)),
    )


def _options(words: Sequence[str]) -> dict[str, str]:
    """Return the options of a launcher: the words between it and the script."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not equals and name not in _WITHOUT_VALUE and at < len(words) and not words[at].startswith("-"):
            value = words[at]
            at += 1
        found[name] = value
    return found


def _number(options: Mapping[str, str], names: Sequence[str], default: int, gpus: int) -> int:
    name = next((name for name in names if name in options), None)
    if name is None:
        return default
    value = options[name]
    if value in {"gpu", "auto"} and gpus:
        return gpus
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"--{name}: {value!r} is not a number of processes or machines; write one")
    return int(value)


def _is_launched(words: Sequence[str]) -> bool:
    launchers = ("torchrun", "accelerate", "deepspeed", "torch.distributed", "horovodrun", "mpirun")
    return any(PurePath(word).name.startswith(launchers) for word in words)


def _prefix(environment: Mapping[str, str], options: Mapping[str, str], processes: int, nodes: int) -> str:
    """Return the words that start bertune in as many processes."""
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    if processes == 1:
        return " ".join([*words, "bertune"])
    words += ["torchrun", f"--nproc-per-node {processes // nodes}"]
    if nodes > 1:
        words.append(f"--nnodes {nodes}")
        words += [f"{_OTHER_NODES[name]} {value}" for name, value in options.items() if name in _OTHER_NODES]
    elif "master_port" in options:
        words.append(f"--master-port {options['master_port']}")
    return " ".join([*words, "-m bertune"])


def _notes(words: Sequence[str], options: Mapping[str, str]) -> list[str]:
    notes = [
        f"--{name} of the launcher: not needed"
        for name in options
        if name not in _KNOWN and name != "config_file"
    ]
    if "config_file" in options:
        notes.append(
            f"--config_file {options['config_file']}: not read; processes and precision in it are not "
            f"known here"
        )
    if "use_deepspeed" in options or any(PurePath(word).name == "deepspeed" for word in words):
        notes.append("DeepSpeed: not available; train.fsdp=true shards a model that is too large")
    return notes
