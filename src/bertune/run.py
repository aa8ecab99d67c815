"""The whole story: config in, artifact out. A newcomer starts reading here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bertune import config as settings
from bertune import large, training
from bertune import resume as continued
from bertune.config import DataConfig, RunConfig
from bertune.data.batching import EncodedRows
from bertune.data.formats import Faults, format_of
from bertune.engine.randomness import seed_everything
from bertune.errors import ConfigError
from bertune.model import Model, gather
from bertune.model.encoders import LoadReport, read_encoder
from bertune.model.glyphs import GlyphChoice
from bertune.model.heads import first_tokens
from bertune.model.numerics import bound_kernel_caches, choose_device, keep_pages
from bertune.model.source import locate
from bertune.model.tokenizer import Tokenizer, load_tokenizer
from bertune.ship import artifact as saved
from bertune.ship.artifact import Artifact
from bertune.ship.pipeline import Pipeline
from bertune.talk import Talk, duration
from bertune.tasks import load_task
from bertune.tasks.reading import checked, read_examples, stream
from bertune.tasks.task import Task
from bertune.training import Trained
from bertune.types import Encoded, Encoder, Example, Prediction, Row, Scores


def prepare(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> tuple[RunConfig, Task]:
    """Check a run's settings and build its task.

    Raises:
        ConfigError: something is wrong with the settings; all of it is named.
        TaskNotFound: there is no such task.
    """
    raw = settings.read(source, overrides)
    if not isinstance(raw.get("task"), str):
        raise ConfigError("task: must be given, such as task: classify")
    task_class = load_task(raw["task"])
    run, options = settings.resolve(raw, task_class.Options)
    return run, task_class(options, run.data)


def train(source: str | Path | dict[str, Any], overrides: Sequence[str] = (), *, quiet: bool = False, resume: bool = False) -> Trained:
    """Fine-tune an encoder.

    Args:
        source: a run file, the name of a task, or the settings as a dictionary; with `resume` the folder of a run, too.
        overrides: `section.name=value`, laid over it.
        quiet: say nothing on stderr.
        resume: go on from the newest complete checkpoint, bit for bit; where there is none the run begins, and a run that is
            finished is left as it is.

    Raises:
        BertuneError: see `bertune.errors`; nothing has been written when settings or data are at fault.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    began = time.perf_counter()
    run, task = prepare(continued.settings_of(source) if resume else source, overrides)
    said: list[str] = []
    run = training.as_launched(run, said.append)
    gather.join(on_processor=choose_device(run.device).type == "cpu")
    talk = Talk(quiet or gather.rank() > 0)
    for line in said:
        talk.say(f"note: {line}")
    place = continued.chosen_place(run, resume=resume, note=teller(talk, "resume"))
    out = place.out
    if place.finished:
        talk.say(f"resume: the run in {str(out)!r} is finished; nothing is left to do")
        return Trained(out, continued.finished_scores(out))
    for line in settings.idle_settings(run):
        talk.say(f"note: {line}")
    if run.data.train is None:
        raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    if run.train.r_drop and type(task).divergence is Task.divergence:
        raise ConfigError(f"train.r_drop: task {run.task} has no distance between two passes; leave it out")
    if run.train.shard and task.joint:
        raise ConfigError("train.shard: losses that look at a whole batch need the whole model in every process; leave it out")
    keep_pages()
    bound_kernel_caches(128)  # of so many shapes a step is made; fewer cost 6 % of its time
    accelerator, numerics, why = training.accelerator_of(run, out)
    splits = large.read(run, task, talk)
    if min(run.train.batch_size, len(splits.train)) < task.least_batch:
        raise ConfigError(
            f"train.batch_size: a batch of {min(run.train.batch_size, len(splits.train))} has no other row to compare with, so nothing "
            f"would be learnt; at least {task.least_batch} rows are needed"
        )
    seed_everything(run.seed)
    model, tokenizer, report = _build(run, task)
    talk.say(f"what: {task.describe()}")
    talk.say(f"rows: {len(splits.train)} train, {len(splits.dev)} dev, {len(splits.test)} test")
    talk.say(f"to:   {out}")
    model.encoder.compute_in(numerics)
    _tell_model(talk, run, model, report, f"computes in {numerics.precision} on {accelerator.device.type}, {why}")
    rows = large.encode(run, task, tokenizer, splits, talk)
    result = Artifact(model, task, tokenizer, run, {"max_length": tokenizer.max_length, "data": splits.fingerprint})
    trained = training.Course(result, rows, splits, place, accelerator, talk).run()
    talk.say(f"done in {duration(time.perf_counter() - began)}")
    return trained


