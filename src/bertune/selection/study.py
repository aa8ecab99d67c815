"""The search by Optuna: one study in SQLite, for this process and every other one that joins in."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bertune.config.schema import RunConfig
from bertune.config.tuning import TuneConfig
from bertune.errors import ConfigError, Interrupted, MissingExtra, TrainingError
from bertune.files import locked, part_of, remove_folder
from bertune.selection.space import SearchSpace
from bertune.selection.trial_run import TrialResult, TrialRunner
from bertune.selection.trials import Study, Trial, TrialState
from bertune.types import JSON

STUDY_FILE, BEST_TRIAL = "study.db", "best_trial"
STUDY_NAME = "bertune"
FAILURES_THAT_END = 3
"""So many trials that failed, and none that did not, end the search."""
MAX_RETRIES = 1
"""How often a trial whose process ended is run again: it may be the trial that ends the process."""

OnTrial = Callable[[Study], None]
"""Called with all trials so far: when a trial begins, at each evaluation, and when it ends."""


def import_optuna() -> Any:
    """Return Optuna.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "tune", "bertune tune") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class OptunaStudy:
    """A study in a file of a folder.

    Args:
        folder: of the search; the study is in `STUDY_FILE`, the best model so far in `BEST_TRIAL`.
        runner: runs the trials.
        space: what is searched.
        on_trial: hears of progress.

    Raises:
        ConfigError: the file is no study, or one of another program.
    """

    def __init__(self, folder: Path, runner: TrialRunner, space: SearchSpace, on_trial: OnTrial) -> None:
        self._optuna = import_optuna()
        self.folder, self._runner, self._space, self._on_trial = folder, runner, space, on_trial
        self._tune: TuneConfig = runner.tune
        with self._quiet(), self._lock():
            self._study = self._open()
            if not self._study.get_trials(deepcopy=False):
                own = space.values_of(runner.run)
                self._study.enqueue_trial(_stored(own or {}), {"own": own if own is not None else {}})

    def _open(self) -> Any:
        path = self.folder / STUDY_FILE
        try:
            storage = self._optuna.storages.RDBStorage(
                f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 120}}
            )
            names = [summary.study_name for summary in self._optuna.get_all_study_summaries(storage)]
            if names not in ([], [STUDY_NAME]):
                raise ConfigError(f"{path}: holds another study, {names[0]!r}; give another folder (out=...)")
            count = sum(len(self._optuna.load_study(study_name=n, storage=storage).trials) for n in names)
            return self._optuna.create_study(
                study_name=STUDY_NAME,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                sampler=self._sampler(self._runner.run, count),
                pruner=self._pruner(),
            )
        except ConfigError:
            raise
        except Exception as error:  # of SQLAlchemy, Alembic or SQLite
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{path}: is no study of bertune ({reason}); give another folder (out=...)"
            ) from None

    def _sampler(self, run: RunConfig, count: int) -> Any:
        """Return what draws settings; a process that goes on draws others than the one before."""
        samplers, seed = self._optuna.samplers, (run.seed + count) % 2**32
        if self._tune.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(
            n_startup_trials=self._tune.startup_trials,
            multivariate=True,
            group=True,  # for settings that do not always count
            constant_liar=True,  # for several processes
            seed=seed,
        )

    def _pruner(self) -> Any:
        pruners, tune = self._optuna.pruners, self._tune
        if tune.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=tune.startup_trials)
        if tune.pruner == "hyperband":
            most = tune.evaluations * (tune.folds or 1)
            return pruners.HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3)
        return pruners.NopPruner()

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep Optuna's warnings about what is experimental off the screen."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with locked(self.folder / STUDY_FILE, lambda _: None):
            yield

    def run(self) -> Study:
        """Run trials until there are as many as planned, or the time is over.

        Raises:
            TrainingError: all of the first trials fail.
            Interrupted: Ctrl-C; the trial will be run again by whoever goes on.
        """
        deadline = None if self._tune.time is None else time.monotonic() + self._tune.time
        with self._quiet():
            while deadline is None or time.monotonic() < deadline:
                trial = self._next_trial()
                if trial is None:
                    break
                self._run_trial(trial, deadline)
                self._check_failures()
            return self.read()

    def read(self) -> Study:
        """Return all trials so far."""
        study = self._study
        attributes = study.user_attrs
        higher = bool(attributes.get("higher_is_better", True))
        trials = [t for t in study.get_trials(deepcopy=False) if "settings" in t.user_attrs]
        return Study(
            tuple(_trial(t, 1 if higher else -1) for t in trials),
            str(attributes.get("metric", "")),
            higher,
            self._runner.held_out.num_rows,
            self._tune.trials,
        )

    def others_run(self) -> bool:
        """Tell whether another living process runs a trial of this study."""
        running = [t for t in self._trials() if t.state.name == "RUNNING"]
        return any(_is_alive(t.user_attrs.get("owner")) for t in running)

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    def _next_trial(self) -> Any:
        """Return a new trial with its settings drawn; None when there are enough."""
        with self._lock():
            self._give_up_lost()
            begun = [t for t in self._trials() if t.state.name != "WAITING" and not _is_lost(t)]
            if len(begun) >= self._tune.trials:
                return None
            trial = self._study.ask()
            own = trial.user_attrs.get("own")
            drawn = {} if own == {} else self._space.suggest(trial)
            trial.set_user_attr("settings", drawn if own is None else own)
            trial.set_user_attr("owner", _this_process())
            return trial

    def _give_up_lost(self) -> None:
        """Mark the trials of processes that have ended, and have them run again."""
        for lost in self._trials():
            owner = lost.user_attrs.get("owner")
            if lost.state.name == "RUNNING" and not _is_alive(owner):
                retries = int(lost.user_attrs.get("retries", 0))
                is_retried = retries < MAX_RETRIES
                self._give_up(lost, "its process ended", run_again=is_retried, retries=retries + 1)

    def _give_up(self, trial: Any, reason: str, *, run_again: bool, retries: int) -> None:
        storage, number = self._study._storage, trial._trial_id
        storage.set_trial_user_attr(number, "reason", reason + (", run again" if run_again else " twice"))
        storage.set_trial_user_attr(number, "lost", run_again)
        self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        if run_again:
            own = {name: trial.user_attrs[name] for name in ("own",) if name in trial.user_attrs}
            self._study.enqueue_trial(trial.params, {**own, "retries": retries})

    def _run_trial(self, trial: Any, deadline: float | None) -> None:
        runner = self._runner
        self._on_trial(self.read())

        def report(number: int, score: float) -> bool:
            self._learn_metric()
            trial.report(score if runner.higher_is_better else -score, number)
            self._on_trial(self.read())
            return bool(trial.should_prune())

        try:
            result = runner.run_trial(trial.user_attrs["settings"], report, deadline)
        except KeyboardInterrupt as stop:
            frozen = next(t for t in self._trials() if t.number == trial.number)
            self._give_up(frozen, "it was stopped", run_again=True, retries=0)
            raise Interrupted(
                f"stopped in trial {trial.number}; go on with: bertune tune {self.folder} --resume", 2
            ) from stop
        self._finish(trial, result)
        self._on_trial(self.read())

    def _learn_metric(self) -> None:
        if "metric" not in self._study.user_attrs:
            self._study.set_user_attr("metric", self._runner.metric)
            self._study.set_user_attr("higher_is_better", self._runner.higher_is_better)

    def _finish(self, trial: Any, result: TrialResult) -> None:
        """Write what a trial came to, and its model where it is the best so far."""
        states = self._optuna.trial.TrialState
        for name in ("seconds", "steps", "reason", "values"):
            trial.set_user_attr(name, getattr(result, name))
        if result.state != "complete" or result.score is None:
            state = states.PRUNED if result.state == "pruned" else states.FAIL
            self._study.tell(trial, state=state)
            return
        with self._lock():
            before = self.read().best
            sign = 1 if self._runner.higher_is_better else -1
            is_best = before is None or sign * result.score > sign * (before.score or 0.0)
            if is_best and result.fit is not None:
                part = part_of(self.folder / BEST_TRIAL)
                remove_folder(part)
                result.fit.save(part)
                remove_folder(self.folder / BEST_TRIAL)
                part.replace(self.folder / BEST_TRIAL)
            self._study.tell(trial, sign * result.score)

    def _failed_from_the_start(self) -> list[Trial]:
        """Return the trials if so many have failed that the search ends, and none has not; else nothing."""
        trials = self.read().trials
        all_failed = all(trial.state == "failed" for trial in trials)
        return list(trials) if all_failed and len(trials) >= FAILURES_THAT_END else []

    def _check_failures(self) -> None:
        failed = self._failed_from_the_start()
        if failed:
            raise TrainingError(
                f"all of the first {len(failed)} trials failed; the last one: {failed[-1].reason}"
            )


