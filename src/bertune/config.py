"""One YAML file is one run: read it, lay overrides over it, check everything, write it back resolved.

A setting has one default, here, and one description, the docstring under its field, which feeds `docs/config.md`
and `bertune init`. All faults are reported at once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bertune.errors import ConfigError, did_you_mean, listed

Precision = Literal["auto", "fp32", "bf16", "fp16"]
UsePrecision = Literal[Precision, "int8"]
"""Of a finished model."""
Schedule = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
Files = str | list[str]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the rows are and how to read them."""

    train: Files | None = None
    """File, or list of files, to learn from: csv, tsv, txt, json, jsonl, parquet, any of them with .gz, or hub:NAME."""
    dev: Files | None = None
    """File or files that decide which checkpoint is best. Without it `dev_share` of the training rows is split off."""
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
    dev_share: Share = 0.1
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
            raise ValueError(f"{value!r} is not an encoding that Python knows (utf-8, gb18030, big5, utf-16 ...)") from None
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
    """Rows of one optimizer step. The model sees the same whatever `accumulate` and `max_tokens` are."""
    accumulate: Count = 1
    """Cut every batch into this many micro-batches to save memory. Loss and gradient stay those of the whole batch."""
    max_tokens: Count | None = 16384
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
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """How much better a score must be to count as better."""
    checkpoint_every: Literal["epoch", "never"] | Count = "epoch"
    """Write all that training changes after every epoch, or every so many steps, so that `--resume` can go on from there.
    A signal writes it too. When the run is done they are removed: the result is what stays."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints stay. The best model is not among them: it is OUT itself."""
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0
    """Pass over so many steps whose loss or gradient is not finite, each named, before the run ends; 0 ends it at the first."""
    shard: bool = False
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
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate {self.accumulate} is more than batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _whole_for_tricks(self) -> TrainConfig:
        if self.shard and (self.ema or self.fgm or self.r_drop):
            raise ValueError("shard is not for ema, fgm and r_drop, which need the whole model in every process; leave one of them out")
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


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `3e-5` is a number, `no` and `2024-05-01` are text; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str | int | float | bool):
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that _Loader, or a reader of YAML 1.1, would take for something else."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value)))
_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)
)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
):
    _firsts = [*_first.replace("\0", ""), *([""] if _tag == "null" else [])]
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _firsts)


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML; `where` stands in the message when it is broken.

    >>> parse_yaml("[3e-5, no, 7, null]", "example")
    [3e-05, 'no', 7, None]

    Raises:
        ConfigError: the text is not YAML, or a key stands twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None


