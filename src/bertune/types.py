"""The objects that packages of bertune exchange. Importing this module does not load torch.

Letters: `B` rows, `T` packed tokens of a batch, `M` words, `U` texts, `W` width of an encoder, `E` width of a
vector, `N` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

JSON = dict[str, Any]
ComputePrecision = Literal["fp32", "bf16", "fp16", "int8"]
EncoderOutput = Literal["last", "first_token", "first_last"]
"""The states that an encoder returns: `last`, the last layer's states of all tokens; `first_token`, those of
each row's first token, so that the last layer computes these alone; `first_last`, the mean of the first and
the last layer's states of all tokens."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of a row that a task reads."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    target: str
    """The field with what must be predicted."""
    text_aliases: tuple[str, ...] = ()
    """More column names that are recognised as the text: in lower case, without blanks, "_" and "-"."""
    target_aliases: tuple[str, ...] = ()
    """More column names that are recognised as the target, in the same form."""
    is_word_level: bool = False
    """Whether a row is a sentence of words with something for each, as in CoNLL files."""
    target_required: bool = True
    """Whether rows must have the target in training and evaluation."""
    spreadable: tuple[str, ...] = ()
    """Fields that may be spread over several columns; the value of a row is then a dict, value by column."""
    pair_aliases: tuple[tuple[str, str], ...] = ()
    """More names of two columns that are recognised as text and text_b, in the form of `text_aliases`."""
    varying: tuple[str, ...] = ()
    """Optional fields that some rows of a file may have and others not."""


@dataclass(frozen=True, slots=True)
class Location:
    """Source and line of a row; `str(location)` gives `file:line`, as messages print it."""

    source: str
    """A path, `hub:NAME`, `modelscope:NAME`, or "-" for standard input."""
    line: int
    stride: int = 0
    """Lines from one word to the next, for files with one word a line; else 0."""

    def __str__(self) -> str:
        """Return `file:line`."""
        return f"{self.source}:{self.line}"

    def at_word(self, word: int) -> Location:
        """Return the location of a word; the first word is 0."""
        return replace(self, line=self.line + word * self.stride)


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file."""

    fields: dict[str, Any]
    """Values under the names of the task's fields; see `Columns`."""
    location: Location
    raw: dict[str, Any] = field(default_factory=dict)
    """Every column under the file's own name."""
    word_records: tuple[dict[str, Any], ...] = ()
    """The records of its words, where the file is a table with a word a row."""


class Span(NamedTuple):
    """A piece of a text with a label: `text[start:end]` is a `label`."""

    start: int
    end: int
    label: str


class Entity(NamedTuple):
    """A predicted span."""

    start: int
    """Offset of the first character in the text."""
    end: int
    """Offset after the last character."""
    label: str
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Example:
    """What a row means to a task: texts and a target, without ids and tensors."""

    texts: tuple[str, ...]
    target: Any = None
    location: Location = Location("", 0)
    words: tuple[tuple[int, int], ...] | None = None
    """Start and end of each word in the text; None for tasks that do not look at words."""
    num_positives: int = 1
    """How many texts after the first one belong to it; further texts do not. For rows of several texts."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The token ids of one input, with the segment of each token."""

    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    num_truncated: int = 0  # tokens cut off at max_length
    word_positions: Sequence[int] | None = None  # index of the first token of each word
    window_lengths: Sequence[int] | None = None  # tokens of each window, for a text in several windows
    pinyin_ids: Sequence[int] | None = None  # pronunciation of each token; see `bertune.text.pinyin`


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example as integers: 1 input for a cross-encoder, 2 or more for a bi-encoder."""

    inputs: tuple[Encoding, ...]
    target: Any = None
    context: Any = None  # what `decode` needs of the example besides the model's output
    passes: bool = False  # whether the inputs are one text, each encoded with its own dropout (SimCSE)


@dataclass(frozen=True, slots=True)
class Ragged:
    """The tokens of a batch without padding: row b is `input_ids[offsets[b]:offsets[b + 1]]`.

    For word-level tasks a long text has several rows, one a window.

    Attributes:
        input_ids: (T,) int64.
        token_type_ids: (T,) int64, the segment of each token.
        offsets: (B + 1,) int64, on the same device.
        lengths: tokens of each row as plain integers, which need no copy from the device.
        word_positions: (M,) the first token of each word of the batch, for word-level tasks.
        num_words: words of each text.
        pinyin_ids: (T,) int64, the pronunciation of each token, for encoders that read it.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    offsets: torch.Tensor
    lengths: tuple[int, ...]
    word_positions: torch.Tensor | None = None
    num_words: tuple[int, ...] = ()
    pinyin_ids: torch.Tensor | None = None

    def slice_rows(self, start: int, stop: int) -> Ragged:
        """Return rows `start` to `stop`, exclusive, of a batch without words."""
        offsets = self.offsets[start : stop + 1]
        first, last = sum(self.lengths[:start]), sum(self.lengths[:stop])
        return Ragged(
            self.input_ids[first:last],
            self.token_type_ids[first:last],
            offsets - offsets[0],
            self.lengths[start:stop],
            pinyin_ids=None if self.pinyin_ids is None else self.pinyin_ids[first:last],
        )

    def to(self, device: torch.device) -> Ragged:
        """Return the batch on another device."""
        return replace(
            self,
            input_ids=_to_device(self.input_ids, device),
            token_type_ids=_to_device(self.token_type_ids, device),
            offsets=_to_device(self.offsets, device),
            word_positions=None if self.word_positions is None else _to_device(self.word_positions, device),
            pinyin_ids=None if self.pinyin_ids is None else _to_device(self.pinyin_ids, device),
        )


