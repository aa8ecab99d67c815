"""The search by Ray Tune: several trials at once, on this machine or a cluster, pruned by ASHA.

The study is that of Optuna in the folder of the search: it draws the settings, and holds what trials came
to. So a search that was killed goes on in the same way, and Ray keeps nothing that must outlive it.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bertune.config.tuning import TuneConfig
from bertune.errors import Interrupted
from bertune.files import remove_folder
from bertune.selection.ray_cluster import connected, import_ray, machines_of, resources_of_trial, slots
from bertune.selection.space import SearchSpace
from bertune.selection.study import OnTrial, OptunaStudy
from bertune.selection.trial_run import TrialResult, TrialRunner
from bertune.selection.trial_thread import SteppedTrial
from bertune.selection.trials import Study
from bertune.types import JSON

RAY_FOLDER = "ray"
"""What Ray Tune writes while it runs, in the folder of the search; removed at the end."""
REDUCTION = 2
"""ASHA ends a trial whose score is below the median of those that came as far, after 1, 2, 4 ... evaluations.
A larger one ends more trials at their first evaluation, which is early where there are few of them."""


class RayStudy(OptunaStudy):
    """A study whose trials run in Ray's workers.

    Args:
        folder: of the search.
        runner: its rows are sent to each worker once.
        space: what is searched.
        on_trial: hears of progress.

    Raises:
        ConfigError: there is no Ray at the address; a trial asks for more than a machine has; or the folder
            holds another study.
        MissingExtra: Ray is not installed.
    """

    def __init__(self, folder: Path, runner: TrialRunner, space: SearchSpace, on_trial: OnTrial) -> None:
        import_ray()
        super().__init__(folder, runner, space, on_trial)
        self._begun: dict[str, Any] = {}
        """Trials of Optuna that run, by Ray's name of the trial."""
        self._deadline: float | None = None

    def run(self) -> Study:
        """Run trials until there are as many as planned, or the time is over.

        Raises:
            ConfigError: there is no Ray at the address, or a trial asks for more than a machine has.
            TrainingError: all of the first trials fail.
            Interrupted: Ctrl-C or SIGTERM; the trials will be run again by whoever goes on.
        """
        if self._tune.time is not None:
            self._deadline = time.monotonic() + self._tune.time
        with self._quiet(), connected(self._tune.ray) as ray:
            machines = machines_of(ray)
            resources = resources_of_trial(machines, self._tune.ray, self._runner.run.device)
            try:
                self._fit(ray.tune, resources, slots(machines, self._tune.ray, resources))
            except KeyboardInterrupt as stop:
                self._give_up_all()
                raise Interrupted(
                    f"stopped in the search; go on with: bertune tune {self.folder} --resume",
                    getattr(stop, "number", signal.SIGINT),
                ) from stop
            finally:
                remove_folder(self.folder / RAY_FOLDER)
        self._check_failures()
        return self.read()

    def _fit(self, tune: Any, resources: JSON, concurrent: int) -> None:
        """Have Ray Tune run the trials."""
        remove_folder(self.folder / RAY_FOLDER)
        threads = max(1, int(resources["cpu"]))
        _send_code_of(self._runner.task)
        trainable = tune.with_parameters(make_trainable(tune), runner=self._runner, num_threads=threads)
        tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=make_searcher(tune, self),
                scheduler=make_scheduler(self._tune, self.read()),
                num_samples=-1,  # until the study has enough
                max_concurrent_trials=concurrent,
                reuse_actors=True,  # rows and tokens stay
                trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name=RAY_FOLDER,
                storage_path=str(self.folder.resolve()),
                callbacks=[make_callback(tune, self)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()

    def begin(self, name: str) -> JSON | None:
        """Return the settings of a new trial, its number and the seconds left; None when the search is over.

        Args:
            name: Ray's name of the trial.
        """
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if (left is not None and left <= 0) or self._failed_from_the_start():
            return None
        trial = self._next_trial()
        if trial is None:
            return None
        self._begun[name] = trial
        self._on_trial(self.read())
        return {"number": trial.number, "settings": trial.user_attrs["settings"], "seconds": left}

    def report(self, name: str, result: JSON) -> None:
        """Write the score of an evaluation, as `step_of` returns it; without a score nothing."""
        if "score" in result:
            self._runner.metric, self._runner.higher_is_better = result["metric"], result["higher_is_better"]
            self._learn_metric()
            self._begun[name].report(result["score"], result["evaluation"])
            self._on_trial(self.read())

    def end(self, name: str, result: JSON) -> None:
        """Write what a trial came to: its own end, or the evaluation at which ASHA has stopped it."""
        if name not in self._begun:
            return
        self.report(name, result)
        trial = self._begun.pop(name)
        if "end" in result:
            ended = result["end"]
        else:
            step, total = result["num_steps"]
            ended = TrialResult("pruned", seconds=result["seconds"], steps=step)
            ended.reason = f"worse than others at step {step} of {total}"
        self._finish(trial, ended)
        self._on_trial(self.read())

    def fail(self, name: str, reason: str) -> None:
        """Write that a trial has failed."""
        trial = self._begun.pop(name, None)
        if trial is not None:
            self._finish(trial, TrialResult("failed", reason=reason))
            self._on_trial(self.read())

    def _give_up_all(self) -> None:
        """Have the trials that run now run again by whoever goes on."""
        numbers = {trial.number for trial in self._begun.values()}
        for frozen in self._trials():
            if frozen.number in numbers and frozen.state.name == "RUNNING":
                self._give_up(frozen, "it was stopped", run_again=True, retries=0)


def _send_code_of(task: Any) -> None:
    """Have the code of a task of the user's own travel with it: a worker cannot import its file by name."""
    import ray.cloudpickle

    module = sys.modules[type(task).__module__]
    if module.__name__.startswith("bertune_task_"):
        ray.cloudpickle.register_pickle_by_value(module)


def step_of(runner: TrialRunner, trial: SteppedTrial, number: int, began: float) -> JSON:
    """Train up to the next evaluation, and return what Ray Tune is told of it.

    Args:
        runner: runs the trial.
        trial: is waiting at the evaluation before.
        number: of the evaluation, from 1.
        began: `time.monotonic` at the beginning of the trial.

    Returns:
        The evaluation, and as `score` the main metric, or its negative where less of it is better; at the end
        of the trial also what it came to, and `done`.
    """
    event = trial.next()
    result: JSON = {"metric": runner.metric, "higher_is_better": runner.higher_is_better}
    sign = 1 if runner.higher_is_better else -1
    if not isinstance(event, TrialResult):
        seconds = time.monotonic() - began
        score = {"evaluation": number, "score": sign * event}
        return {**result, **score, "seconds": seconds, "num_steps": runner.num_steps}
    score = {"evaluation": number, "score": sign * event.evaluations[-1]} if event.evaluations else {}
    return {**result, **score, "end": replace(event, fit=None), "done": True}


def stepped(runner: TrialRunner, config: JSON, num_threads: int) -> SteppedTrial:
    """Return a trial that has not begun.

    Args:
        runner: runs it.
        config: its `settings`, and the `seconds` left to the search, or None.
        num_threads: threads of torch.
    """
    deadline = None if config["seconds"] is None else time.monotonic() + config["seconds"]

    def run(report: Any) -> TrialResult:
        def report_unless_last(number: int, score: float) -> bool:
            done, total = runner.num_steps
            return report(number, score) if done < total else False  # the last one is told with the end

        return runner.run_trial(config["settings"], report_unless_last, deadline)

    return SteppedTrial(run, num_threads)


def make_trainable(tune: Any) -> Any:
    """Return the class of what runs in a worker. A worker runs one trial after the other on the same rows."""

    class BertuneTrial(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: JSON, runner: Any = None, num_threads: int = 1) -> None:
            self._runner, self._num_threads = runner, num_threads
            self._begin(config)

        def _begin(self, config: JSON) -> None:
            self._began, self._number = time.monotonic(), 0
            self._trial = stepped(self._runner, config, self._num_threads)

        def step(self) -> JSON:
            self._number += 1
            return step_of(self._runner, self._trial, self._number, self._began)

        def reset_config(self, new_config: JSON) -> bool:
            self._trial.stop()
            self._begin(new_config)
            return True

        def cleanup(self) -> None:
            self._trial.stop()

    return BertuneTrial


def make_searcher(tune: Any, study: RayStudy) -> Any:
    """Return what Ray Tune asks for settings: it hands every question on to the study."""

    class StudySearcher(tune.search.Searcher):  # type: ignore[misc]
        def __reduce__(self) -> Any:
            return dict, ()  # Ray writes it to its folder; nobody reads that

        def suggest(self, trial_id: str) -> Any:
            config = study.begin(trial_id)
            return tune.search.Searcher.FINISHED if config is None else config

        def on_trial_result(self, trial_id: str, result: JSON) -> None:
            study.report(trial_id, result)

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            if not error and result:
                study.end(trial_id, result)

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()

        def restore(self, checkpoint_path: str) -> None:
            pass

    return StudySearcher(metric="score", mode="max")


def make_callback(tune: Any, study: RayStudy) -> Any:
    """Return what hears of workers that fail."""

    class Failures(tune.Callback):  # type: ignore[misc]
        def __reduce__(self) -> Any:
            return dict, ()

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            study.fail(trial.trial_id, reason_of(_error_of(trial)))

    return Failures()


def _error_of(trial: Any) -> Any:
    """Return the error of a worker; None where it could not be kept."""
    import ray.cloudpickle

    path = trial.pickled_error_file
    try:
        return None if path is None else ray.cloudpickle.loads(Path(path).read_bytes())
    except Exception:  # of a class that only the worker has
        return None


def reason_of(error: Any) -> str:
    """Return why a worker has failed, in a line.

    Args:
        error: what Ray has raised; the worker's own error is its `cause`. None if it is not known.
    """
    if error is None:
        return "its worker has failed"
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()] or [""]
    if cause is None:
        return f"its worker has ended: {lines[0]}"
    return f"{type(cause).__name__}: {lines[0]}"


