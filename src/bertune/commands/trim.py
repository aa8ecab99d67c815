"""`bertune trim`: a model with the tokens that texts of some kind use, and no others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bertune.artifact.trim import FolderSize, write_trimmed
from bertune.catalog.use import named_files
from bertune.commands.trim_effect import MAX_VECTORS, Effect, Measure, compare_tokens
from bertune.commands.trim_source import TrimSource, open_source
from bertune.commands.trim_texts import (
    UNLIMITED,
    IntArray,
    Text,
    TextFiles,
    chunks,
    count_ids,
    encode_texts,
    is_set_aside,
)
from bertune.console import Console, prefixed
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import ArtifactError, BertuneError, ConfigError
from bertune.files import expand_user, locked, part_of
from bertune.text.tokenizer import Tokenizer
from bertune.text.trim_vocabulary import KeptTokens, TrimmedVocabulary, Vocabulary
from bertune.text.workers import parallel_tokenizer
from bertune.types import JSON

MAX_MEASURED_TEXTS = 200_000
"""Texts that are set aside at most."""
MANY_CHANGED = 0.05
"""The share of texts with other tokens above which there is advice."""


@dataclass(frozen=True)
class TrimResult:
    """A model with fewer tokens."""

    folder: Path
    before: FolderSize
    after: FolderSize
    num_texts: int
    """Texts whose tokens were counted."""
    kept: KeptTokens
    effect: Effect

    def to_json(self) -> JSON:
        """Return the result as JSON values."""
        return {**asdict(self), "folder": str(self.folder), "effect": self.effect.to_json()}


def trim(  # noqa: PLR0913  (what a user can choose)
    model: str | Path,
    texts: str | Path | Sequence[str | Path],
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    keep: int | None = None,
    held_out: str | Path | None = None,
    prompts: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    task: str | None = None,
    console: Console | None = None,
) -> TrimResult:
    """Write a copy of a model whose vocabulary is cut to what some texts use.

    All special tokens and all single characters stay, so nothing becomes unknown that was known. Of the other
    pieces those stay that the texts use most. The word table is cut alike; every other weight is the same.

    Args:
        model: a pretrained encoder (folder, name, Hub id), a folder that `train` has written, or one of
            sentence-transformers, with a WordPiece or Unigram tokenizer.
        texts: one file or several with texts of the kind that the model is for; all text columns count.
        out: the folder to write; it must not exist, or be empty.
        overrides: `data.name=value`, how to read the files.
        keep: how many tokens stay in all; without it all that the texts use. Where they use fewer, the first
            others of the vocabulary stay.
        held_out: a file to measure on; with targets, a trained model is also scored before and after. Without
            it a tenth of the texts is set aside: they are not counted.
        prompts: texts that stand before texts, such as "query: ": their pieces stay in any case.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        task: the Python file of a task of your own.
        console: shows progress; without it nothing is shown.

    Returns:
        Sizes before and after, and what changes on the held-out texts.

    Raises:
        BertuneError: the model, a file or a setting cannot be used; nothing has been written then.
    """
    console = console or Console(quiet=True)
    note, out = prefixed(console), Path(expand_user(out))
    sources = [expand_user(file) for file in ([texts] if isinstance(texts, str | Path) else texts)]
    _check_call(sources, keep, prompts)
    source = open_source(expand_user(model), out, task)
    vocabulary = Vocabulary(source.content, source.special_names())
    if keep is not None:
        vocabulary.check_keep(keep)
    files = TextFiles(source.data, overrides, note, source.task, lowers=source.lowers)
    held = None if held_out is None else _read_held_out(expand_user(held_out), files)
    sources, of_set = named_files(sources, overrides, "train", note)
    counted = _count(source, replace(files, overrides=of_set), sources, held, console)
    trimmed = vocabulary.trim(counted.counts, keep, _ids_of(source.tokenizer, [*prompts, *source.prompts]))
    measure = Measure(device, precision, task, console)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out):
            before, after, effect = _write(source, trimmed, out, counted.held_out, measure)
        _advise(effect, console)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written: {error.strerror or error}") from None
    return TrimResult(out, before, after, counted.num_texts, trimmed.kept, effect)


def _check_call(sources: Sequence[str], keep: int | None, prompts: Sequence[str]) -> None:
    if not sources:
        raise ConfigError("texts: give one file or several with texts of the kind that the model is for")
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
        raise ConfigError(f"keep: must be a whole number above 0, got {keep!r}; it is how many tokens stay")
    if isinstance(prompts, str):
        raise ConfigError(f"prompts: a list of texts is needed, got {prompts!r}; write [{prompts!r}]")


def _advise(effect: Effect, console: Console) -> None:
    """Say what to do where many texts have other tokens than before."""
    share = effect.tokens.changed / max(effect.tokens.texts, 1)
    if share > MANY_CHANGED:
        console.info(
            f"note: {share:.0%} of the texts that were measured on have other tokens now; more texts of "
            "their kind in --texts, or a higher --keep, make them fewer"
        )


@dataclass(frozen=True)
class _HeldOut:
    """Texts to measure on."""

    source: str
    texts: list[Text]
    file: str | None = None
    """The file they come from, if it is one of its own."""
    overrides: Sequence[str] = ()


def _read_held_out(file: str, files: TextFiles) -> _HeldOut:
    """Read the file to measure on; of a long one the first texts.

    Raises:
        BertuneError: it cannot be read, or has no text.
    """
    if file == "-":
        raise ConfigError("held_out: is read more than once, so it cannot be standard input; give a file")
    names, overrides = named_files([file], files.overrides, "dev", files.note)
    texts: list[Text] = []
    for text in replace(files, overrides=overrides).texts(names):
        if len(texts) == MAX_MEASURED_TEXTS:
            files.note(f"{file}: the first {MAX_MEASURED_TEXTS} texts are measured on")
            break
        texts.append(text)
    return _HeldOut(file, texts, file, files.overrides)


@dataclass(frozen=True)
class _Counted:
    """How often the texts use each id."""

    counts: IntArray
    num_texts: int
    held_out: _HeldOut


def _count(
    source: TrimSource, files: TextFiles, sources: Sequence[str], held: _HeldOut | None, console: Console
) -> _Counted:
    """Count the tokens of the texts; where no file is there to measure on, some are set aside."""
    num_ids = source.tokenizer.max_token_id + 1
    counts, num_texts = np.zeros(num_ids, np.int64), 0
    aside: list[Text] = []
    first: list[Text] = []
    with parallel_tokenizer(source.tokenizer, files.data.workers, console.info) as tokenizer:
        for chunk in chunks(files.texts(sources)):
            room = 0 if held else MAX_MEASURED_TEXTS - len(aside)
            new = [text for text in chunk if is_set_aside(text.text)][:room]
            aside += new
            left = set(map(id, new))
            counted = [text for text in chunk if id(text) not in left]
            first += counted[: MAX_VECTORS - len(first)]
            counts += count_ids(encode_texts(tokenizer, counted), num_ids)
            num_texts += len(counted)
    source.tokenizer.clear_word_cache()
    if held is not None:
        return _Counted(counts, num_texts, held)
    if aside and num_texts:
        name = f"{len(aside):,} of {len(aside) + num_texts:,} texts, set aside"
        return _Counted(counts, num_texts, _HeldOut(name, aside))
    if aside:  # a few texts, all of which would be set aside
        counts += count_ids(encode_texts(source.tokenizer, aside), num_ids)
    name = "texts that were counted too, since so few can spare none"
    return _Counted(counts, num_texts + len(aside), _HeldOut(name, aside or first))


def _ids_of(tokenizer: Tokenizer, prompts: Sequence[str]) -> set[int]:
    texts = [Text(prompt) for prompt in prompts if prompt.strip()]
    return {int(number) for encoding in encode_texts(tokenizer, texts) for number in encoding.input_ids}


def _write(
    source: TrimSource, trimmed: TrimmedVocabulary, out: Path, held: _HeldOut, measure: Measure
) -> tuple[FolderSize, FolderSize, Effect]:
    """Write the folder under another name, measure it, and give it its own name.

    Raises:
        OSError: it cannot be written.
        BertuneError: it cannot be opened, so the model is of a kind that cannot be cut.
    """
    part = part_of(out)
    shutil.rmtree(part, ignore_errors=True)
    try:
        before, after = write_trimmed(source.folder, trimmed, source.settings, part)
        effect = _measure(source, part, trimmed, held, measure)
        if out.is_dir():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return before, after, effect


def _measure(
    source: TrimSource, part: Path, trimmed: TrimmedVocabulary, held: _HeldOut, measure: Measure
) -> Effect:
    """Return what changes on the held-out texts."""
    inside = part / source.folder.path.relative_to(source.folder.root)
    tokenizer = PretrainedFolder(inside).load_tokenizer(max_positions=source.max_positions)
    tokenizer.set_max_length(UNLIMITED)
    old, new = (encode_texts(t, held.texts) for t in (source.tokenizer, tokenizer))
    tokens = compare_tokens(old, new, trimmed.old_ids, source.tokenizer.unk_token_id)
    vectors = measure.vectors(source.folder.root, part, held.texts)
    scores = None
    if held.file is not None and source.has_comparable_scores:
        try:
            scores = measure.scores(source.folder.root, part, held.file, held.overrides)
        except BertuneError as error:
            measure.console.info(f"note: no scores on {held.file}: {error}")
    return Effect(held.source, tokens, vectors, scores)
