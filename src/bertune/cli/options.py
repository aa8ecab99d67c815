"""The options and arguments of the commands, as types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bertune.files import expand_user

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing on standard error.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[
    str, typer.Option(help="auto, fp32, bf16, fp16, or int8 on processors with units for it.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings, each as section.name=value.", show_default=False)
]
DataOverrides = Annotated[
    list[str] | None,
    typer.Argument(help="How to read the file, each as data.name=value.", show_default=False),
]
TaskFile = Annotated[
    str | None,
    typer.Option(
        "--task", help="The Python file of a task of your own.", show_default=False, parser=expand_user
    ),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder that bertune train has written.", parser=expand_user)
]
ModelCode = Annotated[
    str,
    typer.Option("--model-code", help="never, or trusted: run the Python code that the folder brings."),
]
VectorModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder that bertune train has written, or one of sentence-transformers; minilm; e5-small.",
        parser=expand_user,
    ),
]

# init, train
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="classify, regress, ...")]
NewFolder = Annotated[str, typer.Argument(metavar="[FOLDER]", help="Where to write.", parser=expand_user)]
Language = Annotated[
    str, typer.Option("--lang", help="en, or zh: Chinese data and an encoder that knows Chinese.")
]
RunSource = Annotated[
    str,
    typer.Argument(
        metavar="RUN.yaml|TASK|SET|OUT",
        help="A run file, a task, or a named set such as glue:cola; with --resume also the folder of a run.",
        parser=expand_user,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest checkpoint; begin where there is none.")
]

# evaluate, predict
ScoredFile = Annotated[
    str,
    typer.Argument(
        help="A data file with targets, or a named set (its dev rows); with --corpus, the queries with their "
        "ids.",
        parser=expand_user,
    ),
]
ScoredCorpus = Annotated[
    str | None,
    typer.Option(
        "--corpus", help="A data file with an id and a text a row.", show_default=False, parser=expand_user
    ),
]
Qrels = Annotated[
    str | None,
    typer.Option(
        "--qrels",
        help="Relevant documents of each query, as BEIR or TREC have them.",
        show_default=False,
        parser=expand_user,
    ),
]
TextFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE|-",
        help="A data file, a named set (its test rows), or - for standard input with a text a line.",
        parser=expand_user,
    ),
]
PredictionsFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="The file to write: .csv, .jsonl or .conll; for a leaderboard also a folder.",
        show_default=False,
        parser=expand_user,
    ),
]
PredictionsFormat = Annotated[
    str | None, typer.Option("--format", help="csv, jsonl, conll or leaderboard.", show_default=False)
]

Coverage = Annotated[
    float | None,
    typer.Option(
        help="Add to each row the labels, or the interval, that hold the truth so often, such as 0.9.",
        show_default=False,
    ),
]

# embed
VectorsFile = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", help="The file to write: .npy or .parquet.", show_default=False, parser=expand_user
    ),
]
Dtype = Annotated[
    str, typer.Option("--dtype", help="How vectors are stored: float32, float16, int8, binary or ubinary.")
]
Normalize = Annotated[bool, typer.Option("--normalize", help="Give vectors length 1.")]
TruncateDim = Annotated[
    int | None,
    typer.Option("--truncate-dim", min=1, help="Keep the first N features.", show_default=False),
]
Prompt = Annotated[str | None, typer.Option(help="Text to put before each text.", show_default=False)]
PromptName = Annotated[
    str | None, typer.Option(help="The name of a prompt of the model.", show_default=False)
]

# search
CorpusFile = Annotated[
    str, typer.Argument(metavar="CORPUS", help="A data file with a text a row.", parser=expand_user)
]
Queries = Annotated[
    list[str] | None, typer.Argument(metavar="[QUERY]...", help="What to search for.", show_default=False)
]
QueryFile = Annotated[
    str | None,
    typer.Option("--queries", help="A data file with a query a row.", show_default=False, parser=expand_user),
]
QueryOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--query-data",
        help="How to read the file of --queries, as data.name=value; can be repeated.",
        show_default=False,
    ),
]
NumHits = Annotated[
    int | None,
    typer.Option("-k", min=1, help="How many rows to find for each query: 10.", show_default=False),
]
Pairs = Annotated[bool, typer.Option("--pairs", help="Find near-duplicates in the corpus instead.")]
Threshold = Annotated[
    float | None, typer.Option(min=-1, max=1, help="--pairs: least cosine, 0.9.", show_default=False)
]
MaxPairs = Annotated[
    int | None,
    typer.Option(
        "--max-pairs", min=1, help="--pairs: how many pairs to show at most: 1,000.", show_default=False
    ),
]
IndexFolder = Annotated[
    str | None,
    typer.Option(
        "--index",
        help="The folder of the index; by default CORPUS.index.",
        show_default=False,
        parser=expand_user,
    ),
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Build the index again.")]
SearchEngine = Annotated[
    str | None,
    typer.Option(help="exact (default), or usearch (approximate, an extra).", show_default=False),
]
CorpusOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--data", help="How to read CORPUS, as data.name=value; can be repeated.", show_default=False
    ),
]

# inspect, cache
InspectedPath = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FOLDER", help="A data file with targets, or the folder of a model.", parser=expand_user
    ),
]
GuessedTask = Annotated[str, typer.Option("--task", help="auto, or the name of a task.")]
TokenizerModel = Annotated[
    str, typer.Option("--model", help="The model whose tokenizer shows the tokens.", parser=expand_user)
]
NumSamples = Annotated[int, typer.Option("--rows", min=0, help="How many random rows to show.")]
SampleSeed = Annotated[int, typer.Option("--seed", min=0, help="Which random rows.")]
CacheAction = Annotated[
    str, typer.Argument(metavar="list|clear", help="list shows what is on disk, clear removes it.")
]
OlderThan = Annotated[
    float, typer.Option("--older-than", min=0, help="clear: only what is older than this many days.")
]


def _refuse_renamed(new_name: str) -> Callable[[str | None], None]:
    def refuse(value: str | None) -> None:
        if value is not None:
            raise typer.BadParameter(f"renamed to {new_name}")

    return refuse


# Options of earlier versions: they stay known, so that the answer is the new name.
OldFormat = Annotated[str | None, typer.Option("--format", hidden=True, callback=_refuse_renamed("--dtype"))]
OldWidth = Annotated[
    str | None, typer.Option("--width", hidden=True, callback=_refuse_renamed("--truncate-dim"))
]
OldMost = Annotated[str | None, typer.Option("--most", hidden=True, callback=_refuse_renamed("--max-pairs"))]
OldRead = Annotated[str | None, typer.Option("--read", hidden=True, callback=_refuse_renamed("--data"))]
