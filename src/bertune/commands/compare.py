"""`bertune compare`: tests whether saved models differ on the same rows."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune import distributed
from bertune.artifact.read import read_artifact
from bertune.catalog.use import named_files
from bertune.commands.evaluate import use_search_prompts
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.columns import ColumnMapping
from bertune.errors import BertuneError, ConfigError
from bertune.files import expand_user, is_remote
from bertune.inference.comparison import ComparedModel, Comparison, compare_pairs
from bertune.inference.disagreements import ComparedRows, check_output, differing, write_disagreements
from bertune.inference.pairing import comparison_faults, comparison_notes, paired_rows
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.kernels.precision import choose_device, choose_precision
from bertune.tasks.base.datasets import scratch_dir, write_dataset
from bertune.tasks.base.reading import check_examples, read_files
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.task import Task
from bertune.tasks.embed import Embed
from bertune.tasks.match import Match
from bertune.types import Example, Prediction, Row


def compare(  # noqa: PLR0913  (what a user can choose)
    models: Sequence[str | Path],
    files: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    task: str | None = None,
    console: Console | None = None,
) -> Comparison:
    """Test whether saved models differ on the same rows, by a paired bootstrap and McNemar's test.

    The rows are read once, with the settings of the first model. One model is in memory at a time. Several
    processes share the work, and each has the result; the first one writes `output`.

    Args:
        models: two folders or more that `train` has written, or of sentence-transformers, or Hub ids.
        files: one file or several, with targets.
        overrides: `data.name=value`, how to read the files.
        output: a file (.jsonl, .csv or .tsv) for the rows on which models differ.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that folders bring for their encoders; read it first.
        task: the Python file of a task of your own, for all models.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: a folder, a setting or a row cannot be used, or the models solve different problems;
            nothing is written then.
    """
    folders = [expand_user(m) for m in ([models] if isinstance(models, str | Path) else models)]
    sources = [expand_user(f) for f in ([files] if isinstance(files, str | Path) else files)]
    console = console or Console(quiet=True)
    sources, overrides = named_files(sources, overrides, "dev", prefixed(console), scored=True)
    call = _Call(folders, sources, overrides, task, model_code, device, precision, console)
    path, faults = None if output is None else expand_user(output), _Faults()
    _check_call(call, path, faults)
    opened = _open_models(call, faults)
    with scratch_dir(opened.data, [] if path else sources, call.console) as scratch:
        rows = _read_rows(call, opened, scratch, keep=path is not None, faults=faults)
        faults.finish()
        results = [_predict(call, n, opened, rows, scratch) for n in range(len(folders))]
        return _compare(call, opened, rows, results, path)


class _Faults:
    """Collects what is wrong with a call, so that one message says all of it."""

    def __init__(self) -> None:
        self.errors: list[BertuneError] = []

    def add(self, message: str) -> None:
        self.errors.append(ConfigError(message))

    def add_from(self, work: Callable[[], Any]) -> Any:
        """Return what some work returns; None where it finds a fault."""
        try:
            return work()
        except BertuneError as error:
            self.errors.append(error)
            return None

    def finish(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            BertuneError: the one fault, or all of them.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            lines = "".join(f"\n- {error}" for error in self.errors)
            raise ConfigError(f"compare: {len(self.errors)} faults:{lines}")


@dataclass
class _Call:
    """What a call of `compare` says."""

    folders: list[str]
    sources: list[str]
    overrides: Sequence[str]
    task_file: str | None
    model_code: str
    device: str
    precision: str
    console: Console
    names: list[str] = field(init=False)
    """Of the models, short and different."""

    def __post_init__(self) -> None:
        self.names = unique_names(self.folders)

    def note(self, line: str) -> None:
        self.console.info(f"data: {line}")


def unique_names(folders: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many parts as tell them apart.

    >>> unique_names(["runs/a/last", "runs/b/last"])
    ['a/last', 'b/last']
    """
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]  # noqa: PTH100  (keeps links)
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-count:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def _check_call(call: _Call, output: str | None, faults: _Faults) -> None:
    """Find what is wrong with a call before anything is opened."""
    folders, sources = call.folders, call.sources
    if len(folders) < 2:
        given = f"got {folders[0]!r} alone" if folders else "got no model"
        faults.add(f"compare: needs two models or more and a data file, MODEL MODEL... FILE; {given}")
    first_of: dict[str, str] = {}
    for folder in folders:
        if Path(folder).is_file():
            faults.add(f"{folder}: is a file, not the folder of a model; one data file comes last")
        path = os.path.realpath(folder)
        if path in first_of:
            as_what = "" if first_of[path] == folder else f" (it is {first_of[path]!r})"
            faults.add(f"compare: the model {folder!r} is given twice{as_what}; give different models")
        first_of.setdefault(path, folder)
    if not sources:
        last = f"; {folders[-1]!r} is none" if folders else ""
        faults.add(f"compare: needs a data file with targets, after the models{last}")
    for file in sources:
        if Path(file).is_dir():
            faults.add(f"{file}: is a folder; the last argument is a data file with targets")
    if "-" in sources and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        faults.add("standard input cannot be read by several processes; give a file, or start one process")
    if output is not None:
        faults.add_from(lambda: check_output(output))
        if os.path.realpath(output) in map(os.path.realpath, sources):
            faults.add(f"-o {output}: is the data file itself; give another name")
    if device := faults.add_from(lambda: choose_device(call.device)):
        faults.add_from(lambda: choose_precision(call.precision, device))
        faults.add_from(lambda: distributed.init(use_cpu=device.type == "cpu"))


