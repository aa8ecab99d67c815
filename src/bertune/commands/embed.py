"""`bertune embed`: a vector for every row of a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune.console import Console
from bertune.errors import ConfigError
from bertune.files import expand_user
from bertune.inference.vectors import VectorDtype, check_vector_dtype, quantize_vectors
from bertune.inference.writers import free_column_names
from bertune.retrieval.corpus import (
    Corpus,
    CorpusEncoder,
    VectorOptions,
    corpus_columns,
    corpus_data_config,
    load_sentence_pipeline,
)
from bertune.retrieval.row_map import remove_row_map, row_map_path, write_row_map
from bertune.retrieval.writers import VectorFile, check_vector_file, write_vectors
from bertune.types import JSON

STREAM_CHUNK_ROWS = 1024
"""Rows that `embed_stream` encodes together."""


@dataclass(frozen=True)
class EmbedResult:
    """A finished file of vectors."""

    path: Path
    num_rows: int
    num_resumed_rows: int
    """How many rows an earlier call, which was stopped, had done."""


def embed(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    file: str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    options: VectorOptions | None = None,
    dtype: VectorDtype = "float32",
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    console: Console | None = None,
) -> EmbedResult:
    """Write the vector of every row of a file, in its order, in memory that does not grow with it.

    A call that was stopped is continued by the same call. Where rows were left out or have several lines,
    `OUTPUT.rows.tsv` says on which line of the file each row of a .npy file stands.

    Args:
        folder: what `train` has written, a folder of sentence-transformers, the Hub id of either, or
            "minilm" or "e5-small".
        file: a data file with a text a row.
        output: a name that ends in .npy, which `numpy.load(mmap_mode="r")` opens, or in .parquet, which keeps
            every column of the file.
        overrides: `data.name=value`, how to read the file.
        options: prompt, width and length of the vectors.
        dtype: float32, float16, int8, binary or ubinary; see `bertune.inference.vectors.quantize_vectors`.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used.
    """
    file, output = expand_user(file), Path(expand_user(output))
    if file == "-":
        raise ConfigError(
            "-o: standard input can be read only once, and a file of vectors needs two passes; "
            "leave -o out for JSON lines, or give a file"
        )
    check_vector_file(output, dtype)
    console, options = console or Console(quiet=True), options or VectorOptions()
    pipeline = load_sentence_pipeline(folder, device=device, precision=precision, model_code=model_code)
    data = corpus_data_config(pipeline, file, overrides)
    corpus = Corpus(file, data, console, corpus_columns(pipeline))
    encode = CorpusEncoder(pipeline, options, console)
    summary = corpus.scan()
    identity = {
        "model": pipeline.fingerprint(),
        "rows": summary.digest,
        "vectors": encode.settings(),
        # or a file that is continued in another precision would mix two kinds of vectors
        "precision": pipeline.model.encoder.numerics.precision,
    }
    job = VectorFile(output, summary.num_rows, encode.dim, dtype, identity)
    rows = corpus.rows_again(summary)
    has_map = summary.has_gaps and job.path.suffix.lower() == ".npy"  # parquet keeps each row by its vector
    rows = (write_row_map if has_map else remove_row_map)(job.path, rows)
    with console.progress("embedding", job.num_rows):
        num_resumed_rows = write_vectors(job, ((row.raw, row.text) for row in rows), encode, console.advance)
    if num_resumed_rows:
        console.info(f"rows: {num_resumed_rows} of {job.num_rows} were done already; of the others:")
    encode.report()
    if has_map:
        console.info(f"rows: {row_map_path(job.path)} says on which line of {file} each of them stands")
    return EmbedResult(job.path, job.num_rows, num_resumed_rows)


def embed_stream(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    file: str | Path,
    overrides: Sequence[str] = (),
    *,
    options: VectorOptions | None = None,
    dtype: VectorDtype = "float32",
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    console: Console | None = None,
) -> Iterator[JSON]:
    """Yield every row of a file, or of standard input ("-"), with its vector under `embedding`.

    The arguments are those of `embed`.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used.
    """
    check_vector_dtype(dtype)
    file = expand_user(file)
    console, options = console or Console(quiet=True), options or VectorOptions()
    pipeline = load_sentence_pipeline(folder, device=device, precision=precision, model_code=model_code)
    data = corpus_data_config(pipeline, file, overrides)
    corpus = Corpus(file, data, console, corpus_columns(pipeline))
    encode = CorpusEncoder(pipeline, options, console)
    rows = corpus.rows(verbose=True)
    while chunk := list(itertools.islice(rows, STREAM_CHUNK_ROWS)):
        vectors = quantize_vectors(encode([row.text for row in chunk]), dtype)
        for row, vector in zip(chunk, vectors, strict=True):
            name = free_column_names(row.raw, ["embedding"])["embedding"]
            yield {**row.raw, name: vector.tolist()}
    encode.report()
