"""Ray on this machine or a cluster: started, joined, left without a trace; and what a trial gets of it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from bertune.config.tuning import RayConfig
from bertune.errors import ConfigError, Interrupted, MissingExtra
from bertune.files import remove_folder
from bertune.types import JSON

SESSIONS = "bertune-ray-"
CONNECT_SECONDS = 10
WORKERS = {"MALLOC_ARENA_MAX": "1"}
"""What workers find in their environment. A trial is a thread, and glibc would keep memory of each apart:
a worker would grow by half within eight trials."""
ENVIRONMENT = {
    **WORKERS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails has no score
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study is the record
}


def import_ray() -> Any:
    """Return Ray, with Ray Tune.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        with warnings_off():
            import ray
            import ray.tune
    except ImportError:
        raise MissingExtra("ray", "ray", "tune.engine=ray") from None
    return ray


@contextlib.contextmanager
def warnings_off() -> Iterator[None]:
    """Keep warnings that are for Ray's own developers off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def connected(config: RayConfig) -> Iterator[Any]:
    """Start Ray on this machine, or join the cluster at an address; and leave nothing of it behind.

    A Ray that this process has started before stays as it is.

    Raises:
        ConfigError: there is no Ray at the address.
    """
    with _environment():
        ray = import_ray()
        if ray.is_initialized():
            with _silenced():
                yield ray
            return
        with _session(config) as options, warnings_off():
            try:
                context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(f"tune.ray.address: {config.address}: {reason}") from None
            try:
                if config.address is not None and SESSIONS in context.address_info["session_dir"]:
                    raise ConfigError(
                        f"tune.ray.address: {config.address} leads to the Ray of another search on this "
                        "machine, which ends with it; leave tune.ray.address out, or start a Ray that stays: "
                        "ray start --head"
                    )
                with _silenced(), _sigterm_as_interrupt():
                    yield ray
            finally:
                ray.shutdown()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep off the screen what Ray logs, and what it prints of workers that die: it is in the study."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """End a search by SIGTERM as by Ctrl-C; Ray's own handler prints its stack."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: Any) -> None:
        raise Interrupted("the search was asked to stop", number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _session(config: RayConfig) -> Iterator[JSON]:
    """Give the options of `ray.init`; a Ray of this machine has a folder that is removed."""
    if config.address is not None:
        check_address(config.address)
        yield {"address": config.address, "runtime_env": {"env_vars": WORKERS}}
        return
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{SESSIONS}*"):  # of a process that was killed
        owner = left.name.removeprefix(SESSIONS).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            remove_folder(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{SESSIONS}{os.getpid()}-"))
    try:
        yield {"address": "local", "include_dashboard": False, "_temp_dir": str(folder)}
    finally:
        remove_folder(folder)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set what Ray reads from the environment; a value of the user's own stays."""
    added = [name for name in ENVIRONMENT if name not in os.environ]
    os.environ.update({name: ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def check_address(address: str) -> None:
    """Refuse an address where nothing answers: Ray itself would wait for minutes.

    Raises:
        ConfigError: says what is allowed.
    """
    allowed = "write auto on a machine of the cluster, or HOST:PORT as `ray start --head` prints it"
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise ConfigError(f"tune.ray.address: {address!r} is no address; {allowed}")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"tune.ray.address: nothing answers at {address} ({reason}); {allowed}") from None


def check_ray(config: RayConfig, device: str) -> None:
    """Refuse what Ray cannot do, before anything is written.

    Args:
        config: what was asked for.
        device: `device` of the run.

    Raises:
        ConfigError: there is no Ray at the address, or a trial asks for more than a machine has.
        MissingExtra: Ray is not installed.
    """
    import_ray()
    if config.address is None:
        resources_of_trial([{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}], config, device)
        return
    with connected(config) as ray:
        resources_of_trial(machines_of(ray), config, device)


def machines_of(ray: Any) -> list[JSON]:
    """Return what the machines of a running Ray have: CPU, GPU and more."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def resources_of_trial(machines: list[JSON], config: RayConfig, device: str) -> JSON:
    """Return the cores and GPUs of a trial.

    Args:
        machines: what each one has.
        config: what was asked for.
        device: `device` of the run.

    Raises:
        ConfigError: no machine has as many.
    """
    most = {name: max((m.get(name, 0.0) for m in machines), default=0.0) for name in ("CPU", "GPU")}
    gpus = config.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if most["GPU"] and device != "cpu" else 0.0
    cpus = config.cpus_per_trial or max(1, int(most["CPU"]) // 4)
    help_text = (
        "lower it"
        if config.address is None
        else "lower it, or start a machine that has as many, then try again"
    )
    faults = [
        f"tune.ray.{name}: {asked:g} is more than a machine has ({most[kind]:g}); {help_text}"
        for name, kind, asked in (("cpus_per_trial", "CPU", cpus), ("gpus_per_trial", "GPU", gpus))
        if asked > most[kind]
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return {"cpu": cpus, "gpu": gpus} if gpus else {"cpu": cpus}


def slots(machines: list[JSON], config: RayConfig, resources: JSON) -> int:
    """Return how many trials run at once: as many as asked for, or as fit."""
    if config.concurrent is not None:
        return config.concurrent
    kinds = {"cpu": "CPU", "gpu": "GPU"}
    fits = [min(int(m.get(kinds[k], 0) / n + 1e-9) for k, n in resources.items()) for m in machines]
    return max(1, sum(fits))