@dataclass
class _Opened:
    """What the folders say, without the models."""

    tasks: list[Task]
    """Of each model that could be opened."""
    lead: int
    """The one that reads and scores the rows."""
    data: DataConfig
    """How the rows are read."""
    is_complete: bool
    """Whether rows can be read, and every folder was opened."""

    @property
    def lead_task(self) -> Task:
        return self.tasks[self.lead]


def _open_models(call: _Call, faults: _Faults) -> _Opened:
    """Open each folder once, so that a fault of any is found before the first prediction; keep no model."""
    opened: list[tuple[Task, DataConfig]] = []
    for name, folder in zip(call.names, call.folders, strict=True):

        def note(line: str, name: str = name) -> None:
            call.console.info(f"note: {name}: {line}")

        if Path(folder).is_file():
            continue
        try:
            artifact = read_artifact(folder, call.task_file, call.model_code, note)
        except BertuneError as error:
            faults.errors.append(error)
            continue
        opened.append((artifact.task, artifact.run_config.data))
        del artifact
        gc.collect()  # modules refer to each other in circles
    is_complete = len(opened) == len(call.folders) > 0
    tasks = [task for task, _ in opened]
    if is_complete:
        for problem in comparison_faults(call.names, tasks):
            faults.add(f"compare: {problem}")
    # Where one model has learned scores of pairs and another no scores, the former knows what they mean.
    lead = next((n for n, task in enumerate(tasks) if isinstance(task, Match)), 0)
    data = opened[lead][1] if opened else DataConfig()
    if opened and call.sources:
        read = faults.add_from(lambda: reading_config(data, call.sources[0], call.overrides))
        is_complete, data = is_complete and read is not None, read or data
        tasks[lead] = tasks[lead].with_data(data)
    return _Opened(tasks, lead, data, is_complete and bool(call.sources))


@dataclass
class _Rows:
    """Examples, and the rows of the file that they come from, where they were kept."""

    examples: Sequence[Example]
    sources: list[Row]


class _KeepingReader(RowReader):
    """Reads rows as the reader of a task does, and keeps them."""

    def __init__(self, reader: RowReader) -> None:
        self._reader, self.task, self.label_filter = reader, reader.task, reader.label_filter
        self._rows: dict[int, Row] = {}  # by the id of their example

    def see_columns(self, mapping: ColumnMapping) -> None:
        """Hear which columns hold which field."""
        self._reader.see_columns(mapping)

    def read(self, row: Row) -> Example:
        """Return what a row means."""
        example = self._reader.read(row)
        self._rows[id(example)] = row
        return example

    def report(self) -> list[str]:
        """Return what a user should know about the files."""
        return self._reader.report()

    def rows_of(self, examples: Sequence[Example]) -> list[Row]:
        """Return the rows of examples that this has read."""
        return [self._rows[id(example)] for example in examples]