def _to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device, non_blocking=device.type == "cuda")


@dataclass(frozen=True, slots=True)
class PairIndex:
    """Which text is where in each row, for rows of several texts that are encoded separately.

    The batch has `U` texts, each once.

    Attributes:
        text_index: for each position in a row a tensor (B,), the text there, from 0 to U - 1; -1 where a row
            has fewer texts than others. The first two positions are never empty.
        text_ids: (U,) a number for each text; two passes of one text have the same.
    """

    text_index: tuple[torch.Tensor, ...]
    text_ids: torch.Tensor

    def to(self, device: torch.device) -> PairIndex:
        """Return the index on another device."""
        return PairIndex(tuple(index.to(device) for index in self.text_index), self.text_ids.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a data set as tensors.

    Attributes:
        ragged: the encoder's input: the rows, or with `pair_index` the texts of the rows, each once.
        target: the rows' targets, as the task's `collate_target` returns them; where tokens are masked
            (2, M), their positions among the tokens of the batch, and the ids that stood there.
        rows: the indices of the rows in the data set.
        contexts: the `context` of each row.
        pair_index: the texts of each row, where texts are encoded separately.
    """

    ragged: Ragged
    target: torch.Tensor | None
    rows: tuple[int, ...]
    contexts: tuple[Any, ...] = ()
    pair_index: PairIndex | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        target = None if self.target is None else _to_device(self.target, device)
        pair_index = None if self.pair_index is None else self.pair_index.to(device)
        return replace(self, ragged=self.ragged.to(device), target=target, pair_index=pair_index)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one row, as text and numbers that JSON can hold."""

    value: str | float | tuple[str, ...] | tuple[Entity, ...]
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    """Each word and its tag, for word-level tasks."""
    vectors: tuple[Any, ...] | None = field(default=None, repr=False)
    """The vector (E,) of each text of the row, numpy fp32, where the metrics need them; of a row that is
    scored for several labels, or calibrated, the probabilities (N,)."""
    prediction_set: tuple[str, ...] | tuple[float, float] | None = None
    """Where a coverage was asked for: the labels, or the lowest and the highest number, that hold the truth
    so often."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a model that has learnt nothing scores on the same rows."""

    name: str
    """What predicts, such as "no entity at all"."""
    values: dict[str, float]
    """Its metrics."""
    is_untrained: bool = False
    """Whether it is the model before its first step; else it is one prediction for all rows."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of predictions. `main_metric` names the one that decides which checkpoint is best."""

    main_metric: str
    higher_is_better: bool
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 % bootstrap intervals
    per_label: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of rows by gold label, then by predicted label; with more than 100 labels only of the pairs
    that are most often confused."""
    baseline: Baseline | None = None
    """What a model that has learnt nothing scores on these rows, where that is known."""

    @property
    def main_value(self) -> float:
        """Return the value of the main metric."""
        return self.values[self.main_metric]

    def to_json(self) -> JSON:
        """Return the scores as JSON values."""
        baseline = self.baseline
        return {
            "main": self.main_metric,
            "higher_is_better": self.higher_is_better,
            "values": self.values,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "per_label": self.per_label,
            "confusion": self.confusion,
            **({} if baseline is None else {"baseline": asdict(baseline)}),
        }

    @classmethod
    def from_json(cls, values: JSON) -> Scores:
        """Return the scores that `to_json` wrote."""
        intervals = {name: (pair[0], pair[1]) for name, pair in values["intervals_95"].items()}
        baseline = values.get("baseline")
        return cls(
            values["main"],
            values["higher_is_better"],
            values["values"],
            intervals,
            values["per_label"],
            values["confusion"],
            Baseline(**baseline) if baseline else None,
        )


@dataclass(frozen=True, slots=True)
class Numerics:
    """How an encoder computes. Its parameters, gradients and optimizer state are always in fp32."""

    precision: ComputePrecision = "fp32"
    fast_dropout: bool = True
    """Whether dropout on a processor uses cheap random bytes; see `bertune.kernels.dropout`."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of hidden states, and of weights in matrix products except in int8."""
        import torch

        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return dtypes.get(self.precision, torch.float32)


class Tokenizer(Protocol):
    """The methods of a tokenizer that tasks and data use."""

    max_length: int

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Return texts, or pairs of texts, as ids with special tokens, at most `max_length` long."""
        ...

    def encode_whole(self, texts: Sequence[str]) -> list[Encoding]:
        """Return texts as the ids of all their tokens, however many, without special tokens."""
        ...

    @property
    def special_tokens(self) -> tuple[list[int], list[int], int]:
        """Return the special tokens before and after a text, and the segment of the text's own tokens."""
        ...

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Return texts of words as ids, long ones in overlapping windows, and the words that have ids.

        Args:
            texts: text, and the start and end of each word in it.
            overlap: tokens that a window shares with the window before it.
        """
        ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the token of each id."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text for ids."""
        ...

    @property
    def unk_token_id(self) -> int | None:
        """Return the id of the unknown token, if there is one."""
        ...

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        ...


class Encoder(Protocol):
    """Ragged tokens to ragged states. Every implementation is also a `torch.nn.Module`."""

    model_type: str  # the architecture, as in transformers
    hidden_size: int  # W
    num_layers: int
    prefix: str  # of the encoder's parameter names in a checkpoint, such as "bert."
    hf_class: str  # the class of transformers that opens the encoder alone
    numerics: Numerics
    kept_weights: dict[str, torch.Tensor]  # the pretrained pooler, which bertune neither runs nor trains

    @property
    def max_positions(self) -> int:
        """Return the largest number of tokens of a row."""
        ...

    def __call__(self, ragged: Ragged, output: EncoderOutput = "last") -> torch.Tensor:
        """Return states: (T, W) of all tokens, or (B, W) of first tokens; see `EncoderOutput`."""
        ...

    def set_numerics(self, numerics: Numerics) -> None:
        """Set the precision of the computation; parameters stay in fp32."""
        ...

    def set_dropout(self, rate: float) -> None:
        """Set the dropout of hidden states and of attention."""
        ...

    def inference(self) -> AbstractContextManager[None]:
        """Return a context for calls without gradients, which casts the weights once for all of them."""
        ...

    def prepare_inference(self) -> None:
        """Cast the weights once and for all, when training is over."""
        ...

    def layer_index(self, name: str) -> int:
        """Return the layer of a parameter: 0 for embeddings, 1 to num_layers for the blocks.

        Parameters after the last block belong to it.
        """
        ...

    def word_embeddings(self) -> torch.nn.Parameter:
        """Return the word embeddings that are trained: (vocabulary, W), or the active rows of the table."""
        ...

    def use_active_vocabulary(self, ids: torch.Tensor) -> torch.nn.Module | None:
        """Train only these rows of the word embeddings; return the module that replaces the table.

        Returns None where the encoder cannot do this.
        """
        ...

    def hf_state_dict(self) -> dict[str, torch.Tensor]:
        """Return all weights under the names that transformers gives them."""
        ...

    def load_hf_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load what `hf_state_dict` returned.

        Raises:
            KeyError: a weight is missing.
            RuntimeError: a weight has another shape.
        """
        ...

    def hf_config(self) -> JSON:
        """Return the content of config.json, as transformers reads it."""
        ...