def make_scheduler(config: TuneConfig, study: Study) -> Any:
    """Return what prunes: ASHA, which also knows the trials of earlier calls; nothing with `pruner=none`.

    ASHA decides at all evaluations but the last, which a trial reports with its end. Trial 0, the settings of
    the run itself, always runs to its end: it is what others are compared with.
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

    class Asha(ASHAScheduler):  # type: ignore[misc]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: JSON) -> Any:
            decision = super().on_trial_result(tune_controller, trial, result)
            return decision if trial.config["number"] else TrialScheduler.CONTINUE

    most = config.evaluations * (config.folds or 1)
    if config.pruner == "none" or most == 1:
        return FIFOScheduler()
    scheduler = Asha(
        time_attr="evaluation",
        max_t=most - 1,
        grace_period=1,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )
    scheduler.set_search_properties("score", "max")
    sign = 1 if study.higher_is_better else -1
    for trial in study.trials:
        if trial.state in {"complete", "pruned"}:
            before = SimpleNamespace(trial_id=f"before-{trial.number}", config={"number": trial.number})
            scheduler.on_trial_add(None, before)
            for number, score in enumerate(trial.evaluations, 1):
                scheduler.on_trial_result(None, before, {"evaluation": number, "score": sign * score})
    scheduler._metric = scheduler._mode = None  # Ray Tune names them, and refuses to name them twice
    return scheduler