def _read_rows(call: _Call, opened: _Opened, scratch: Path | None, *, keep: bool, faults: _Faults) -> _Rows:
    """Read the rows once, by the task that leads; rows that a model cannot predict are a fault."""
    if not opened.is_complete:
        for file in call.sources:
            if not (file == "-" or is_remote(file) or Path(file).exists()):
                faults.add(f"{file}: no such file")
        return _Rows([], [])
    task = opened.lead_task
    reader = _KeepingReader(task.new_reader()) if keep else task.new_reader()
    path = None if scratch is None or keep else scratch / "examples.arrow"
    examples: Sequence[Example] = []
    try:
        examples = read_files(call.sources, reader, opened.data, call.note, to_score=True, arrow_path=path)
        for line in reader.report():
            call.note(line)
        examples = check_examples(examples, task, opened.data, call.note)
    except BertuneError as error:
        faults.errors.append(error)
        return _Rows([], [])
    _check_fit(call, opened, examples, faults)
    if keep and isinstance(task, Embed) and task.evaluation_kind(examples) == "texts":
        faults.add("-o: single texts have no predictions to differ; leave it out")
    return _Rows(examples, reader.rows_of(examples) if isinstance(reader, _KeepingReader) else [])


def _check_fit(call: _Call, opened: _Opened, examples: Sequence[Example], faults: _Faults) -> None:
    """Check that the other models can predict the rows, such as pairs of texts."""
    lead = opened.lead_task
    for name, task in zip(call.names, opened.tasks, strict=True):
        if task is lead or type(task) is not type(lead) or isinstance(task, Match):
            continue
        try:
            for example in examples:
                task.check(example)
        except BertuneError as error:
            faults.add(f"{name} cannot predict these rows: {error}")


@dataclass
class _Result:
    """The predictions of a model."""

    predictions: list[Prediction]
    num_truncated_rows: int


def _predict(call: _Call, number: int, opened: _Opened, rows: _Rows, scratch: Path | None) -> _Result:
    """Open a model, predict the rows with it, and let it go."""
    name = call.names[number]
    call.console.info(f"model: {name}, {number + 1} of {len(call.names)}")
    artifact = read_artifact(call.folders[number], call.task_file, call.model_code, lambda _: None)
    pipeline = artifact.for_reading(opened.data).pipeline(call.device, call.precision)
    if isinstance(pipeline, SentencePipeline):
        use_search_prompts(pipeline, rows.examples, lambda line: call.note(f"{name}: {line}"))
    if scratch is None:
        result = pipeline.predict_examples(rows.examples, to_score=True)
    else:
        folder = scratch / f"model-{number}"
        folder.mkdir()
        dataset = write_dataset(
            folder, "rows", pipeline.task, pipeline.tokenizer, rows.examples, call.console
        )
        result = pipeline.predict_dataset(dataset)
    for line in pipeline.task.report():
        call.note(f"{name}: {line}")
    truncated = pipeline.num_truncated_rows
    del artifact, pipeline
    gc.collect()
    return _Result(result.predictions, truncated)


def _compare(
    call: _Call, opened: _Opened, rows: _Rows, results: Sequence[_Result], output: str | None
) -> Comparison:
    """Score the predictions, compare them, and write the rows on which they differ."""
    predictions = [result.predictions for result in results]
    scorers = _scorers(opened, predictions, rows.examples)
    scores = [task.score(p, rows.examples) for task, p in zip(scorers, predictions, strict=True)]
    main = scores[0].main_metric
    for line in comparison_notes(call.names, opened.tasks, opened.lead, main):
        call.console.info(f"note: {line}")
    paired = paired_rows(scorers, main, predictions, rows.examples)
    models = [
        ComparedModel(name, folder, score, result.num_truncated_rows)
        for name, folder, score, result in zip(call.names, call.folders, scores, results, strict=True)
    ]
    pairs = compare_pairs(models, paired)
    if output is not None and not distributed.rank():
        labels = [getattr(task, "labels", ()) for task in opened.tasks]
        write_disagreements(
            output, ComparedRows(call.names, labels, rows.sources, rows.examples, predictions, paired)
        )
    return Comparison(
        type(opened.lead_task).__name__.lower(),
        main,
        scores[0].higher_is_better,
        len(rows.examples),
        paired.unit,
        paired.num_units,
        models,
        pairs,
        int(differing(paired, len(models)).sum()),
        output,
    )


def _scorers(
    opened: _Opened, predictions: Sequence[Sequence[Prediction]], examples: Sequence[Example]
) -> list[Task]:
    """Return what scores each model: the task that leads; vectors are compared as each model does."""
    lead = opened.lead_task
    if type(lead) is not Embed:
        return [lead] * len(opened.tasks)
    main = lead.score(predictions[opened.lead], examples, intervals=False).main_metric
    scorers: list[Task] = []
    for task in opened.tasks:
        scorer = lead.with_data(opened.data)
        similarity = task.options.similarity
        scorer.options = scorer.options.model_copy(update={"metric": main, "similarity": similarity})
        scorers.append(scorer)
    return scorers