def _build(run: RunConfig, task: Task) -> tuple[Model, Tokenizer, LoadReport]:
    folder = locate(run.model)
    fonts = [run.train.glyph_font] if isinstance(run.train.glyph_font, str) else run.train.glyph_font or []
    encoder, report = read_encoder(folder, GlyphChoice(tuple(fonts), run.train.glyphs == "trained"))
    if run.train.dropout is not None:
        encoder.set_dropout(run.train.dropout)
    tokenizer = load_tokenizer(folder, encoder.longest, run.data)
    rows = len(encoder.word_embeddings())
    if tokenizer.vocabulary_size > rows:
        raise ConfigError(f"model: the tokenizer in {str(folder)!r} knows {tokenizer.vocabulary_size} tokens, its encoder only {rows}")
    if getattr(task.options, "pooling", "mean") in {"pooler", "cls"} and not _first_token_speaks(encoder, tokenizer):
        raise ConfigError(
            f"model: the first token of a text does not speak for all of it in {str(folder)!r} (no special token stands there, or it "
            "cannot see what follows); set options.pooling=mean"
        )
    return Model(encoder, task.head(encoder, report.pooler)), tokenizer, report


def _first_token_speaks(encoder: Encoder, tokenizer: Tokenizer) -> bool:
    """Tell whether a special token begins every text and its state depends on the text, as a causal model's does not."""
    if not tokenizer.begins_with_special:
        return False
    rows = EncodedRows([Encoded((piece,)) for piece in tokenizer.encode([("a",), ("a 1 . 2",)])])
    ragged = rows.batch(range(2), list).ragged
    with torch.no_grad():
        states = first_tokens(cast(torch.nn.Module, encoder).eval()(ragged), ragged)
    return not torch.allclose(states[0], states[1], rtol=0, atol=1e-7)


def _tell_model(talk: Talk, run: RunConfig, model: Model, report: LoadReport, how: str) -> None:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    talk.say(f"model: {run.model}, {model.encoder.kind}, {millions:.1f} M parameters; {how}")
    for note in report.notes:
        talk.say(f"model: {note}")
    names = [name for name, _ in model.head.named_parameters()]
    pretrained = {f"dense.{kind}" for kind in report.pooler}  # what the head took over from the checkpoint, if it has such a layer
    new = [*report.new, *(f"head.{name}" for name in names if name not in pretrained)]
    unused = [*report.unused, *(f"pooler {name}" for name in sorted(pretrained - set(names)))]
    talk.say(f"weights: new, to be learnt: {', '.join(new) or 'none'}")
    if unused:
        talk.say(f"weights: in the checkpoint but not used: {', '.join(unused)}")


