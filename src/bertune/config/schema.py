"""Every setting of a run, with its default and its description.

The docstring of a field feeds the settings page of the documentation and `bertune init`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, TypeGuard, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from bertune.errors import listed
from bertune.files import expand_user, is_remote

Precision = Literal["auto", "fp32", "bf16", "fp16"]
UsePrecision = Literal[Precision, "int8"]
"""The precisions of inference."""
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]


def _path_text(value: Any) -> Any:
    """Return a path as text; what else may be wrong with it is for pydantic to say."""
    return expand_user(value) if isinstance(value, str | os.PathLike) else value


def _below(root: str, files: Any) -> Any:
    """Return names of files as paths that begin with a folder, unless they are whole or no files."""
    if isinstance(files, list):
        return [_below(root, file) for file in files]
    path = _path_text(files)
    is_name = isinstance(path, str) and path != "-" and not is_remote(path)
    return os.path.join(root, path) if is_name else files  # noqa: PTH118


LocalPath = Annotated[str, BeforeValidator(_path_text)]
"""A file or folder as text; "~" at its start is the home folder."""
Files = LocalPath | list[LocalPath]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
AutoRate = Literal["auto"] | PositiveFloat
"""A learning rate, or `auto`: chosen when the model and the number of steps are known."""


class Section(BaseModel):
    """A group of settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


def label_to_text(label: Any) -> Any:
    """Return a label of a setting, which Python or YAML may have as a number, as text.

    >>> [label_to_text(v) for v in (2, 1.0, True, "02")]
    ['2', '1', 'true', '02']
    """
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def _names_as_text(names: Any) -> Any:
    """Return names of columns that are numbers, as pandas gives them, as text."""
    if isinstance(names, list):
        return [_names_as_text(name) for name in names]
    return str(names) if isinstance(names, int | float) else names


