"""`bertune evaluate`: scores a saved model on files with targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertune import distributed
from bertune.artifact.artifact import Artifact
from bertune.artifact.read import read_artifact
from bertune.catalog.use import named_files
from bertune.config.reading import reading_config
from bertune.console import Console, prefixed
from bertune.errors import ConfigError
from bertune.files import expand_user
from bertune.inference.sentence_pipeline import SentencePipeline, refuse_truncation, truncate_vectors
from bertune.kernels.precision import choose_device
from bertune.retrieval.benchmark import Benchmark
from bertune.retrieval.corpus import Corpus, corpus_columns, corpus_data_config, load_sentence_pipeline
from bertune.retrieval.judgements import read_judgements
from bertune.tasks.base.baselines import compare_with_baseline, with_baseline
from bertune.tasks.base.datasets import scratch_dir, write_dataset
from bertune.tasks.base.reading import check_examples, read_examples
from bertune.tasks.base.sentence import SentenceTask
from bertune.types import Example, Scores


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on some files."""

    scores: Scores
    """The figures of the task."""
    loss: float
    """The mean loss over what the task counts, such as rows; NaN if it has none."""
    num_truncated_rows: int
    """How many rows were longer than max_length."""


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search that is scored, besides its queries."""

    corpus: str
    """A file with an id and a text a row."""
    qrels: str
    """Which documents are relevant to which query: see `bertune.retrieval.judgements.read_judgements`."""
    overrides: Sequence[str] = ()
    """`data.name=value`, how to read the corpus."""


def evaluate(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    files: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    search: SearchFiles | None = None,
    truncate_dim: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    task: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Score a saved model on files with targets; several processes share the work, and each has the result.

    Args:
        folder: what `train` has written.
        files: one file or several, or a named set such as glue:cola (its dev rows; glue:cola:test says
            which); with `search` the file of the queries.
        overrides: `data.name=value`, such as data.encoding=gb18030 or data.root=FOLDER.
        search: score how high the relevant documents of a corpus rank, for a model of sentence vectors.
        truncate_dim: score the first features of its vectors only.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        task: the Python file of a task of your own.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used.
    """
    distributed.init(use_cpu=choose_device(device).type == "cpu")
    console = console or Console(quiet=True)
    note = prefixed(console)
    sources = [expand_user(file) for file in ([files] if isinstance(files, str | Path) else files)]
    sources, overrides = named_files(sources, overrides, "dev", note, scored=True)
    if search is not None:
        searcher = load_sentence_pipeline(folder, device=device, precision=precision, model_code=model_code)
        return _evaluate_search(searcher, sources, overrides, search, truncate_dim, console)
    artifact = read_artifact(folder, task, model_code, lambda line: console.info(f"note: {line}"))
    data = reading_config(artifact.run_config.data, sources[0], overrides)
    artifact = artifact.for_reading(data)
    scored_task = artifact.task
    if truncate_dim is not None:
        _truncate(artifact, truncate_dim)
    with scratch_dir(data, sources, console) as scratch:
        arrow_path = None if scratch is None else scratch / "examples.arrow"
        examples = read_examples(sources, scored_task, data, note, to_score=True, arrow_path=arrow_path)
        examples = check_examples(examples, scored_task, data, note)
        pipeline = artifact.pipeline(device, precision)
        if isinstance(pipeline, SentencePipeline):
            use_search_prompts(pipeline, examples, note)
        if scratch is None:
            result = pipeline.predict_examples(examples, to_score=True)
        else:
            dataset = write_dataset(scratch, "rows", scored_task, pipeline.tokenizer, examples, console)
            result = pipeline.predict_dataset(dataset)
        for line in scored_task.report():
            note(line)
        scores = with_baseline(scored_task.score(result.predictions, examples), scored_task, examples)
        if how := compare_with_baseline(scores):
            console.info(f"note: {scores.main_metric} {scores.main_value:.4f} is {how}")
        return Evaluation(scores, result.loss, pipeline.num_truncated_rows)


def _truncate(artifact: Artifact, truncate_dim: int) -> None:
    """Let a task of sentence vectors keep the first features of a vector.

    Raises:
        ConfigError: another task, or the vectors are narrower.
    """
    scored_task = artifact.task
    if not isinstance(scored_task, SentenceTask):
        name = type(scored_task).__name__.lower()
        raise ConfigError(f"truncate_dim: is for sentence vectors, and this is a model of task {name}")
    if getattr(scored_task.options, "loss", None) == "softmax":
        raise ConfigError("truncate_dim: has no effect on a model that learned with options.loss=softmax")
    refuse_truncation(artifact.model, truncate_dim)
    truncate_vectors(np.zeros((1, artifact.model.embedding_dim), np.float32), truncate_dim, normalize=False)
    scored_task.options = scored_task.options.model_copy(update={"truncate_dim": truncate_dim})


def use_search_prompts(
    pipeline: SentencePipeline, examples: Sequence[Example], note: Callable[[str], None]
) -> None:
    """Let rows that are searches get the prompts that `bertune search` uses."""
    query, document = pipeline.search_prompts()
    default = pipeline.resolve_prompt(None, None)
    pipeline.task.search_prompts = query, document
    is_search = all(len(e.texts) > 1 and e.target in {None, 1} for e in examples)
    if is_search and (query, document) != (default, default):
        note(f"queries get the prompt {query!r}, texts to find {document!r}")


def _evaluate_search(
    pipeline: SentencePipeline,
    queries: Sequence[str],
    overrides: Sequence[str],
    search: SearchFiles,
    truncate_dim: int | None,
    console: Console,
) -> Evaluation:
    if len(queries) != 1:
        raise ConfigError(f"a search takes one file of queries, got {len(queries)}")
    query_data = corpus_data_config(pipeline, queries[0], overrides)
    corpus, qrels = expand_user(search.corpus), expand_user(search.qrels)
    corpus_data = corpus_data_config(pipeline, corpus, search.overrides)
    benchmark = Benchmark(
        Corpus(queries[0], query_data, console, corpus_columns(pipeline)),
        Corpus(corpus, corpus_data, console, corpus_columns(pipeline)),
        read_judgements(qrels),
        qrels,
    )
    result = benchmark.run(pipeline, truncate_dim, console)
    return Evaluation(result.scores, math.nan, result.num_truncated_rows)
