"""The saved folder: data only, never code. It opens in transformers too, with the same numbers.

| file | what |
|---|---|
| config.json, model.safetensors, tokenizer.json, tokenizer_config.json | what transformers reads |
| bertune.json | format number, task, its options and what it learnt, package versions |
| run.yaml | the resolved run; `bertune train OUT/run.yaml` repeats it |
| scores.json, history.jsonl | how good it is, and how it came to that |
| README.md | the model card |
| modules.json, 1_Pooling/, ... | how sentence-transformers makes vectors, for tasks that do |
| last/ | the weights of the last step, as a folder of the same kind, where a dev set chose the best |
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bertune.config import DataConfig, RunConfig, dump
from bertune.errors import ArtifactError, ConfigError, listed
from bertune.model import Model
from bertune.model.encoders import build_encoder, read_encoder
from bertune.model.int8 import quantize
from bertune.model.names import FOREIGN
from bertune.model.numerics import bound_kernel_caches, choose_device, choose_precision, keep_pages
from bertune.model.sentence_head import SentenceHead
from bertune.model.source import EMBEDDED, locate
from bertune.model.tokenizer import Tokenizer, load_tokenizer
from bertune.ship.calibration import sample
from bertune.ship.encoding import SentencePipeline
from bertune.ship.pipeline import Pipeline
from bertune.ship.sentence import POOLINGS, Dense, SentenceModules, is_sentence_folder, read_modules, write_modules
from bertune.tasks import load_task
from bertune.tasks.sentence import SentenceTask
from bertune.tasks.task import Task
from bertune.types import JSON, Numerics, Scores

FORMAT = 1
PACKAGES = ("bertune", "torch", "transformers", "tokenizers", "accelerate")


@dataclass
class Artifact:
    """A model with all that is needed to use it again."""

    model: Model
    task: Task
    tokenizer: Tokenizer
    run: RunConfig
    meta: JSON = field(default_factory=dict)

    def pipeline(self, device: str = "auto", precision: str = "auto") -> Pipeline:
        """Put the model on a device, ready to predict."""
        keep_pages()
        bound_kernel_caches(32)
        place = choose_device(device)
        chosen, _ = choose_precision(precision, place)
        model = self.model.to(place).eval()
        model.encoder.compute_in(Numerics(chosen))
        if chosen == "int8":
            quantize(model.encoder, sample(self.tokenizer))
        model.encoder.prepare()
        if not isinstance(self.task, SentenceTask):
            return Pipeline(model, self.task, self.tokenizer, place)
        own = {name: self.meta[name] for name in ("prompts", "default_prompt_name", "truncate_dim") if self.meta.get(name)}
        return SentencePipeline(model, self.task, self.tokenizer, place, **own)


def write(artifact: Artifact, folder: Path) -> None:
    """Write all of a model but its scores and its card; weights replace older ones in one step.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_weights(artifact.model, folder)
        _write_json(folder / "config.json", _hub_config(artifact))
        artifact.tokenizer.save(folder)
        if has_modules(artifact):
            write_modules(folder, _sentence_modules(artifact), artifact.model.encoder.width)
        write_text(folder / "run.yaml", dump(artifact.run))
        write_meta(artifact, folder)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from None


def has_modules(artifact: Artifact) -> bool:
    """Tell whether the model is one that sentence-transformers can compute."""
    sentences = isinstance(artifact.task, SentenceTask) and artifact.model.head.pooling in POOLINGS
    return sentences and not only_here(artifact)


def only_here(artifact: Artifact) -> str:
    """Say why no other tool opens the folder at all, or nothing."""
    kind = artifact.model.encoder.kind
    return FOREIGN[kind].why if kind in FOREIGN else ""


def _sentence_modules(artifact: Artifact) -> SentenceModules:
    """Return the head as modules of sentence-transformers."""
    head: Any = artifact.model.head
    dense = tuple(
        Dense(layer.weight.detach().cpu(), layer.bias.detach().cpu(), "identity" if activation == "none" else activation)
        for layer, activation in zip(head.dense, head.activations, strict=True)
    )
    lower = cast(SentenceTask, artifact.task).lower
    return SentenceModules(
        max_length=artifact.tokenizer.max_length, do_lower_case=lower, pooling=head.pooling, dense=dense, normalize=head.normalize,
        similarity="cosine",
    )  # fmt: skip


def write_meta(artifact: Artifact, folder: Path) -> None:
    """Write bertune.json: what is needed besides weights and tokenizer."""
    meta = {
        "format": FORMAT,
        "task": artifact.run.task,
        "state": artifact.task.state(),
        "encoder": artifact.model.encoder.kind,
        "versions": {name: version(name) for name in PACKAGES},
        **artifact.meta,
    }
    _write_json(folder / "bertune.json", meta)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read model.safetensors.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        weights: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / 'model.safetensors'}: missing or damaged: {str(error).splitlines()[0]}") from None
    return weights


def _write_weights(model: Model, folder: Path) -> None:
    part = folder / "model.safetensors.part"
    save_file({n: t.contiguous().cpu() for n, t in model.saved_state().items()}, part, metadata={"format": "pt"})
    part.replace(folder / "model.safetensors")