def load(folder: str | Path, *, device: str = "auto", precision: str = "auto", task: str | None = None) -> Pipeline:
    """Open a saved folder, ready to predict.

    Args:
        folder: what `train` has written.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors that have units for it.
        task: the Python file of a task of your own.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    return saved.read(folder, task).pipeline(device, precision)


READING = ("columns", "format", "delimiter", "quoting", "encoding", "drop_labels", "label_delimiter", "bad_rows", "cache", "workers")
"""What can be said anew of a file to be scored or predicted; the rest of `data` was settled by training."""


def data_settings(data: DataConfig, file: str, overrides: Sequence[str]) -> DataConfig:
    """Return how files were read in training, with overrides (`data.name=value`) laid over it.

    Standard input is lines of UTF-8 unless an override says otherwise: it need not come from where the training files came from.

    Raises:
        ConfigError: an override names what training has settled, or a Hub data set comes without a split.
    """
    if file.startswith("hub:") and ":" not in file.removeprefix("hub:"):
        raise ConfigError(f"{file}: say which split, such as {file}:test or {file}:validation")
    raw: dict[str, Any] = {"task": "any", "data": data.model_dump(exclude_unset=True)}
    if file == "-":
        raw["data"] |= {"encoding": "utf-8", "format": "auto"}
    for override in overrides:
        section, _, name = override.partition("=")[0].strip().partition(".")
        if section != "data" or name.split(".")[0] not in READING:
            raise ConfigError(f"{override!r}: here only these can be given: {', '.join(f'data.{name}' for name in READING)}")
        settings.lay(raw, override)
    return settings.resolve(raw, settings.Section)[0].data


def evaluate(folder: str | Path, files: str | Sequence[str], overrides: Sequence[str] = (), **where: Any) -> tuple[Scores, float, int]:
    """Score a saved model on files with targets; several processes share the work, and each has the result.

    Args:
        folder: what `train` has written.
        files: one file or several.
        overrides: `data.name=value`, such as data.encoding=gb18030.
        where: `device`, `precision`, `task` of `load`, and `talk`.

    Returns:
        Scores, mean loss, and how many rows were longer than max_length.
    """
    gather.join(on_processor=choose_device(where.get("device", "auto")).type == "cpu")
    talk = where.pop("talk", Talk(quiet=True))
    artifact = saved.read(folder, where.pop("task", None))
    several = [files] if isinstance(files, str) else list(files)
    data = data_settings(artifact.run.data, several[0], overrides)
    task = artifact.task
    task.data = data
    note = teller(talk)
    with large.scratch(data, several, talk) as kept:
        into = None if kept is None else kept / "examples.arrow"
        examples = checked(read_examples(several, task, data, note, to_score=True, into=into), task, data, note)
        pipeline = artifact.pipeline(**where)
        if kept is None:
            predictions, loss = pipeline.evaluate(examples)
        else:
            predictions, loss = pipeline.evaluate_rows(large.write_rows(kept, "rows", task, pipeline.tokenizer, examples, talk))
        for line in task.report():
            note(line)
        return task.score(predictions, examples), loss, pipeline.num_cut


@dataclass(frozen=True)
class Predicted:
    """Rows with what the model says of them, in the order of the file."""

    header: list[str]
    """Every column of the file."""
    format: str
    """csv, tsv, json, jsonl, parquet; hub or lines."""
    joiner: str
    """What stands between the labels of a multi-label prediction in csv: what the training files had."""
    results: Iterator[tuple[Row, Prediction]]


def predict(folder: str | Path, file: str, overrides: Sequence[str] = (), **where: Any) -> Predicted:
    """Predict a file row by row, in its order, in memory that does not grow with it; several processes share the work.

    A file is first read once to its end, so that a bad row ends the call before anything is given out; standard
    input ("-") is read once only.

    Args:
        folder: what `train` has written.
        file: a data file, or "-".
        overrides: `data.name=value`.
        where: `device`, `precision`, `task` of `load`, and `talk`.

    Raises:
        BertuneError: the folder, the settings or a row cannot be used.
    """
    gather.join(on_processor=choose_device(where.get("device", "auto")).type == "cpu")
    if file == "-" and gather.num_processes() > 1:
        raise ConfigError("standard input cannot be read by several processes; give a file, or start one process")
    talk = where.pop("talk", Talk(quiet=True))
    artifact = saved.read(folder, where.pop("task", None))
    data = data_settings(artifact.run.data, file, overrides)
    artifact.task.data = data
    header: dict[str, None] = {}
    if file != "-":
        faults = Faults(skip=data.bad_rows == "skip")
        for row, _ in stream(file, artifact.task, data, faults, teller(talk), need_target=False):
            header.update(dict.fromkeys(row.raw))
        for line in faults.settle():
            talk.say(f"data: {line}")
    joiner = data.label_delimiter or "|"
    return Predicted(
        list(header), format_of(file, data, artifact.task.columns), joiner, _predicted(artifact.pipeline(**where), file, data, talk)
    )


def _predicted(pipeline: Pipeline, file: str, data: DataConfig, talk: Talk) -> Iterator[tuple[Row, Prediction]]:
    faults = Faults(skip=data.bad_rows == "skip")
    waiting: deque[Row] = deque()

    def examples() -> Iterator[Example]:
        for row, example in stream(file, pipeline.task, data, faults, lambda _: None, need_target=False):
            waiting.append(row)
            yield example

    for prediction in pipeline.stream(examples()):
        yield waiting.popleft(), prediction
    for line in faults.settle():
        if file == "-":
            talk.say(f"data: {line}")
    for line in pipeline.task.report():
        talk.say(f"data: {line}")
    if pipeline.num_cut:
        talk.say(f"data: {pipeline.num_cut} rows are longer than max_length {pipeline.tokenizer.max_length} and were cut")


def teller(talk: Talk, about: str = "data") -> Callable[[str], None]:
    """Return what says a line about something."""
    return lambda line: talk.say(f"{about}: {line}")
