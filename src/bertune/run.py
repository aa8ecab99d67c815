"""The whole story: config in, artifact out. A newcomer starts reading here."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bertune import config as settings
from bertune.config import DataConfig, RunConfig
from bertune.data.batching import EncodedRows
from bertune.data.formats import Faults, format_of
from bertune.engine import log, loop
from bertune.errors import ConfigError
from bertune.memory import peak_memory_gb
from bertune.model import Model
from bertune.model.encoders import LoadReport, read_encoder
from bertune.model.glyphs import GlyphChoice
from bertune.model.heads import first_tokens
from bertune.model.numerics import bound_kernel_caches, choose_device, choose_precision, keep_pages
from bertune.model.source import locate
from bertune.model.tokenizer import Tokenizer, load_tokenizer
from bertune.ship import artifact as saved
from bertune.ship.artifact import Artifact
from bertune.ship.card import write_card
from bertune.ship.pipeline import Pipeline, predict_rows
from bertune.talk import Talk, duration
from bertune.tasks import load_task
from bertune.tasks.reading import Splits, checked, read_examples, read_splits, stream
from bertune.tasks.task import Task
from bertune.types import Encoded, Encoder, Example, Numerics, Prediction, Row, Scores

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Trained:
    """What a training run left behind."""

    folder: Path
    scores: dict[str, Scores]
    """Scores of the best checkpoint by split: dev, and test when there is one."""


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


def train(source: str | Path | dict[str, Any], overrides: Sequence[str] = (), *, quiet: bool = False) -> Trained:
    """Fine-tune an encoder.

    Args:
        source: a run file, the name of a task, or the settings as a dictionary.
        overrides: `section.name=value`, laid over it.
        quiet: say nothing on stderr.

    Raises:
        BertuneError: see `bertune.errors`; nothing has been written when settings or data are at fault.
    """
    talk, began = Talk(quiet), time.perf_counter()
    run, task = prepare(source, overrides)
    out = _free_folder(run)
    for line in settings.idle_settings(run):
        talk.say(f"note: {line}")
    if run.data.train is None:
        raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    if run.train.r_drop and type(task).divergence is Task.divergence:
        raise ConfigError(f"train.r_drop: task {run.task} has no distance between two passes; leave it out")
    keep_pages()
    bound_kernel_caches(128)  # of so many shapes a step is made; fewer cost 6 % of its time
    accelerator, numerics, why = _accelerator(run, out)
    splits = read_splits(task, run.data, run.seed, teller(talk))
    if min(run.train.batch_size, len(splits.train)) < task.least_batch:
        raise ConfigError(
            f"train.batch_size: a batch of {min(run.train.batch_size, len(splits.train))} has no other row to compare with, so nothing "
            f"would be learnt; at least {task.least_batch} rows are needed"
        )
    loop.seed_everything(run.seed)
    model, tokenizer, report = _build(run, task)
    talk.say(f"what: {task.describe()}")
    talk.say(f"rows: {len(splits.train)} train, {len(splits.dev)} dev, {len(splits.test)} test")
    talk.say(f"to:   {out}")
    model.encoder.compute_in(numerics)
    _tell_model(talk, run, model, report, f"computes in {numerics.precision} on {accelerator.device.type}, {why}")
    rows = _encode(talk, task, tokenizer, splits)
    result = Artifact(model, task, tokenizer, run, {"max_length": tokenizer.max_length, "data": _fingerprint(splits)})
    trained = _fit(result, rows, splits, out, accelerator, talk)
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


def _fit(result: Artifact, rows: dict[str, EncodedRows], splits: Splits, out: Path, accelerator: Accelerator, talk: Talk) -> Trained:
    run, task, model = result.run, result.task, result.model.to(accelerator.device)
    latest: list[Prediction] = []
    best: list[Prediction] = []

    def evaluate(model: Model) -> tuple[float, Scores]:
        latest[:], loss = predict_rows(model, task, rows["dev"], accelerator.device)
        return loss, task.score(latest, splits.dev, intervals=False)

    def keep(*_: object) -> None:
        best[:] = latest
        saved.write(result, out)

    try:
        out.mkdir(parents=True, exist_ok=True)
        history = log.RunLog(out, run, accelerator, talk)
    except OSError as error:
        raise ConfigError(f"out: {str(out)!r} cannot be written: {error.strerror or error}") from None
    work = loop.Fit(model, task, rows["train"], run, accelerator)
    if work.num_active is not None:
        talk.say(f"vocabulary: {work.num_active} tokens occur in the training rows, so {work.num_active} word vectors are trained")
    try:
        with talk.bar("training", work.total):
            outcome = loop.fit(work, evaluate, keep, history)
    finally:
        history.close()
    history.table()
    with work.evaluated():
        saved.write(result, out / "last")
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.load_saved(saved.read_weights(out))
    task.tune(latest, splits.dev, lambda _: None)  # the last step was scored last: these are its own decisions
    saved.write_meta(result, out / "last")
    scores = {"dev": task.score(task.tune(best, splits.dev, teller(talk, "note")), splits.dev)}
    if splits.test:
        found, _ = predict_rows(model, task, rows["test"], accelerator.device)
        scores["test"] = task.score(found, splits.test)
    for line in task.report():
        talk.say(f"data: train: {line}")
    _finish(result, out, outcome, scores, accelerator, talk)
    return Trained(out, scores)


def _finish(result: Artifact, out: Path, outcome: loop.Outcome, scores: dict[str, Scores], accelerator: Accelerator, talk: Talk) -> None:
    """Write what is known at the end, and say it."""
    summary = _summary(outcome, result, accelerator)
    saved.write_meta(result, out)  # with what `tune` has learnt
    saved.write_scores(out, scores, {"run": summary})
    write_card(result, out, scores, summary)
    for split, found in scores.items():
        talk.say(f"{split} (best checkpoint, step {outcome.best_step}): {describe_scores(found)}")
    steps = f"{outcome.steps} steps{', stopped early,' if outcome.stopped_early else ''}"
    talk.say(
        f"run: {steps} in {duration(outcome.train_seconds)} of training, "
        f"{summary['rows_per_s']:.0f} rows/s, {summary['tokens_per_s']:.0f} tokens/s, peak memory {summary['peak_memory_gb']:.2f} GB"
    )
    why = result.task.cannot_be_opened(result.model.head)
    if saved.only_here(result):
        talk.say(f"note: {saved.only_here(result)}: bertune.load opens it")
    elif why:
        talk.say(f"note: {why}, so transformers opens the encoder of this folder without its head; bertune.load opens all of it")


def _summary(outcome: loop.Outcome, result: Artifact, accelerator: Accelerator) -> dict[str, Any]:
    seconds = max(outcome.train_seconds, 1e-9)
    return {
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early,
        "train_seconds": round(outcome.train_seconds, 3),
        "rows_per_s": outcome.rows / seconds,
        "tokens_per_s": outcome.tokens / seconds,
        "peak_memory_gb": peak_memory_gb(accelerator.device.type),
        "device": accelerator.device.type,
        "precision": result.model.encoder.numerics.precision,
        "parameters": sum(p.numel() for p in result.model.parameters()),
    }


def describe_scores(scores: Scores) -> str:
    """Write the figures of a split in one line, the decisive one with its interval first."""
    low_high = scores.intervals.get(scores.main)
    interval = f" (95 % interval {low_high[0]:.4f} to {low_high[1]:.4f})" if low_high else ""
    rest = "  ".join(f"{name} {value:.4f}" for name, value in scores.values.items() if name != scores.main)
    return f"{scores.main} {scores.decisive:.4f}{interval}  {rest}"


def _accelerator(run: RunConfig, out: Path) -> tuple[Accelerator, Numerics, str]:
    """Set up device and precision, and say why this one.

    Raises:
        ConfigError: the precision is not to be had, or several processes were started.
    """
    from accelerate import Accelerator  # late: it takes a second, and prediction needs none
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs

    log.check_trackers(run.log.trackers)
    device = choose_device(run.device)
    precision, why = choose_precision(run.train.precision, device)
    AcceleratorState._reset_state(reset_partial_state=True)  # or a second run in this process keeps the first one's precision
    accelerator = Accelerator(
        mixed_precision="fp16" if precision == "fp16" else "no",
        kwargs_handlers=[AutocastKwargs(enabled=False)],  # encoders cast by themselves; of fp16 only the loss scaling is wanted
        cpu=device.type == "cpu",
        log_with=run.log.trackers or None,
        project_dir=str(out) if run.log.trackers else None,
    )
    if accelerator.num_processes > 1:
        raise ConfigError(f"{accelerator.num_processes} processes were started; this version trains in one process only")
    return accelerator, Numerics(precision, run.train.fast_dropout), why


def _free_folder(run: RunConfig) -> Path:
    if run.out is not None:
        out = Path(run.out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"out: {run.out!r} is not empty and may hold another run; give a new folder, or remove it first")
        return out
    name = Path(run.task).stem
    return next(path for n in range(1, 10**6) if not (path := Path("runs") / f"{name}-{n}").exists())


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


def _encode(talk: Talk, task: Task, tokenizer: Tokenizer, splits: Splits) -> dict[str, EncodedRows]:
    encoded: dict[str, EncodedRows] = {}
    for name in ("train", "dev", "test"):
        examples: list[Example] = getattr(splits, name)
        if not examples:
            continue
        rows = encoded[name] = EncodedRows(task.encode(examples, tokenizer))
        for line in [*rows.findings(tokenizer.unknown_id, tokenizer.max_length), *task.report()]:
            talk.say(f"data: {name}: {line}")
    return encoded


def _fingerprint(splits: Splits) -> dict[str, Any]:
    """Return what tells this data from other data: rows and a hash of each split."""
    result = {}
    for name in ("train", "dev", "test"):
        examples: list[Example] = getattr(splits, name)
        if examples:
            digest = hashlib.sha256()
            for example in examples:
                digest.update(json.dumps([example.texts, example.target], ensure_ascii=False).encode())
            result[name] = {"rows": len(examples), "sha256": digest.hexdigest()}
    return result


def load(folder: str | Path, *, device: str = "auto", precision: str = "auto", task: str | None = None) -> Pipeline:
    """Open a saved folder, ready to predict.

    Args:
        folder: what `train` has written.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        task: the Python file of a task of your own.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    return saved.read(folder, task).pipeline(device, precision)


READING = ("columns", "format", "delimiter", "quoting", "encoding", "drop_labels", "label_delimiter", "bad_rows")
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
    """Score a saved model on files with targets.

    Args:
        folder: what `train` has written.
        files: one file or several.
        overrides: `data.name=value`, such as data.encoding=gb18030.
        where: `device`, `precision`, `task` of `load`, and `talk`.

    Returns:
        Scores, mean loss, and how many rows were longer than max_length.
    """
    keep_pages()
    talk = where.pop("talk", Talk(quiet=True))
    artifact = saved.read(folder, where.pop("task", None))
    several = [files] if isinstance(files, str) else list(files)
    data = data_settings(artifact.run.data, several[0], overrides)
    task = artifact.task
    task.data = data
    note = teller(talk)
    examples = read_examples(several, task, data, note, to_score=True)
    examples = checked(examples, task, data, note)
    pipeline = artifact.pipeline(**where)
    predictions, loss = pipeline.evaluate(examples)
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
    """Predict a file row by row, in its order, in memory that does not grow with it.

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
    keep_pages()
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