class DataConfig(Section):
    """Where the rows are and how to read them."""

    root: LocalPath | None = None
    """Folder in which names of data files begin that are not whole paths. For a named set (`bertune sets`):
    the folder of its files, or `hub` or `modelscope`. What a run writes has the whole paths instead."""
    train: Files | None = None
    """File, or list of files, with the training rows: csv, tsv, txt, json, jsonl, parquet or conll, each also
    as .gz; or hub:NAME or modelscope:NAME."""
    dev: Files | None = None
    """File or files that decide which checkpoint is best. Without it, `dev_fraction` of the training rows
    becomes the dev set."""
    test: Files | None = None
    """File or files to score at the end with the best checkpoint."""
    columns: list[str] | dict[str, str | list[str]] | None = None
    """A list names the columns of a file without header, from left to right; "_" ignores a column, and "..."
    at the end all further ones. A mapping gives the column of each field: {text: review, label: stars}; a
    list where a field is spread over several columns: {text: review, label: [toxic, obscene]}. Without it,
    well-known names are recognised."""
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "fasttext", "parquet", "conll", "lines"] = "auto"
    """File format; `auto` goes by the file name, and by the first bytes where they say otherwise. `conll` has
    one word a line, in columns, or one sentence a line: words, a tab, tags. `fasttext` has `__label__` and a
    label before each text. `lines` has one text or one JSON object a line."""
    delimiter: str | None = None
    """Character between the columns of csv, tsv and conll. Without it: a comma for csv, a tab for tsv and
    txt, or another one if the first lines leave no doubt; tabs or blanks for conll."""
    quoting: Literal["auto", "standard", "none"] = "auto"
    """`standard`: a field in double quotes may hold delimiters and newlines. `none`: quotation marks are
    text. `auto`: standard for csv; none for tsv and txt, as in GLUE and most Chinese data sets, unless every
    value of a column is quoted."""
    sentence_ends: list[str] | None = None
    """Words after which a sentence ends, such as [".", "?", "!", "。"], in files with a word a line or a row
    that do not divide sentences. An empty list reads long texts as they are, without a word about it."""
    encoding: str = "utf-8"
    """Text encoding, such as gb18030 or utf-16. A byte-order mark is removed."""
    labels: list[str] | LocalPath | None = None
    """All labels in the order of their ids, or a file with one label a line. Without it: the labels of the
    training rows, sorted. Where rows write a 0 or 1 for each label: the names of the labels."""
    drop_labels: list[str] = []
    """Rows with one of these labels are left out and counted, such as "-" in OCNLI. Found by their text, else
    by their value."""
    label_delimiter: str | None = None
    """Character between the labels of one row, such as | in "red|blue". It makes the task multi-label."""
    convert: Literal["csl", "cluewsc", "cluener", "golden_horse"] | None = None
    """How rows of some data sets become texts: `csl` joins the keywords, and the abstract is the second
    text; `cluewsc` marks the two spans in the text; `cluener` makes spans of its mapping;
    `golden_horse` leaves out the number behind each character. Other rows stay as they are."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used. `error`: stop and name them. `skip`: leave them out and count
    them."""
    dev_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the training rows that becomes the dev set when no dev file is given, drawn by label and
    seed. 0: train on all rows; then there is no dev score, and the model of the last step is kept."""
    limit: PositiveInt | None = None
    """Train on this many rows only, drawn by label and seed; every label keeps a row if it can."""
    max_length: Annotated[int, Field(ge=4)] | None = None
    """Most tokens of an input, special tokens included. Longer inputs are truncated and counted. Without it:
    the encoder's limit, at most 512. Short rows cost nothing extra, since batches have no padding."""
    truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first"
    """Which text of a pair is truncated when the pair is too long."""
    cache: Literal["auto", "on", "off"] = "auto"
    """Store rows and tokens on disk (`bertune cache list`), so that data may be larger than memory and is
    read and tokenized once. `auto`: if the files of the run have 64 MB or more together."""
    workers: Literal["auto"] | PositiveInt = "auto"
    """Processes that tokenize data for the cache; `auto`: one for each core."""

    @model_validator(mode="before")
    @classmethod
    def _files_below_root(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("root") is None:
            return values
        root = _path_text(values["root"])
        if not isinstance(root, str):
            raise ValueError(f"root must be a folder, got {root!r}")
        if root.rstrip(":") in {"hub", "modelscope"} and not os.path.isdir(root):  # noqa: PTH112
            raise ValueError(
                f"root={root} is for named sets, such as glue:cola; write data.train={root.rstrip(':')}:NAME"
            )
        files = {name: _below(root, values[name]) for name in ("train", "dev", "test") if name in values}
        return {**values, **files, "root": None}

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
    def _no_column_twice(
        cls, value: list[str] | dict[str, str | list[str]] | None
    ) -> list[str] | dict[str, str | list[str]] | None:
        lists = [value] if isinstance(value, list) else (value or {}).values()
        for names in lists:
            twice = [name for name in dict.fromkeys(names) if name != "_" and names.count(name) > 1]
            if isinstance(names, list) and twice:
                raise ValueError(f"names {listed(twice)} twice")
        return value

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_have_names(cls, value: Any) -> Any:
        for field, names in value.items() if isinstance(value, dict) else ():
            if names in (None, []) and ":" in str(field):
                written = str(field).replace(":", ": ", 1)
                raise ValueError(f"write a blank after the colon: {{{written}}}")
            if names in (None, []):
                raise ValueError(f"{field!r} has no column; write {{{field}: NAME}}")
        if isinstance(value, dict):
            return {field: _names_as_text(names) for field, names in value.items()}
        return _names_as_text(value)

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
        return [label_to_text(v) for v in value]

    @field_validator("labels")
    @classmethod
    def _no_label_twice(cls, value: list[str] | str | None) -> list[str] | str | None:
        if isinstance(value, list) and len(set(value)) < len(value):
            raise ValueError(f"names a label twice: {listed(value)}")
        return value


class TrainConfig(Section):
    """How the model is trained."""

    epochs: PositiveFloat = 3
    """Passes over the training rows; 0.5 is half a pass."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps; `epochs` has no effect then."""
    batch_size: PositiveInt = 32
    """Rows of one optimizer step, over all processes. `micro_batches` and `micro_batch_tokens` do not change
    the result of a step."""
    micro_batches: PositiveInt = 1
    """Split every batch into this many micro-batches to save memory. Loss and gradient stay those of the
    whole batch."""
    micro_batch_tokens: PositiveInt | None = 16384
    """Split a batch further if a micro-batch would have more tokens than this."""
    learning_rate: AutoRate = "auto"
    """Peak learning rate of the encoder. `auto`: by its width, its layers, the task and the number of steps;
    the log and OUT/run.yaml have the number."""
    head_learning_rate: AutoRate | None = "auto"
    """Peak learning rate of the head. `auto`: that of the task for a head that begins at random, never below
    `learning_rate`. Null: `learning_rate`."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor from the learning rate of one layer to that of the layer below (0.95 is usual); 1 is the same
    rate for all."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW, for matrices only: not for biases and norms."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay rate of the first moment in AdamW."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay rate of the second moment in AdamW."""
    adam_epsilon: PositiveFloat = 1e-8
    """Term that AdamW adds to the denominator."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; a longer gradient is scaled down to it. 0: no limit."""
    schedule: Schedule = "linear"
    """How the learning rate changes after the warm-up."""
    warmup_ratio: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = "auto"
    """Fraction of all steps in which the learning rate rises from 0. `auto`: a tenth."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Number of steps in which the learning rate rises from 0; `warmup_ratio` has no effect then. A warm-up
    as long as the run is shortened by one step, and the log says so."""
    schedule_cycles: PositiveInt = 1
    """Number of cycles of cosine_with_restarts."""
    schedule_power: PositiveFloat = 1.0
    """Exponent of the polynomial schedule."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor or GPU computes it natively, else fp32. fp16 needs a CUDA GPU.
    Parameters, gradients and optimizer stay in fp32."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of hidden states and attention in the encoder. Without it: the value in the encoder's
    config.json."""
    fast_dropout: bool = True
    """On a processor, draw dropout from cheap random bytes, with its rate rounded to 1/256 (0.1 to 0.1016).
    `false`: use torch's dropout."""
    active_vocabulary: bool = True
    """Train only the word vectors that occur in the training rows; the others get the same weight decay as
    without it. The result is the same, for less time and memory."""
    head: Literal["auto", "keep", "new"] = "auto"
    """What becomes of the head in the folder of `model`, where that is the result of another run. `auto`:
    labels of the same name keep their weights, and the head is new where it does not fit; the log says
    which. `keep`: refuse a head that cannot be kept whole. `new`: draw a new one; a pretrained pooler
    stays."""
    reinit_layers: Annotated[int, Field(ge=0)] = 0
    """How many of the encoder's top layers are drawn anew before training, and with them the pooler and the
    head; 0 for none. A few help on small data (Zhang et al. 2021)."""
    glyphs: Literal["frozen", "trained"] = "frozen"
    """ChineseBERT only: whether the pixels of its glyphs are trained. A base-size model has 40 million of
    them."""
    glyph_font: Files | None = None
    """ChineseBERT only: font file, or files, to draw glyphs from if neither checkpoint nor folder has any."""
    eval_every: Literal["epoch", "end"] | PositiveInt = "epoch"
    """Score the dev set after every epoch or after this many steps, and at the end. `end`: at the end alone,
    so that the dev rows choose nothing, and the last model is kept."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations in a row without a better score."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """A score counts as better if it is better by more than this."""
    checkpoint_every: Literal["epoch", "never"] | PositiveInt = "epoch"
    """Write all that training changes after every epoch or after this many steps, so that `--resume` can
    continue the run. A signal writes a checkpoint too. At the end of the run checkpoints are removed."""
    keep_checkpoints: PositiveInt = 2
    """How many checkpoints to keep, the newest ones. The best model is not among them: it is OUT itself."""
    max_nonfinite_steps: Annotated[int, Field(ge=0)] = 0
    """Skip up to this many steps whose loss or gradient is not finite, and name each; one more ends the
    run."""
    fsdp: bool = False
    """With several processes: each keeps only its shard of optimizer, gradients and parameters between steps
    (FSDP). Not with `ema`, `fgm`, `r_drop`. All word vectors are trained."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, such as 0.999; the average is scored and
    saved."""
    fgm: PositiveFloat | None = None
    """Adversarial training (FGM): length of the step on the word embeddings; 1.0 is usual. Doubles the
    time."""
    r_drop: PositiveFloat | None = None
    """R-Drop: weight of the divergence between two dropout passes; 1 to 5 are usual. Doubles the time."""

    @model_validator(mode="after")
    def _no_more_micro_batches_than_rows(self) -> TrainConfig:
        if self.micro_batches > self.batch_size:
            raise ValueError(f"micro_batches {self.micro_batches} is more than batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _no_head_on_new_layers(self) -> TrainConfig:
        if self.reinit_layers and self.head == "keep":
            raise ValueError(
                "head=keep does not fit reinit_layers: a head that was trained on other layers means nothing "
                "on new ones; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _no_fsdp_with_regularization(self) -> TrainConfig:
        if self.fsdp and (self.ema or self.fgm or self.r_drop):
            raise ValueError(
                "fsdp is not for ema, fgm and r_drop, which need the whole model in every process; "
                "leave one of them out"
            )
        return self


class LogConfig(Section):
    """What a run logs, and where."""

    every: PositiveInt = 20
    """Steps from one progress line to the next."""
    trackers: list[str] = []
    """Trackers of accelerate: tensorboard, wandb, mlflow, comet_ml, aim, clearml, dvclive, swanlab,
    trackio."""


class RunConfig(Section):
    """All settings of a run."""

    task: LocalPath
    """What to learn: the name of a task (`bertune tasks`), or a Python file with a task of your own."""
    model: LocalPath = "minilm"
    """The pretrained encoder: a folder, of another run too, a Hub id, minilm (English, from the package of
    the extra `starter`) or e5-small (100 languages, Chinese too; extra `multilingual`)."""
    out: LocalPath | None = None
    """Folder of the result. Without it: the first free one of runs/TASK-1, runs/TASK-2, ..."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Decides the initial weights of the head, the order of rows, dropout, the split and the subset."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto` takes a GPU if there is one."""
    data: DataConfig = DataConfig()
    """Where the rows are and how to read them."""
    options: dict[str, Any] = {}
    """The task's own settings."""
    train: TrainConfig = TrainConfig()
    """How the model is trained."""
    log: LogConfig = LogConfig()
    """What is told while it runs."""
    model_code: Literal["never", "trusted"] = "never"
    """Whether Python code that the folder of `model` brings (`auto_map` in its config.json) is run. `trusted`
    runs it with all your rights: read it first. It is copied into OUT, and whoever opens OUT must trust it
    too."""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that the type of a field is, or is unless it is None."""
    members = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return members[0] if len(members) == 1 and is_section(members[0]) else None


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Tell whether the type of a field is a section."""
    # Python 3.10 takes list[str] for a class, hence the first test.
    return (
        get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )
