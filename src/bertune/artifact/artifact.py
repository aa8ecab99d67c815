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

import hashlib
import importlib.metadata
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bertune.artifact.sentence_transformers import (
    POOLINGS,
)
from bertune.config.schema import RunConfig
from bertune.encoders.int8 import quantize
from bertune.encoders.names import NOT_IN_TRANSFORMERS
from bertune.heads.model import Model
from bertune.inference.int8_sample import sample_texts
from bertune.inference.pipeline import Pipeline
from bertune.inference.sentence_pipeline import SentencePipeline
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.kernels.precision import choose_device, choose_precision
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON, Numerics

FORMAT_VERSION = 2
READABLE = {1, FORMAT_VERSION}
"""Formats that can be opened; see `bertune.artifact.upgrade`."""
WEIGHTS = "model.safetensors"
RECORDED_PACKAGES = ("bertune", "torch", "transformers", "tokenizers", "accelerate")


@dataclass
class Artifact:
    """A model with all that is needed to use it again."""

    model: Model
    task: Task
    tokenizer: Tokenizer
    run_config: RunConfig
    metadata: JSON = field(default_factory=dict)

    def pipeline(self, device: str = "auto", precision: str = "auto") -> Pipeline:
        """Put the model on a device, ready to predict."""
        retain_freed_memory()
        limit_kernel_caches(32)
        place = choose_device(device)
        chosen, _ = choose_precision(precision, place)
        model = self.model.to(place).eval()
        model.encoder.set_numerics(Numerics(chosen))
        if chosen == "int8":
            quantize(model.encoder, sample_texts(self.tokenizer))
        model.encoder.prepare_inference()
        if not isinstance(self.task, SentenceTask):
            return Pipeline(model, self.task, self.tokenizer, place)
        own = {
            name: self.metadata[name]
            for name in ("prompts", "default_prompt_name", "truncate_dim")
            if self.metadata.get(name)
        }
        return SentencePipeline(model, self.task, self.tokenizer, place, **own)


def opens_in_sentence_transformers(artifact: Artifact) -> bool:
    """Tell whether the model is one that sentence-transformers can compute."""
    sentences = isinstance(artifact.task, SentenceTask) and artifact.model.head.pooling in POOLINGS
    return sentences and not bertune_only_reason(artifact)


def bertune_only_reason(artifact: Artifact) -> str:
    """Say why no other tool opens the folder at all, or nothing."""
    kind = artifact.model.encoder.model_type
    return NOT_IN_TRANSFORMERS[kind].reason if kind in NOT_IN_TRANSFORMERS else ""


def package_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def sha256_of_tensors(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors; their order does not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