def read(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a run file, or take a task's name or settings as they are, and lay `section.name=value` over it.

    Raises:
        ConfigError: the file is missing or broken, or an override has no "=".
    """
    raw: Any
    if isinstance(source, dict):
        raw = copy.deepcopy(source)
    elif Path(source).suffix in {".yaml", ".yml"}:
        path = Path(source)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(f"{source}: cannot read this run file: {reason}") from None
        raw = parse_yaml(text, str(source))
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            raise ConfigError(f"{source}: a run file is a mapping such as 'task: classify', got {type(raw).__name__}")
    else:
        raw = {"task": str(source)}
    for override in overrides:
        lay(raw, override)
    return dict(raw)


def lay(raw: dict[str, Any], override: str) -> None:
    """Lay one `section.name=value` over nested settings, in place.

    Raises:
        ConfigError: it has no "=", or a section on its way is a value.
    """
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r} is not a setting; write section.name=value, such as train.epochs=3")
    place = raw
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        if not isinstance(place[key], dict):
            raise ConfigError(f"{override!r}: {key!r} is a value, not a section")
        place = place[key]
    value = parse_yaml(text, override)
    # A lone "|" or "#" is YAML for nothing, but a delimiter to whoever writes it here.
    place[keys[-1]] = text.strip() if value in (None, "") and text.strip() in {"|", ">", "#"} else value


def resolve(raw: dict[str, Any], options: type[Section]) -> tuple[RunConfig, Any]:
    """Check a whole run, the task's own options included.

    Returns:
        The run, with the options filled in, and the options as an object of `options`.

    Raises:
        ConfigError: names every fault at once.
    """
    faults: list[str] = []
    sections = ("data", "options", "train", "log")
    raw = {name: value for name, value in raw.items() if value is not None or name not in sections}  # "log:" alone is empty
    given = raw.get("options", {})
    chosen: Any = None
    try:
        chosen = options.model_validate(given)
    except ValidationError as error:
        faults += _faults(error, options, ("options",))
    run: RunConfig | None = None
    try:
        run = RunConfig.model_validate({**raw, "options": chosen.model_dump() if chosen else {}})
    except ValidationError as error:
        faults = _faults(error, RunConfig, ()) + faults
    if faults or run is None:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n".join([f"{len(faults)} settings are wrong:", *faults]))
    return run, chosen


def _faults(error: ValidationError, model: type[BaseModel], above: tuple[str, ...]) -> list[str]:
    seen: dict[str, str] = {}
    for fault in error.errors():
        path = _names(fault["loc"], model)
        name = ".".join((*above, *path))
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            text = f"{name}: no such setting{did_you_mean(path[-1], known)}; allowed here: {', '.join(sorted(known))}"
        elif fault["type"] == "missing":
            text = f"{name}: must be given"
        else:
            reason = fault["msg"].removeprefix("Value error, ")
            where = f"{name}: " if name else ""
            got = "" if isinstance(fault["input"], dict | BaseModel) else f" (got {fault['input']!r})"
            text = f"{where}{reason[0].lower()}{reason[1:]}{got}"
        # A union reports one fault for each of its members: one line a setting is enough.
        seen[name] = f"{seen[name]}, or {text.split(': ', 1)[-1]}" if name in seen else text
    return list(seen.values())


def _names(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Drop what pydantic adds to a location to tell members of a union apart."""
    names: list[str] = []
    at: Any = model
    for part in loc:
        names.append(str(part))
        field = at.model_fields.get(str(part))
        if field is None or not is_section(field.annotation):
            break
        at = field.annotation
    return names


def is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Tell whether a field holds settings of its own; Python 3.10 takes list[str] for a class, hence the first question."""
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    at: Any = model
    for name in path:
        at = at.model_fields[name].annotation
    return list(at.model_fields)


def idle_settings(run: RunConfig) -> list[str]:
    """Name the settings that were given but change nothing in this run."""
    train, data = run.train, run.data
    constant = train.schedule == "constant"
    rules: list[tuple[Section, str, bool, str]] = [
        (data, "dev_share", data.dev is not None, "data.dev is given"),
        (data, "quoting", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "delimiter", data.format in {"json", "jsonl", "parquet"}, f"data.format is {data.format}"),
        (data, "workers", data.cache == "off", "data.cache is off"),
        (train, "epochs", train.max_steps is not None, "train.max_steps is given"),
        (train, "warmup_ratio", train.warmup_steps is not None, "train.warmup_steps is given"),
        (train, "warmup_ratio", constant, "train.schedule is constant"),
        (train, "warmup_steps", constant, "train.schedule is constant"),
        (train, "schedule_cycles", train.schedule != "cosine_with_restarts", f"train.schedule is {train.schedule}"),
        (train, "schedule_power", train.schedule != "polynomial", f"train.schedule is {train.schedule}"),
        (train, "min_gain", train.patience is None, "train.patience is not given"),
    ]
    idle = []
    for section, name, without_effect, because in rules:
        default = type(section).model_fields[name].default
        if without_effect and name in section.model_fields_set and getattr(section, name) != default:
            room = "data" if section is data else "train"
            idle.append(f"{room}.{name}={getattr(section, name)} has no effect, since {because}")
    return idle


def dump(run: RunConfig) -> str:
    """Write a resolved run as YAML. `out` is left out, so that `bertune train OUT/run.yaml` repeats the run elsewhere."""
    return yaml.dump(run.model_dump(exclude={"out"}), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
