"""`bertune train`: settings, data and model to a finished folder. A newcomer starts reading here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from bertune import distributed
from bertune.artifact.artifact import Artifact
from bertune.config.load import idle_settings, read_config, resolve_config
from bertune.config.schema import RunConfig
from bertune.console import Console, duration, prefixed
from bertune.data.dataset import EncodedDataset
from bertune.encoders.families.glyphs import GlyphChoice
from bertune.encoders.load import LoadReport, read_encoder
from bertune.encoders.locate import locate
from bertune.errors import ConfigError
from bertune.heads.model import Model
from bertune.kernels.allocator import bound_kernel_caches, keep_pages
from bertune.kernels.precision import choose_device
from bertune.kernels.ragged_ops import first_tokens
from bertune.tasks import load_task
from bertune.tasks.base.datasets import encode_datasets, read_datasets
from bertune.tasks.base.task import Task
from bertune.text.load import load_tokenizer
from bertune.text.tokenizer import Tokenizer
from bertune.training.launch import accelerator_of, as_launched
from bertune.training.resume import choose_run_dir, finished_scores, settings_of
from bertune.training.rng import seed_everything
from bertune.training.run import Trained, TrainingRun
from bertune.types import EncodedExample, Encoder


def prepare(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> tuple[RunConfig, Task]:
    """Check a run's settings and build its task.

    Raises:
        ConfigError: something is wrong with the settings; all of it is named.
        TaskNotFound: there is no such task.
    """
    raw = read_config(source, overrides)
    if not isinstance(raw.get("task"), str):
        raise ConfigError("task: must be given, such as task: classify")
    task_class = load_task(raw["task"])
    run, options = resolve_config(raw, task_class.Options)
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
    run, task = prepare(settings_of(source) if resume else source, overrides)
    said: list[str] = []
    run = as_launched(run, said.append)
    distributed.init(on_processor=choose_device(run.device).type == "cpu")
    talk = Console(quiet or distributed.rank() > 0)
    for line in said:
        talk.say(f"note: {line}")
    place = choose_run_dir(run, resume=resume, note=prefixed(talk, "resume"))
    out = place.out
    if place.finished:
        talk.say(f"resume: the run in {str(out)!r} is finished; nothing is left to do")
        return Trained(out, finished_scores(out))
    for line in idle_settings(run):
        talk.say(f"note: {line}")
    if run.data.train is None:
        raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    if run.train.r_drop and type(task).divergence is Task.divergence:
        raise ConfigError(f"train.r_drop: task {run.task} has no distance between two passes; leave it out")
    if run.train.shard and task.joint:
        raise ConfigError("train.shard: losses that look at a whole batch need the whole model in every process; leave it out")
    keep_pages()
    bound_kernel_caches(128)  # of so many shapes a step is made; fewer cost 6 % of its time
    accelerator, numerics, why = accelerator_of(run, out)
    splits = read_datasets(run, task, talk)
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
    rows = encode_datasets(run, task, tokenizer, splits, talk)
    result = Artifact(model, task, tokenizer, run, {"max_length": tokenizer.max_length, "data": splits.fingerprint})
    trained = TrainingRun(result, rows, splits, place, accelerator, talk).run()
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
    rows = EncodedDataset([EncodedExample((piece,)) for piece in tokenizer.encode([("a",), ("a 1 . 2",)])])
    ragged = rows.batch(range(2), list).ragged
    with torch.no_grad():
        states = first_tokens(cast(torch.nn.Module, encoder).eval()(ragged), ragged)
    return not torch.allclose(states[0], states[1], rtol=0, atol=1e-7)


def _tell_model(talk: Console, run: RunConfig, model: Model, report: LoadReport, how: str) -> None:
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
