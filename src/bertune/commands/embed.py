"""`bertune embed`: a vector for every row of a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertune.console import Console
from bertune.errors import ConfigError
from bertune.inference.vectors import VectorDtype
from bertune.retrieval.corpus import (
    Corpus,
    VectorOptions,
    corpus_data_config,
    load_sentence_pipeline,
    make_embed_fn,
)
from bertune.retrieval.writers import VectorFile, write_vectors
from bertune.types import JSON


def embed(
    folder: str | Path, file: str, output: str, overrides: Sequence[str] = (), *,
    options: VectorOptions | None = None, dtype: VectorDtype = "float32", console: Console | None = None, **where: Any,
) -> tuple[int, int]:  # fmt: skip
    """Write the vector of every row of a file, in its order, in memory that does not grow with it.

    Args:
        folder: what `bertune train` has written, a folder of sentence-transformers, or minilm.
        file: a data file with a text a row.
        output: a name that ends in .npy, which `numpy.load(mmap_mode="r")` opens, or .parquet, which keeps every column of the file.
        overrides: `data.name=value`.
        options: prompt, width and length of the vectors.
        dtype: float32, float16, int8 or binary; see `bertune.inference.vectors.quantize_vectors`.
        console: hears of progress.
        where: `device` and `precision` of `load`.

    Returns:
        How many rows there are, and how many of them an earlier call, which was stopped, had done.

    Raises:
        BertuneError: the folder, the settings or a row cannot be used.
    """
    if file == "-":
        raise ConfigError(
            "-o: standard input can be read only once, so a file of vectors is made of a file; leave -o out for JSON lines"
        )
    console, options = console or Console(quiet=True), options or VectorOptions()
    pipeline = load_sentence_pipeline(folder, **where)
    corpus = Corpus(file, corpus_data_config(pipeline, file, overrides), console)
    encode = make_embed_fn(pipeline, options, console)
    width = encode([" "]).shape[1]
    count, digest = corpus.count_and_hash()
    precision = (
        pipeline.model.encoder.numerics.precision
    )  # or a job that goes on in another one mixes two kinds of vectors
    identity = {
        "model": pipeline.fingerprint(),
        "rows": digest,
        "how": {
            "prompt": options.prompt,
            "prompt_name": options.prompt_name,
            "width": options.truncate_dim,
            "normalize": options.normalize,
        },
        "precision": precision,
    }
    job = VectorFile(Path(output), count, width, dtype, identity)
    with console.progress("embedding", count):
        before = write_vectors(job, corpus.rows(), encode, console.advance)
    if before:
        console.info(f"rows: {before} of {count} were done already")
    return count, before


def embed_stream(
    folder: str | Path,
    file: str,
    overrides: Sequence[str] = (),
    *,
    options: VectorOptions | None = None,
    console: Console | None = None,
    **where: Any,
) -> Iterator[JSON]:
    """Give every row of a file, or of standard input ("-"), with its vector under `embedding`."""
    console, options = console or Console(quiet=True), options or VectorOptions()
    pipeline = load_sentence_pipeline(folder, **where)
    corpus = Corpus(file, corpus_data_config(pipeline, file, overrides), console)
    encode = make_embed_fn(pipeline, options, console)
    rows = corpus.rows(verbose=True)
    while chunk := list(itertools.islice(rows, 1024)):
        for (raw, _), vector in zip(chunk, encode([text for _, text in chunk]), strict=True):
            yield {**raw, "embedding": vector.tolist()}
