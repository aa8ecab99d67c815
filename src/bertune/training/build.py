"""A run's settings to its model: pretrained encoder, new head, tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from bertune.artifact.base_model import read_base_modules
from bertune.artifact.sentence_head import copy_dense
from bertune.config.schema import RunConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.families.family import modern_name
from bertune.encoders.families.glyphs import GlyphOptions
from bertune.encoders.load import LoadReport, check_folder, check_token_ids, load_encoder
from bertune.encoders.pretrained import PretrainedFolder, locate_model
from bertune.encoders.reinit import reinit_top_layers
from bertune.errors import ArtifactError, ConfigError
from bertune.heads.masked_lm import MaskedLMHead
from bertune.heads.masked_lm_weights import load_masked_lm_head
from bertune.heads.model import Model
from bertune.heads.sentence import SentenceHead
from bertune.kernels.ragged_ops import first_token_pooling
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.text.tokenizer_files import check_tokenizer_files
from bertune.training.warm_start import take_over_head
from bertune.types import EncodedExample, Encoder


@dataclass(frozen=True)
class BuiltModel:
    """A model as training begins with it."""

    model: Model
    tokenizer: Tokenizer
    report: LoadReport
    """Weights that the checkpoint lacks or has in addition."""
    pretrained_head: frozenset[str] = frozenset()
    """Parameters of the head whose weights come from the checkpoint."""
    partly_new: frozenset[str] = frozenset()
    """Those of them of which only the weights of some labels do."""
    drawn_layers: tuple[int, ...] = ()
    """Layers of the encoder that are drawn anew."""

    def describe(self) -> list[str]:
        """Say which weights are new and which are not used, a line each."""
        names = [name for name, _ in self.model.head.named_parameters()]
        new = [f"head.{name}" for name in names if name not in self.pretrained_head]
        new += [f"head.{name} in part" for name in names if name in self.partly_new]
        new = [*self.report.missing_keys, *new]
        used = {self.model.head.hf_name(name) for name in self.pretrained_head}
        unused = [name for name in self.report.unexpected_keys if name not in used]
        if not self.pretrained_head:
            unused += [f"pooler dense.{kind}" for kind in sorted(self.report.pooler)]
        lines = [f"new, to be learnt: {', '.join(new) or 'none'}"]
        if self.drawn_layers:
            lines.insert(0, describe_drawn(self.drawn_layers))
        return [*lines, f"in the checkpoint but not used: {', '.join(unused)}"] if unused else lines


def describe_drawn(layers: Sequence[int]) -> str:
    """Say which layers are drawn anew.

    >>> describe_drawn([4, 5])
    'layers 4 and 5 drawn anew (train.reinit_layers=2), and the head with them'
    """
    *others, last = map(str, layers)
    names = f"layers {', '.join(others)} and {last}" if others else f"layer {last}"
    return f"{names} drawn anew (train.reinit_layers={len(layers)}), and the head with them"


def open_folder(run: RunConfig) -> PretrainedFolder:
    """Return the folder of a run's encoder.

    Raises:
        ConfigError: there is none.
        MissingExtra: the package of an embedded encoder is not installed.
    """
    trusts_code = run.model_code == "trusted"
    return PretrainedFolder(locate_model(run.model, with_code=trusts_code), trusts_code=trusts_code)


def check_model(run: RunConfig) -> None:
    """Refuse an encoder that cannot be run, before any data is read.

    Raises:
        ConfigError: the folder's architecture, settings or files cannot be used.
        MissingExtra: the package of an embedded encoder is not installed.
    """
    folder = open_folder(run)
    check_folder(folder)
    check_tokenizer_files(folder.path)
    if not folder.has_file("tokenizer.json"):  # it must be made of other files, which may need a package
        folder.load_tokenizer()


def build_model(run: RunConfig, task: Task) -> BuiltModel:
    """Read the pretrained encoder of a run, and build the head of its task on it.

    Args:
        run: the settings.
        task: knows its labels: `task.fit` has run. The head's first weights are drawn from torch's generator.

    Raises:
        ConfigError: the folder cannot be read, or does not fit the task.
        MissingExtra: the package of an embedded encoder is not installed.
    """
    folder = open_folder(run)
    fonts = [run.train.glyph_font] if isinstance(run.train.glyph_font, str) else run.train.glyph_font or []
    encoder, report = load_encoder(folder, GlyphOptions(tuple(fonts), run.train.glyphs == "trained"))
    if run.train.dropout is not None:
        encoder.set_dropout(run.train.dropout)
    tokenizer = folder.load_tokenizer(run.data, encoder.max_positions)
    check_token_ids(tokenizer, encoder, folder.path)
    task.see_tokenizer(tokenizer)
    report.notes += tokenizer.notes
    if getattr(task.options, "pooling", "mean") in {"pooler", "cls"} and not _first_token_sees_text(
        encoder, tokenizer
    ):
        raise ConfigError(
            f"model: in {str(folder.path)!r} the first token does not represent its text (no special token "
            "comes "
            "first, or it cannot see "
            "the tokens after it); set options.pooling=mean"
        )
    if run.train.reinit_layers:
        layers = tuple(reinit_top_layers(encoder, run.train.reinit_layers))
        return BuiltModel(Model(encoder, task.head(encoder, {})), tokenizer, report, drawn_layers=layers)
    model = Model(encoder, task.head(encoder, report.pooler))
    kept = _load_head(model, task, folder, report, new=run.train.head == "new")
    warm = take_over_head(run, task, model, folder, kept)
    report.notes += warm.notes
    return BuiltModel(model, tokenizer, report, kept | warm.kept, warm.partly_new)


def _load_head(
    model: Model, task: Task, folder: PretrainedFolder, report: LoadReport, *, new: bool
) -> frozenset[str]:
    """Give a head the weights of a folder of sentence vectors or masked tokens, unless it is to be `new`.

    Returns:
        The names of all that are pretrained.

    Raises:
        ConfigError: the folder asks for something that bertune does not compute.
    """
    if isinstance(model.head, MaskedLMHead):
        return _load_masked_lm_head(model.head, model.encoder, folder, report, new=new)
    names = {name for name, _ in model.head.named_parameters()}
    if not isinstance(model.head, SentenceHead) or not isinstance(task, SentenceTask):
        return frozenset(f"dense.{kind}" for kind in report.pooler) & names
    try:
        modules = None if new else read_base_modules(folder.root)
    except ArtifactError as error:
        raise ConfigError(f"model: {error}") from None
    pretrained = set(copy_dense(model.head, modules.dense)) if modules is not None else set()
    if task.options.pooling == "pooler":
        pretrained |= {f"dense.0.{kind}" for kind in report.pooler}
    return frozenset(pretrained & names)


def _load_masked_lm_head(
    head: MaskedLMHead, encoder: Encoder, folder: PretrainedFolder, report: LoadReport, *, new: bool
) -> frozenset[str]:
    """Give a head for masked tokens the checkpoint's weights, and say what becomes of the pooler."""
    if report.pooler and not head.keeps_pooler and not head.hf_incompatibility():
        report.notes.append(
            "the pretrained pooler is not saved, since masked-LM models have none: a run of another task "
            "that goes on from this one learns its hidden layer anew"
        )
    if new:
        return frozenset()
    try:
        loaded = load_masked_lm_head(head, folder, encoder.word_embeddings())
    except ConfigError as error:
        raise ConfigError(
            f"{error}; train.head=new draws a new head, and trains it with the word table"
        ) from None
    report.unexpected_keys = [
        name for name in report.unexpected_keys if modern_name(name) not in loaded.names
    ]
    return loaded.parameters


def _first_token_sees_text(encoder: Encoder, tokenizer: Tokenizer) -> bool:
    """Tell whether every text begins with a special token that sees all of it, unlike in a causal model."""
    if not tokenizer.starts_with_special_token:
        return False
    dataset = EncodedDataset(
        [EncodedExample((encoding,)) for encoding in tokenizer.encode([("a",), ("a 1 . 2",)])]
    )
    ragged = dataset.get_batch(range(2), list).ragged
    with torch.no_grad():
        states = first_token_pooling(cast(torch.nn.Module, encoder).eval()(ragged), ragged)
    return not torch.allclose(states[0], states[1], rtol=0, atol=1e-7)
