"""`bertune fill`: the tokens that a model finds for the masks of texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune.artifact.read import read_masked_lm
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console
from bertune.errors import ConfigError
from bertune.files import expand_user
from bertune.inference.fill_pipeline import Filling, FillPipeline, TextWithMasks
from bertune.inference.writers import free_column_names
from bertune.retrieval.corpus import Corpus
from bertune.types import JSON, Location


@dataclass(frozen=True)
class FilledText:
    """A text, and tokens for each of its masks."""

    text: str
    raw: JSON
    """The columns of its row; the text alone where it comes from no file."""
    masks: list[list[Filling]]

    def to_json(self) -> JSON:
        """Return the columns with the tokens under `masks`: a list of lists, one a mask."""
        return {**self.raw, free_column_names(self.raw, ["masks"])["masks"]: self.masks}


def fill(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    texts: Sequence[str] = (),
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    k: int = 5,
    targets: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    task: str | None = None,
    console: Console | None = None,
) -> Iterator[FilledText]:
    """Yield texts with the tokens for their masks: those given, then those of a file.

    Args:
        folder: what `train` has written for task pretrain, or a folder of transformers with a head for masked
            tokens, or the Hub id of either.
        texts: the texts.
        file: a data file with a text a row, or "-" for standard input with a text a line.
        overrides: `data.name=value`, how to read the file.
        k: how many tokens for each mask.
        targets: choose among these tokens only.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        task: the Python file of a task of your own.
        console: shows what is unusual; without it nothing is shown.

    Raises:
        BertuneError: the folder has no head for masked tokens, or a setting or a text cannot be used.
    """
    console = console or Console(quiet=True)
    if not texts and file is None:
        raise ConfigError("fill: give a text with [MASK] in it, or --file FILE")
    corpus = None
    if file is not None:
        name = expand_user(file)
        corpus = Corpus(name, reading_config(DataConfig(), name, overrides), console)
    artifact = read_masked_lm(folder, task, model_code, lambda line: console.info(f"note: {line}"))
    pipeline: Any = artifact.pipeline(device, precision)
    for line in artifact.tokenizer.notes:
        console.info(f"note: {line}")
    ids = None if targets is None else pipeline.target_ids(targets)
    pipeline.check_k(k)
    return _fill(pipeline, _read(texts, corpus), k, ids, console)


def _read(texts: Sequence[str], corpus: Corpus | None) -> Iterator[tuple[JSON, TextWithMasks]]:
    for number, text in enumerate(texts, 1):
        yield {"text": text}, TextWithMasks(text, Location("texts", number))
    for row in corpus.rows(verbose=True) if corpus is not None else ():
        yield row.raw, TextWithMasks(row.text, Location(corpus.file if corpus else "", row.line))


def _fill(
    pipeline: FillPipeline,
    rows: Iterator[tuple[JSON, TextWithMasks]],
    k: int,
    target_ids: list[int] | None,
    console: Console,
) -> Iterator[FilledText]:
    pending: deque[tuple[JSON, str]] = deque()

    def texts() -> Iterator[TextWithMasks]:
        for raw, item in rows:
            pending.append((raw, item.text))
            yield item

    for masks in pipeline.fill_stream(texts(), k, target_ids):
        raw, text = pending.popleft()
        yield FilledText(text, raw, masks)
    if pipeline.num_truncated_rows:
        console.info(
            f"data: {pipeline.num_truncated_rows} texts are longer than max_length "
            f"{pipeline.tokenizer.max_length} and were cut"
        )