def _hub_config(artifact: Artifact) -> JSON:
    head, encoder = artifact.model.head, artifact.model.encoder
    config = {**encoder.config(), **artifact.task.hub_config(head), "dtype": "float32"}
    if config.get("architectures") is None:  # transformers opens the encoder alone, and not a head it would make up
        config["architectures"] = [encoder.encoder_class]
    for name in ("_name_or_path", "torch_dtype", "num_labels"):
        config.pop(name, None)
    return config


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or is as it was."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def write_scores(folder: Path, scores: dict[str, Scores], extra: JSON) -> None:
    """Write scores.json: the scores of each split, and the summary of the run."""
    _write_json(folder / "scores.json", {**{split: s.to_json() for split, s in scores.items()}, **extra})


def read(folder: str | Path, task_file: str | None = None) -> Artifact:
    """Read a saved folder.

    Args:
        folder: what `write` wrote, or a folder of sentence-transformers; or minilm, which comes as a package.
        task_file: the Python file of a task of your own; a folder never says which code to run.

    Raises:
        ArtifactError: the folder is missing, damaged, or not bertune's.
    """
    place = Path(folder)
    if str(folder) in EMBEDDED and not place.is_dir():
        place = locate(str(folder))
    if not (place / "bertune.json").is_file() and is_sentence_folder(place):
        return _read_sentence_folder(place)
    meta = _read_meta(place)
    name = str(meta["task"])
    if name.endswith(".py") and task_file is None:
        raise ArtifactError(f"{place}: was made with the task file {name!r}; name that file: --task FILE, or load(..., task=FILE)")
    task_class = load_task(task_file or name)
    run = _read_run(place)
    try:
        task = task_class(task_class.Options.model_validate(run.options), run.data)
        task.load(meta["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{place}: task {task_file or name!r} does not fit this folder: {str(error).splitlines()[0]}") from None
    try:
        encoder = build_encoder(place)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    model = Model(encoder, task.head(encoder, {}))
    try:
        model.load_saved(read_weights(place))
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(f"{place / 'model.safetensors'}: does not fit config.json: {str(error).splitlines()[0]}") from None
    tokenizer = load_tokenizer(place, encoder.longest, DataConfig(max_length=meta["max_length"], truncation=run.data.truncation))
    return Artifact(model.eval(), task, tokenizer, run, meta)


def _read_sentence_folder(place: Path) -> Artifact:
    """Read a folder of sentence-transformers as a model of task embed."""
    modules = read_modules(place)
    if modules.prompts and not modules.include_prompt:
        raise ArtifactError(f"{place / '1_Pooling'}: include_prompt is false, and bertune pools over the tokens of a prompt too")
    inside = place / modules.transformer_path
    options = {"pooling": modules.pooling, "normalize": modules.normalize}
    run = RunConfig(task="embed", model=str(place), options=options)
    task_class = load_task("embed")
    task = task_class(task_class.Options.model_validate(options), run.data)
    task.load({"form": 2, "lower": modules.do_lower_case})
    sentences = cast(SentenceTask, task)
    sentences.before = modules.prompts.get(modules.default_prompt_name or "", "")
    sentences.width = modules.truncate_dim
    try:
        encoder, report = read_encoder(inside)
        data = DataConfig(max_length=min(modules.max_length, encoder.longest) if modules.max_length else None)
        tokenizer = load_tokenizer(inside, encoder.longest, data)
    except ConfigError as error:
        raise ArtifactError(str(error).removeprefix("model: ")) from None
    if report.new:
        raise ArtifactError(f"{inside}: lacks the weights {listed(report.new, 3)}")
    dense = [(len(d.weight), "none" if d.activation == "identity" else d.activation) for d in modules.dense]
    head = SentenceHead(encoder.width, cast(Any, modules.pooling), dense, normalize=modules.normalize)
    with torch.no_grad():
        for layer, given in zip(head.dense, modules.dense, strict=True):
            layer.get_parameter("weight").copy_(given.weight)
            layer.get_parameter("bias").copy_(torch.zeros(len(given.weight)) if given.bias is None else given.bias)
    meta = {"prompts": modules.prompts, "default_prompt_name": modules.default_prompt_name, "truncate_dim": modules.truncate_dim}
    return Artifact(Model(encoder, head).eval(), task, tokenizer, run, {"max_length": tokenizer.max_length, **meta})


def _read_meta(place: Path) -> JSON:
    try:
        meta = json.loads((place / "bertune.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        reason = "holds no bertune.json" if place.is_dir() else "no such folder"
        raise ArtifactError(f"{place}: {reason}; give a folder that `bertune train` has written") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: {error}") from None
    if not isinstance(meta, dict):
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: not an object")
    if meta.get("format") != FORMAT:
        raise ArtifactError(f"{place}: has format {meta.get('format')!r}, this bertune reads format {FORMAT}; install a newer bertune")
    if not {"task", "state", "max_length"} <= meta.keys():
        raise ArtifactError(f"{place / 'bertune.json'}: damaged: lacks what bertune writes")
    return dict(meta)


def _read_run(place: Path) -> RunConfig:
    from pydantic import ValidationError

    from bertune.config import read as read_config

    try:
        return RunConfig.model_validate(read_config(str(place / "run.yaml")))
    except (ConfigError, ValidationError) as error:
        raise ArtifactError(f"{place / 'run.yaml'}: damaged: {str(error).splitlines()[0]}") from None