def _trial(frozen: Any, sign: int) -> Trial:
    states: dict[str, TrialState] = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running"}
    attributes = frozen.user_attrs
    state = states.get(frozen.state.name, "failed")
    return Trial(
        frozen.number,
        dict(attributes["settings"]),
        state,
        sign * frozen.value if state == "complete" else None,
        dict(attributes.get("values", {})),
        tuple(sign * frozen.intermediate_values[n] for n in sorted(frozen.intermediate_values)),
        float(attributes.get("seconds", 0.0)),
        int(attributes.get("steps", 0)),
        str(attributes.get("reason", "")),
    )


def _stored(settings: JSON) -> JSON:
    """Return settings as Optuna stores them."""
    from bertune.selection.space import choice_key

    return {name: choice_key(value) for name, value in settings.items()}


def _is_lost(frozen: Any) -> bool:
    return bool(frozen.user_attrs.get("lost", False))


def _this_process() -> JSON:
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def _is_alive(owner: JSON | None) -> bool:
    """Tell whether a process still runs; one of another machine counts as running."""
    if owner is None:
        return False
    if owner["host"] != socket.gethostname():
        return True
    try:
        began = psutil.Process(owner["pid"]).create_time()
    except psutil.Error:
        return False
    return abs(began - float(owner["began"])) < 1
