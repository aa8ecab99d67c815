"""`bertune embed`: a vector for every row of a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertune.console import Console
from bertune.errors import ConfigError
from bertune.inference.vectors import Form
from bertune.retrieval.corpus import Corpus, How, _encoder, corpus_settings, open_model
from bertune.retrieval.writers import Job, write_vectors
from bertune.types import JSON


def embed(
    folder: str | Path, file: str, output: str, overrides: Sequence[str] = (), *,
    how: How | None = None, form: Form = "float32", console: Console | None = None, **where: Any,
) -> tuple[int, int]:  # fmt: skip
    """Write the vector of every row of a file, in its order, in memory that does not grow with it.

    Args:
        folder: what `bertune train` has written, a folder of sentence-transformers, or minilm.
        file: a data file with a text a row.
        output: a name that ends in .npy, which `numpy.load(mmap_mode="r")` opens, or .parquet, which keeps every column of the file.
        overrides: `data.name=value`.
        how: prompt, width and length of the vectors.
        form: float32, float16, int8 or binary; see `bertune.inference.vectors.in_form`.
        console: hears of progress.
        where: `device` and `precision` of `load`.

    Returns:
        How many rows there are, and how many of them an earlier call, which was stopped, had done.

    Raises:
        BertuneError: the folder, the settings or a row cannot be used.
    """
    if file == "-":
        raise ConfigError("-o: standard input can be read only once, so a file of vectors is made of a file; leave -o out for JSON lines")
    console, how = console or Console(quiet=True), how or How()
    pipeline = open_model(folder, **where)
    corpus = Corpus(file, corpus_settings(pipeline, file, overrides), console)
    encode = _encoder(pipeline, how, console)
    width = encode([" "]).shape[1]
    count, digest = corpus.counted()
    precision = pipeline.model.encoder.numerics.precision  # or a job that goes on in another one mixes two kinds of vectors
    identity = {"model": pipeline.fingerprint(), "rows": digest, "how": vars(how), "precision": precision}
    job = Job(Path(output), count, width, form, identity)
    with console.progress("embedding", count):
        before = write_vectors(job, corpus.rows(), encode, console.advance)
    if before:
        console.info(f"rows: {before} of {count} were done already")
    return count, before


def embed_stream(
    folder: str | Path, file: str, overrides: Sequence[str] = (), *, how: How | None = None, console: Console | None = None, **where: Any
) -> Iterator[JSON]:
    """Give every row of a file, or of standard input ("-"), with its vector under `embedding`."""
    console, how = console or Console(quiet=True), how or How()
    pipeline = open_model(folder, **where)
    corpus = Corpus(file, corpus_settings(pipeline, file, overrides), console)
    encode = _encoder(pipeline, how, console)
    rows = corpus.rows(first_time=True)
    while chunk := list(itertools.islice(rows, 1024)):
        for (raw, _), vector in zip(chunk, encode([text for _, text in chunk]), strict=True):
            yield {**raw, "embedding": vector.tolist()}
