"""The saved folder: data only, never code. transformers opens it too, with the same numbers.

| file | what |
|---|---|
| config.json, model.safetensors, tokenizer.json, tokenizer_config.json | what transformers reads |
| bertune.json | format number, task and what it learnt, encoder, package versions |
| run.yaml | every setting of the run; `bertune train MODEL/run.yaml` repeats it |
| scores.json, history.jsonl | how good the model is, and how it became so |
| README.md | the model card |
| modules.json, 1_Pooling/, ... | how sentence-transformers makes vectors, for tasks that make them |
| last/ | the model of the last step, as a folder of the same kind, where dev rows chose the best |

An ensemble is a folder of such folders; only bertune opens it, and anything opens a member:

| file | what |
|---|---|
| members/member-1/, members/member-2/, ... | the models, each a saved folder of its own |
| bertune.json | format number, task and its state for the mean, `ensemble`: the members in their order |
| run.yaml | the settings of the first member: how files are read |
| scores.json | how good the mean is, where it was scored |
| README.md | the model card |
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bertune.artifact.sentence_modules import POOLINGS
from bertune.config.schema import DataConfig, RunConfig
from bertune.encoders.families.registry import get_family
from bertune.heads.masked_lm import MaskedLMHead
from bertune.heads.model import Model
from bertune.inference.fill_pipeline import FillPipeline
from bertune.inference.pipeline import Pipeline
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.kernels.precision import choose_device, choose_precision
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON, Numerics

FORMAT_VERSION = 2
ENSEMBLE_FORMAT_VERSION = 3
"""The format of a folder of several models, which versions before it do not know."""
READABLE_FORMATS = {1, FORMAT_VERSION, ENSEMBLE_FORMAT_VERSION}
"""Formats that can be opened; see `bertune.artifact.upgrade`."""
RECORDED_PACKAGES = ("bertune", "torch", "transformers", "tokenizers", "accelerate")


@dataclass
class Artifact:
    """A model with everything that is needed to use it again.

    Attributes:
        model: encoder and head.
        task: knows what the outputs mean.
        tokenizer: texts to token ids.
        run_config: the settings of the run.
        metadata: further values of bertune.json: `max_length`, and of the data.
    """

    model: Model
    task: Task
    tokenizer: Tokenizer
    run_config: RunConfig
    metadata: JSON = field(default_factory=dict)

    def for_reading(self, data: DataConfig) -> Artifact:
        """Return an artifact with the same model, whose task reads files with these settings."""
        return replace(self, task=self.task.with_data(data))

    def pipeline(self, device: str = "auto", precision: str = "auto") -> Pipeline:
        """Put the model on a device, ready to predict.

        Raises:
            ConfigError: the device or the precision is unknown or not available.
        """
        torch_device = choose_device(device)
        compute_precision, _ = choose_precision(precision, torch_device)
        model = self.model.to(torch_device).eval()
        model.encoder.set_numerics(Numerics(compute_precision))
        if len(model.members) == 1 and isinstance(model.head, MaskedLMHead):
            return FillPipeline(model, self.task, self.tokenizer, torch_device).prepare()
        if not isinstance(self.task, SentenceTask):
            return Pipeline(model, self.task, self.tokenizer, torch_device).prepare()
        options = self.task.options
        return SentencePipeline(
            model,
            self.task,
            self.tokenizer,
            torch_device,
            prompts=dict(options.prompts),
            default_prompt_name=options.default_prompt_name,
            truncate_dim=options.truncate_dim,
        ).prepare()


def opens_in_sentence_transformers(artifact: Artifact) -> bool:
    """Tell whether sentence-transformers can compute the model."""
    if bertune_only_reason(artifact) or not isinstance(artifact.task, SentenceTask):
        return False
    return artifact.model.head.pooling in POOLINGS


def bertune_only_reason(artifact: Artifact) -> str:
    """Say why no other tool opens the folder at all; empty where one does."""
    if len(artifact.model.members) > 1:
        return "it is an ensemble, which no other tool knows"
    family = get_family(artifact.model.encoder.model_type)
    return "" if family is None else family.bertune_only_reason


def package_version(package: str) -> str:
    """Return the version of an installed package, or "unknown"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def sha256_of_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, as hex digits; the order of the names does not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
