"""`bertune tune`: searches for good settings, trains the best ones, and says which number is which."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune.artifact.read import read_metadata
from bertune.catalog.use import read_settings
from bertune.commands.train import prepare, train
from bertune.config.auto_rates import take_settled
from bertune.config.load import dump_config, read_config
from bertune.config.schema import RunConfig
from bertune.config.tuning import TuneConfig, take_sections
from bertune.config.yaml import dump_yaml
from bertune.console import Console, prefixed
from bertune.distributed import num_processes
from bertune.errors import ConfigError, TrainingError
from bertune.files import expand_user, locked, read_json_object, remove_folder, write_json, write_text
from bertune.selection.importance import setting_importance
from bertune.selection.numbers import SearchNumbers
from bertune.selection.space import SearchSpace, apply_settings, read_space
from bertune.selection.study import BEST_TRIAL, OptunaStudy, import_optuna
from bertune.selection.study_report import StudyFacts, write_study_report
from bertune.selection.trial_run import TrialRunner
from bertune.selection.trial_table import TrialTable
from bertune.selection.trials import Study, Trial
from bertune.selection.trials_file import write_trials
from bertune.tasks import load_task
from bertune.tasks.base.task import Note, Task
from bertune.training.build import check_model
from bertune.training.launch import check_environment
from bertune.training.resume import finished_scores
from bertune.types import JSON, Scores

SETTINGS_FILE, WINNER_FILE, RESULTS_FILE, MODEL = "tune.yaml", "winner.yaml", "results.json", "model"
TRIALS_FILE = "trials.jsonl"
DEV_DECIDES = (
    "The dev rows chose the thresholds of labels, or calibrated them, so the dev score is a little too good; "
    "give data.test."
)
FREE = {"trials", "time", "refit", "engine", "ray"}
"""Settings of `tune` that may change when a search goes on."""


@dataclass(frozen=True)
class TuneResult:
    """What a search came to.

    Attributes:
        folder: of the search.
        study: all trials.
        best: the trial whose settings won.
        winner: the run file with its settings; `bertune train` repeats the refit model with it, to the bit.
        model: the refit model, if there is one.
        scores: its scores by split: dev, and test if there is one. The dev rows were used once, for this.
        importances: how much each setting decides, from 0 to 1, where that can be said.
    """

    folder: Path
    study: Study
    best: Trial
    winner: Path
    model: Path | None
    scores: dict[str, Scores]
    importances: dict[str, float]
    num_dev_rows: int
    dev_uses: int
    dev_decides: bool

    @property
    def numbers(self) -> SearchNumbers:
        """The numbers of the search, and which is which."""
        return SearchNumbers(self.study, self.num_dev_rows, self.scores, self.dev_uses, self.dev_decides)

    def to_json(self) -> JSON:
        """Return the result as JSON values, as results.json has it."""
        return {**self.numbers.to_json(), "settings": self.best.settings, "importances": self.importances}


def tune(
    source: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    time: float | str | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> TuneResult:
    """Search for good settings of a run.

    A part of the training rows scores the trials. The dev rows score the best settings once, after the model
    has been trained again on all training rows.

    Args:
        source: a run file with the sections `search` and `tune`, the name of a task, or the settings as a
            dictionary; with `resume` also the folder of a search. Without `search`, what experts try first
            for the task is searched.
        overrides: `section.name=value`, applied to the settings.
        trials: how many trials there are in all; instead of `tune.trials`.
        time: begin no trial after so many seconds, or "2h"; instead of `tune.time`.
        resume: go on with the search in the folder; several processes may do so at once.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: see `bertune.errors`; nothing has been written when settings or data are wrong.
        Interrupted: Ctrl-C; the search can go on.
    """
    console = console or Console(quiet=True)
    if num_processes() > 1:
        raise ConfigError(
            "tune: trials are not shared by the processes of a launcher; start `bertune tune` several times "
            "on one folder instead, all but the first with --resume"
        )
    plan = _plan(source, overrides, trials, time, prefixed(console, "note"), resume=resume)
    import_optuna()
    if plan.tune.engine == "ray":
        from bertune.selection.ray_cluster import check_ray

        check_ray(plan.tune.ray, plan.run.device)
    check_environment(plan.run)
    check_model(plan.run)
    runner = TrialRunner(plan.raw, plan.task_class, plan.tune, prefixed(console))
    for line in plan.space.describe():
        console.info(f"search: {line}")
    plan.write()
    return _Search(plan, runner, console).run()


@dataclass(frozen=True)
class _Plan:
    """A search before it begins."""

    folder: Path
    raw: JSON
    run: RunConfig
    tune: TuneConfig
    space: SearchSpace
    task_class: type[Task]

    def write(self) -> None:
        """Write the settings of the search.

        Raises:
            ConfigError: the folder cannot be written.
        """
        settings = self.run.model_dump(exclude={"out"})
        sections = {"tune": self.tune.model_dump(mode="json"), "search": self.space.to_json()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / SETTINGS_FILE, dump_yaml({**settings, **sections}))
        except OSError as error:
            raise ConfigError(
                f"out: {str(self.folder)!r} cannot be written: {error.strerror or error}"
            ) from None


def _plan(
    source: str | Path | dict[str, Any],
    overrides: Sequence[str],
    trials: int | None,
    time: float | str | None,
    note: Note,
    *,
    resume: bool,
) -> _Plan:
    """Check all settings of a search at once."""
    given = read_settings(_settings_to_resume(source) if resume else source, overrides, note)
    limits = {name: value for name, value in {"trials": trials, "time": time}.items() if value is not None}
    if limits and isinstance(given.get("tune") or {}, dict):
        given["tune"] = {**(given.get("tune") or {}), **limits}
    raw, faults = {name: value for name, value in given.items() if name not in {"tune", "search"}}, []
    tune_config = TuneConfig()
    search: JSON = {}
    try:
        raw, tune_config, search = take_sections(given)
    except ConfigError as error:
        faults.append(str(error))
        search = given["search"] if isinstance(given.get("search"), dict) else {}
    task_class = load_task(raw["task"]) if isinstance(raw.get("task"), str) else None
    try:
        run, task = prepare(raw)
        if run.data.train is None:
            raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    except ConfigError as error:
        raise ConfigError("\n".join([*faults, str(error)])) from None
    if task_class is None:  # `prepare` has refused that
        raise ConfigError("task: must be given, such as task: classify")
    space = SearchSpace(())
    try:
        space = read_space(search or _default_space(task, run), raw, task_class.Options)
    except ConfigError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    folder = _choose_folder(run, resume=resume)
    plan = _Plan(folder, raw, run, tune_config, space, task_class)
    if resume and (folder / SETTINGS_FILE).is_file():
        _check_unchanged(plan)
    return plan


def _default_space(task: Task, run: RunConfig) -> JSON:
    """Return what experts try first, without settings that have no effect in this run."""
    space = dict(type(task).search_space)
    if run.train.max_steps is not None:
        space.pop("train.epochs", None)
    if run.train.schedule == "constant" or run.train.warmup_steps is not None:
        space.pop("train.warmup_ratio", None)
    return space


def _settings_to_resume(source: str | Path | dict[str, Any]) -> str | Path | dict[str, Any]:
    """Return the settings of a search whose folder is given; anything else as it is."""
    if isinstance(source, dict) or not Path(expand_user(source)).is_dir():
        return source
    file = Path(expand_user(source)) / SETTINGS_FILE
    if not file.is_file():
        raise ConfigError(f"{source}: holds no {SETTINGS_FILE}, so there is no search to go on with")
    return {**read_config(file), "out": str(expand_user(source))}


def _choose_folder(run: RunConfig, *, resume: bool) -> Path:
    """Return the folder of the search: a new one, or with `resume` one that holds it."""
    if run.out is None:
        if resume:
            raise ConfigError(
                "--resume: say which search: its folder (bertune tune OUT --resume), or out=OUT"
            )
        name = Path(run.task).stem
        numbers = range(1, 10**6)
        return next(p for n in numbers if not (p := Path("runs") / f"tune-{name}-{n}").exists())
    folder = Path(run.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_search = (folder / SETTINGS_FILE).is_file()
        if not is_search:
            raise ConfigError(
                f"out: {run.out!r} is not empty and holds no {SETTINGS_FILE}, so it is no search of bertune; "
                "give a new folder"
            )
        if not resume:
            raise ConfigError(
                f"out: {run.out!r} holds another search; give a new folder, or go on with "
                f"bertune tune {shlex.quote(run.out)} --resume"
            )
    return folder


def _check_unchanged(plan: _Plan) -> None:
    """Refuse to go on with another run, or another space."""
    raw, tune_before, search_before = take_sections(read_config(plan.folder / SETTINGS_FILE))
    before = prepare(raw)[0].model_dump(mode="json", exclude={"out", "log"})
    now = plan.run.model_dump(mode="json", exclude={"out", "log"})
    changed = _changed(before, now, "")
    old, new = (config.model_dump(mode="json", exclude=FREE) for config in (tune_before, plan.tune))
    changed += _changed(old, new, "tune.")
    space = plan.space.to_json()
    changed += [
        f"search.{name}" for name in search_before.keys() | space.keys()
        if search_before.get(name) != space.get(name)
    ]  # fmt: skip
    if changed:
        raise ConfigError(
            f"--resume: settings have changed since the search began: {', '.join(sorted(changed))}. Restore "
            "them, or start a new search (out=...)"
        )


def _changed(before: JSON, now: JSON, prefix: str) -> list[str]:
    names: list[str] = []
    for name in before.keys() | now.keys():
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _changed(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(f"{prefix}{name}")
    return names


class _Search:
    """A search from its first trial to the refit model."""

    def __init__(self, plan: _Plan, runner: TrialRunner, console: Console) -> None:
        self._plan, self._runner, self._console = plan, runner, console
        self._folder, self._num_ended = plan.folder, 0
        self._table: TrialTable | None = None

    def run(self) -> TuneResult:
        """Run trials, train the winner, and write what was found."""
        engine = self._engine()(self._folder, self._runner, self._plan.space, self._on_trial)
        table = TrialTable(self._console, self._plan.space, self._plan.tune.time, engine.read())
        with table:
            self._table = table
            study = engine.run()
        best = study.best
        if best is None:
            reasons = "; ".join(sorted({t.reason for t in study.trials if t.reason})[:3])
            raise TrainingError(
                f"no trial ran to its end ({len(study.trials)} began"
                f"{f': {reasons}' if reasons else ''}); give more time or other bounds, then go on with: "
                f"bertune tune {shlex.quote(str(self._folder))} --resume"
            )
        winner = self._write_winner(best)
        scores: dict[str, Scores] = {}
        if engine.others_run():
            self._console.info("other processes still run trials; the last one of them trains the winner")
        elif self._plan.tune.refit:
            scores = self._refit(winner)
        return self._finish(study, best, winner, scores)

    def _engine(self) -> type[OptunaStudy]:
        if self._plan.tune.engine == "optuna":
            return OptunaStudy
        from bertune.selection.ray_engine import RayStudy

        return RayStudy

    def _on_trial(self, study: Study) -> None:
        if self._table is not None:
            self._table.update(study)
        num_ended = sum(trial.state != "running" for trial in study.trials)
        if num_ended > self._num_ended:
            self._num_ended = num_ended
            write_trials(self._folder / TRIALS_FILE, study)

    def _write_winner(self, best: Trial) -> Path:
        """Write the run file that repeats the refit: the dev rows choose nothing, and score the last step."""
        run, _ = prepare(apply_settings(self._plan.raw, best.settings))
        train_config = run.train.model_copy(update={"eval_every": "end", "patience": None})
        path = self._folder / WINNER_FILE
        write_text(path, dump_config(run.model_copy(update={"train": train_config})))
        return path

    def _refit(self, winner: Path) -> dict[str, Scores]:
        """Train the best settings on all training rows; what a killed process has begun goes on."""
        out = self._folder / MODEL
        with locked(out, lambda owner: self._console.info(f"the winner is being trained by {owner}")):
            if out.is_dir() and not _same_settings(out, winner):  # there were more trials since
                remove_folder(out)
            if (out / "scores.json").is_file():
                _write_numbers(winner, out)
                return finished_scores(out)
            if not out.is_dir():  # else it has been counted
                uses = self._dev_uses() + 1
                write_json(self._folder / RESULTS_FILE, {**self._results(), "dev_uses": uses})
            self._console.info(f"winner: is trained again on all training rows, in {out}")
            result = train(str(winner), [f"out={out}"], quiet=self._console.quiet, resume=out.is_dir())
            _write_numbers(winner, out)
        remove_folder(self._folder / BEST_TRIAL)
        return result.scores

    def _results(self) -> JSON:
        return read_json_object(self._folder / RESULTS_FILE)

    def _dev_uses(self) -> int:
        """Return how often the dev rows have scored a winner: more trials may find another one."""
        return int(self._results().get("dev_uses", 0))

    def _dev_decides(self) -> bool:
        """Tell whether the dev rows chose thresholds of labels, or a calibration, of the winner."""
        if not (self._folder / MODEL / "bertune.json").is_file():
            return False
        learnt, fitted = read_metadata(self._folder / MODEL)["state"], self._runner.task.state()
        return any(learnt.get(key) != fitted.get(key) for key in ("thresholds", "calibration"))

    def _finish(self, study: Study, best: Trial, winner: Path, scores: dict[str, Scores]) -> TuneResult:
        importance = setting_importance(study, self._plan.space)
        result = TuneResult(
            self._folder,
            study,
            best,
            winner,
            self._folder / MODEL if (self._folder / MODEL / "scores.json").is_file() else None,
            scores,
            dict(importance.shares),
            len(self._runner.splits.dev),
            self._dev_uses(),
            self._dev_decides(),
        )
        settings = "  ".join(f"{name}={value}" for name, value in best.settings.items())
        settings = settings or "the settings of the run as they were"
        self._console.info(f"winner: trial {best.number}: {settings}")
        for line in result.numbers.text():
            self._console.info(line)
        self._console.info(f"repeat it: bertune train {shlex.quote(str(winner))}")
        write_trials(self._folder / TRIALS_FILE, study)
        write_json(self._folder / RESULTS_FILE, result.to_json())
        report = write_study_report(
            self._folder, study, self._plan.space, importance, self._facts(winner, scores), self._console.info
        )
        self._console.info(f"report: {report}")
        return result

    def _facts(self, winner: Path, scores: dict[str, Scores]) -> StudyFacts:
        """Return what the report says beside the trials."""
        run, dev = self._plan.run, scores.get("dev")
        return StudyFacts(
            name=self._folder.name,
            task=Path(run.task).stem,
            model=run.model,
            winner_file=str(winner),
            folds=self._plan.tune.folds,
            dev_rows=len(self._runner.splits.dev),
            dev_score=None if dev is None else dev.main_value,
            dev_interval=None if dev is None else dev.intervals.get(dev.main_metric),
            default_trial=0,
            dev_uses=max(self._dev_uses(), 1),
            notes=(DEV_DECIDES,) if self._dev_decides() else (),
        )


def _write_numbers(winner: Path, folder: Path) -> None:
    """Put the numbers of the refit in the place of `auto`, so that the file repeats it whatever the rule."""
    write_text(winner, (folder / "run.yaml").read_text(encoding="utf-8"))


def _same_settings(folder: Path, winner: Path) -> bool:
    """Tell whether a folder holds the run of a run file, which may say `auto` where it has numbers."""
    file = folder / "run.yaml"
    if not file.is_file():
        return False
    ran, asked = (RunConfig.model_validate(read_config(path)) for path in (file, winner))
    settled = asked.model_copy(update={"train": take_settled(asked.train, ran.train)})
    return dump_config(settled) == dump_config(ran)
