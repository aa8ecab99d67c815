"""Every setting of a run: one default and one description, here.

The docstring under a field feeds the settings page of the documentation and `bertune init`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeGuard, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bertune.errors import listed

Precision = Literal["auto", "fp32", "bf16", "fp16"]
UsePrecision = Literal[Precision, "int8"]
"""Of a finished model."""
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]
Files = str | list[str]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class DataConfig(Section):
    """Where the rows are and how to read them."""

    train: Files | None = None
    """File, or list of files, to learn from: csv, tsv, txt, json, jsonl, parquet, any of them with .gz, or hub:NAME."""
    dev: Files | None = None
    """File or files that decide which checkpoint is best. Without it `dev_fraction` of the training rows is split off."""
    test: Files | None = None
    """File or files scored once, at the end, with the best checkpoint."""
    columns: list[str] | dict[str, str] | None = None
    """A list names the columns of a file that has no header, from left to right ("_" ignores one). A mapping says
    which column plays which part: {text: review, label: stars}. Without it well-known names are recognised."""
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "conll", "lines"] = "auto"
    """File format; `auto` goes by the file name. `conll` is a word a line in columns, or a sentence a line: words, a tab, tags. `lines` is
    a text a line, or a JSON object, to be predicted."""
    delimiter: str | None = None
    """Character between columns of csv and tsv; without it a comma for csv and a tab for tsv and txt."""
    quoting: Literal["auto", "standard", "none"] = "auto"
    """`standard`: a field in double quotes may hold delimiters and newlines. `none`: quotation marks are text.
    `auto` is standard for csv and none for tsv and txt, as GLUE and most Chinese data sets have it."""
    encoding: str = "utf-8"
    """Text encoding, such as gb18030 or utf-16. A byte-order mark is dropped."""
    labels: list[str] | str | None = None
    """Every label in the order of its id, or a file with one label a line. Without it: those of the training rows, sorted."""
    drop_labels: list[str] = []
    """Rows with one of these labels are left out, counted and reported, as OCNLI's "-" should be."""
    label_delimiter: str | None = None
    """A label column like "red|blue" holds several labels, cut at this character. Makes the problem multi-label."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used: stop and name them, or leave them out, counted and reported."""
    dev_fraction: Share = 0.1
    """Share of the training rows split off as dev set, by label and by seed, when no dev file is given."""
    limit: Count | None = None
    """Train on this many rows only, drawn by label and by seed."""
    max_length: Annotated[int, Field(ge=4)] | None = None
    """Most tokens of an input, special tokens included; longer ones are cut, counted and reported. Without it: the
    encoder's limit, at most 512. Short rows cost nothing extra, since no batch is padded to its longest row."""
    truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first"
    """Which text of a pair is cut when the pair is too long."""
    cache: Literal["auto", "on", "off"] = "auto"
    """Keep rows and tokens on disk (`bertune cache list`), so that a data set may be larger than memory and is read and tokenised once.
    `auto`: where the files of the run have 64 MB or more together."""
    workers: Literal["auto"] | Count = "auto"
    """Processes that tokenise where the cache is used; `auto`: one for each core."""

    @field_validator("delimiter", "label_delimiter")
    @classmethod
    def _named_delimiter(cls, value: str | None) -> str | None:
        names = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "blank": " "}
        value = value if value is None else names.get(value, value)
        if value is not None and len(value) != 1:
            raise ValueError("must be one character, or tab, comma, semicolon, pipe, blank")
        return value

    @field_validator("columns")
    @classmethod
    def _no_column_twice(cls, value: list[str] | dict[str, str] | None) -> list[str] | dict[str, str] | None:
        names = [name for name in value if name != "_"] if isinstance(value, list) else []
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"names {listed(twice)} twice")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(
                f"{value!r} is not an encoding that Python knows (utf-8, gb18030, big5, utf-16 ...)"
            ) from None
        return value

    @field_validator("labels", "drop_labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [str(v).lower() if isinstance(v, bool) else str(v) for v in value]

    @field_validator("labels")
    @classmethod
    def _no_label_twice(cls, value: list[str] | str | None) -> list[str] | str | None:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError(f"names a label twice: {listed(value)}")
        return value


class TrainConfig(Section):
    """How the weights are made better."""

    epochs: Positive = 3
    """Passes over the training rows; 0.5 is half of one."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    batch_size: Count = 32
    """Rows of one optimizer step. The model sees the same whatever `micro_batches` and `micro_batch_tokens` are."""
    micro_batches: Count = 1
    """Cut every batch into this many micro-batches to save memory. Loss and gradient stay those of the whole batch."""
    micro_batch_tokens: Count | None = 16384
    """Cut a batch further when one micro-batch would hold more tokens than this."""
    learning_rate: Positive = 5e-5
    """Peak learning rate of the encoder."""
    head_learning_rate: Positive | None = None
    """Peak learning rate of the head; without it the encoder's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer below the top one learns at this fraction of the rate of the layer above (0.95 is usual)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decay, for matrices only: never for biases and norms."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first decay rate."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's second decay rate."""
    adam_epsilon: Positive = 1e-8
    """AdamW's denominator term."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """The gradient is scaled down to this norm when it is longer; 0 leaves it alone."""
    schedule: Schedule = "linear"
    """How the learning rate moves after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps in which the rate rises from 0."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Number of steps in which the rate rises from 0; wins over `warmup_ratio`."""
    schedule_cycles: Count = 1
    """Number of waves of cosine_with_restarts."""
    schedule_power: Positive = 1.0
    """Exponent of the polynomial schedule."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor or GPU computes it natively, else fp32. fp16 needs a CUDA GPU. Parameters, gradients
    and optimizer are kept in fp32 in any case."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout inside the encoder, of hidden states and of attention; without it what the encoder's config.json says."""
    fast_dropout: bool = True
    """On a processor, draw dropout from cheap random bytes: its rate is rounded to 1/256, 0.1 to 0.1016. `false`: torch's own."""
    active_vocabulary: bool = True
    """Train only the word vectors that occur in the training rows; the others get the weight decay that they would have got.
    The result is the same, for less time and memory."""
    glyphs: Literal["frozen", "trained"] = "frozen"
    """ChineseBERT only: whether the pixels of its glyphs learn too. In a model of base size they are 40 million numbers."""
    glyph_font: Files | None = None
    """ChineseBERT only: font file, or files, from which glyphs are drawn where neither the checkpoint nor the folder has any."""
    eval_every: Literal["epoch"] | Count = "epoch"
    """Score the dev set after every epoch, or every so many steps; and always at the end."""
    patience: Count | None = None
    """Stop when this many evaluations in a row brought no better score."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """How much better a score must be to count as better."""
    checkpoint_every: Literal["epoch", "never"] | Count = "epoch"
    """Write all that training changes after every epoch, or every so many steps, so that `--resume` can go on from there.
    A signal writes it too. When the run is done they are removed: the result is what stays."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints stay. The best model is not among them: it is OUT itself."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 0
    """Pass over so many steps whose loss or gradient is not finite, each named, before the run ends; 0 ends it at the first."""
    fsdp: bool = False
    """With several processes: each keeps only its part of optimizer, gradients and parameters between steps (FSDP). Not with
    `ema`, `fgm`, `r_drop`; all word vectors are trained."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep an exponential moving average of the weights with this decay (0.999); it is what is scored and saved."""
    fgm: Positive | None = None
    """Adversarial training: length of the step on the word embeddings (1.0 is usual). Doubles the time."""
    r_drop: Positive | None = None
    """R-Drop: weight of the distance between two dropout passes (1 to 5 are usual). Doubles the time."""

    @model_validator(mode="after")
    def _not_more_parts_than_rows(self) -> TrainConfig:
        if self.micro_batches > self.batch_size:
            raise ValueError(f"micro_batches {self.micro_batches} is more than batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _whole_for_tricks(self) -> TrainConfig:
        if self.fsdp and (self.ema or self.fgm or self.r_drop):
            raise ValueError(
                "fsdp is not for ema, fgm and r_drop, which need the whole model in every process; leave one of them out"
            )
        return self


class LogConfig(Section):
    """What is told while it runs, and to whom."""

    every: Count = 20
    """Steps between two lines of progress."""
    trackers: list[str] = []
    """tensorboard, wandb, mlflow, comet_ml, aim, clearml, dvclive, swanlab, trackio: what accelerate knows."""


class RunConfig(Section):
    """A whole run."""

    task: str
    """What is learnt: the name of a task (`bertune tasks`) or a Python file with one of your own."""
    model: str = "minilm"
    """The pretrained encoder: a folder, a Hub id, or minilm (English, from the package of the extra `starter`)."""
    out: str | None = None
    """Folder for the result; without it the first free one of runs/TASK-1, runs/TASK-2, ..."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Decides the head's first weights, the order of rows, dropout, the split and the subset."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto` takes a GPU when there is one."""
    data: DataConfig = DataConfig()
    """Where the rows are and how to read them."""
    options: dict[str, Any] = {}
    """The task's own settings."""
    train: TrainConfig = TrainConfig()
    """How the weights are made better."""
    log: LogConfig = LogConfig()
    """What is told while it runs."""


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Tell whether a field holds settings of its own; Python 3.10 takes list[str] for a class, hence the first question."""
    return (
        get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )
