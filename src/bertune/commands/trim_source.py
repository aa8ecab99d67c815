"""The model that `bertune trim` cuts: a pretrained encoder, a trained model, or a model of vectors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from bertune.artifact.read import build_task, read_metadata, read_run
from bertune.artifact.sentence_transformers import (
    is_cross_encoder_folder,
    is_sentence_transformers_folder,
    read_modules,
)
from bertune.artifact.trim import check_source
from bertune.commands.trim_texts import UNLIMITED
from bertune.config.schema import DataConfig
from bertune.encoders.load import check_folder
from bertune.encoders.pretrained import PretrainedFolder, locate_model
from bertune.errors import ConfigError
from bertune.files import read_json_object
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.text.python_tokenizer import PythonTokenizer
from bertune.text.tokenizer import Tokenizer
from bertune.text.trim_vocabulary import check_trimmable, parse_tokenizer, special_names
from bertune.types import JSON


@dataclass(frozen=True)
class TrimSource:
    """A model, its tokenizer, and how it reads texts."""

    folder: PretrainedFolder
    tokenizer: Tokenizer
    """It cuts no text off."""
    max_positions: int
    content: JSON
    """tokenizer.json."""
    settings: JSON
    """tokenizer_config.json."""
    data: DataConfig = field(default_factory=DataConfig)
    """How its files were read."""
    task: Task | None = None
    """Of a model that bertune has trained."""
    lowers: bool = False
    """Whether texts are lower-cased before the tokenizer."""
    prompts: tuple[str, ...] = ()
    """What the model puts before texts."""

    @property
    def has_comparable_scores(self) -> bool:
        """Tell whether scores before and after mean the same.

        An encoder alone has none. Masked tokens are guessed among those of the vocabulary, so a perplexity of
        fewer ones is another figure.
        """
        if self.task is not None:
            return type(self.task).__name__ != "Pretrain"
        return is_sentence_transformers_folder(self.folder.root)

    def special_names(self) -> set[str]:
        """Return the tokens that the files of the tokenizer call special."""
        more = read_json_object(self.folder.path / "special_tokens_map.json")
        return special_names(self.settings) | special_names(more)


def open_source(name: str, out: Path, task_file: str | None = None) -> TrimSource:
    """Open a model to cut.

    Args:
        name: a folder, the name of a packaged encoder, or an id on the Hub.
        out: where the result goes.
        task_file: the Python file of a task of your own.

    Raises:
        BertuneError: there is no such model, its vocabulary cannot be cut, or `out` exists.
    """
    folder = PretrainedFolder(locate_model(name))
    _check_out(out, folder.root)
    check_source(folder)
    if not folder.is_saved_by_bertune:
        check_folder(folder)
    tokenizer = folder.load_tokenizer()
    if isinstance(tokenizer, PythonTokenizer):
        raise ConfigError(
            f"model: the tokenizer of {name!r} has no fast form (tokenizer.json), and trim cuts that; give a "
            "model with WordPiece (BERT) or Unigram (XLM-R, ALBERT)"
        )
    content = parse_tokenizer(tokenizer.fingerprint())
    check_trimmable(content, name)
    max_positions = tokenizer.max_length
    tokenizer.set_max_length(UNLIMITED)
    settings = read_json_object(folder.path / "tokenizer_config.json") or tokenizer.settings
    opened = (folder, tokenizer, max_positions, content, settings)
    if folder.is_saved_by_bertune:
        run = read_run(folder.path)
        task = build_task(folder.path, read_metadata(folder.path), run, task_file)
        prompts = tuple(task.options.prompts.values()) if isinstance(task, SentenceTask) else ()
        lowers = isinstance(task, SentenceTask) and task.options.do_lower_case
        return TrimSource(*opened, run.data, task, lowers, prompts)
    if is_sentence_transformers_folder(folder.root) and not is_cross_encoder_folder(folder.root):
        modules = read_modules(folder.root)
        return TrimSource(*opened, lowers=modules.do_lower_case, prompts=tuple(modules.prompts.values()))
    return TrimSource(*opened)


def _check_out(out: Path, model: Path) -> None:
    if os.path.realpath(out) == os.path.realpath(model):
        raise ConfigError(f"-o {out}: is the model itself, which stays as it is; give a new folder")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"-o {out}: exists already; give a new folder")
