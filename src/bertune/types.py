"""The objects that cross from one room to another. Importing this loads no torch.

Tensor letters: `B` rows, `T` packed tokens of a batch, `W` width, `N` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

JSON = dict[str, Any]
ComputePrecision = Literal["fp32", "bf16", "fp16", "int8"]
EncoderOutput = Literal["last", "first_token", "first_last"]
"""What a head reads of an encoder: the last layer's states of all tokens; those of each row's first token, so that the last layer
works for these alone; or of all tokens the mean of the first and the last layer's."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The parts that a task reads from a row, by name."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    target: str
    text_aliases: tuple[str, ...] = ()
    """Further names under which the text is recognised, in plain letters: without case, blanks, "_" and "-"."""
    target_aliases: tuple[str, ...] = ()
    """The same for the target."""
    is_word_level: bool = False
    """Whether a row is a sentence of words with something for each, as in CoNLL files."""
    target_required: bool = True
    """Whether rows to learn from and to be scored must have the target."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a row stands: `str(location)` gives `file:line`, as every message writes it."""

    source: str
    line: int
    stride: int = 0  # lines from one word to the next, where each has a line of its own

    def __str__(self) -> str:
        """Return `file:line`."""
        return f"{self.source}:{self.line}"

    def at_word(self, word: int) -> Location:
        """Return the location of a word."""
        return replace(self, line=self.line + word * self.stride)


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file: values under the names of their parts, and where they stood."""

    fields: dict[str, Any]
    location: Location
    raw: dict[str, Any] = field(default_factory=dict)  # every column as it was, under the file's own names


class Span(NamedTuple):
    """Something in a text: `text[start:end]` is a `label`."""

    start: int
    end: int
    label: str


class Entity(NamedTuple):
    """A span that was predicted."""

    start: int  # characters of the text
    end: int  # exclusive
    label: str
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Example:
    """What a row means to a task; no ids and no tensors."""

    texts: tuple[str, ...]
    target: Any = None
    location: Location = Location("", 0)
    words: tuple[tuple[int, int], ...] | None = (
        None  # start and end of each word in the text, for tasks that look at words
    )


@dataclass(frozen=True, slots=True)
class Encoding:
    """The token ids of one input, with the segment of each token."""

    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    num_truncated: int = 0  # tokens that max_length cut away
    word_positions: Sequence[int] | None = None  # places of the tokens that stand for the words, one a word
    window_lengths: Sequence[int] | None = None  # tokens of each window, where a text is read in several
    pinyin_ids: Sequence[int] | None = (
        None  # how each token is read, for encoders that hear it; see `bertune.text.pinyin`
    )


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example as integers: 1 input for a cross-encoder, 2 or 3 for a bi-encoder."""

    inputs: tuple[Encoding, ...]
    target: Any = None
    context: Any = None  # what `decode` needs of the example besides the model's output
    passes: bool = (
        False  # the inputs are passes of one text, each to be encoded with dropout of its own (SimCSE)
    )


@dataclass(frozen=True, slots=True)
class Ragged:
    """The tokens of a batch without padding: row b is `input_ids[offsets[b]:offsets[b + 1]]`.

    `input_ids` (T,) and `token_type_ids` (T,) are int64 tensors, `offsets` (B + 1,) an int64 tensor on the same device, and
    `lengths` the same cuts as plain integers, so that nobody has to ask the device for them.

    For tasks that look at words, a long text is several rows here, one a window; `word_positions` (M,) are the tokens that stand for
    words, each word of the batch once, and `num_words` how many of them each text has. `pinyin_ids` (T,), int64, say how each
    token is read, where the encoder hears it.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    offsets: torch.Tensor
    lengths: tuple[int, ...]
    word_positions: torch.Tensor | None = None
    num_words: tuple[int, ...] = ()
    pinyin_ids: torch.Tensor | None = None

    def slice_rows(self, start: int, stop: int) -> Ragged:
        """Return rows `start` to `stop` of a batch without words."""
        offsets = self.offsets[start : stop + 1]
        first, last = sum(self.lengths[:start]), sum(self.lengths[:stop])
        syllables = None if self.pinyin_ids is None else self.pinyin_ids[first:last]
        lengths = self.lengths[start:stop]
        return Ragged(
            self.input_ids[first:last],
            self.token_type_ids[first:last],
            offsets - offsets[0],
            lengths,
            pinyin_ids=syllables,
        )

    def to(self, device: torch.device) -> Ragged:
        """Return the same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=device.type == "cuda"),
            token_type_ids=self.token_type_ids.to(device, non_blocking=device.type == "cuda"),
            offsets=self.offsets.to(device, non_blocking=device.type == "cuda"),
            word_positions=None
            if self.word_positions is None
            else self.word_positions.to(device, non_blocking=device.type == "cuda"),
            pinyin_ids=None
            if self.pinyin_ids is None
            else self.pinyin_ids.to(device, non_blocking=device.type == "cuda"),
        )


@dataclass(frozen=True, slots=True)
class PairIndex:
    """Which text stands where, for rows of several texts that are encoded apart. `U` are the texts of the batch, each once.

    `text_index` holds one tensor (B,) a side: the text, 0 to U - 1, that stands there in each row. `text_ids` (U,) are numbers of
    texts: two passes of one text have the same.
    """

    text_index: tuple[torch.Tensor, ...]
    text_ids: torch.Tensor

    def to(self, device: torch.device) -> PairIndex:
        """Return the same on another device."""
        return PairIndex(tuple(p.to(device) for p in self.text_index), self.text_ids.to(device))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a data set as tensors; `rows` are their places in it.

    The encoder's input `ragged` is of the rows; or of the texts of the rows, each once, where `pair_index` says which is where.
    """

    ragged: Ragged
    target: torch.Tensor | None
    rows: tuple[int, ...]
    contexts: tuple[Any, ...] = ()
    pair_index: PairIndex | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on another device."""
        target = None if self.target is None else self.target.to(device, non_blocking=device.type == "cuda")
        pair_index = None if self.pair_index is None else self.pair_index.to(device)
        return replace(self, ragged=self.ragged.to(device), target=target, pair_index=pair_index)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one row, in words and numbers that JSON can hold."""

    value: str | float | tuple[str, ...] | tuple[Entity, ...]
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    tags: tuple[tuple[str, str], ...] | None = None
    """Every word and its tag, where words are what is looked at."""
    vectors: tuple[Any, ...] | None = field(default=None, repr=False)
    """The vector (E,) of each text of the row, numpy fp32, where scores are made of them."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How good predictions are. `main_metric` names the value that decides which checkpoint is best."""

    main_metric: str
    higher_is_better: bool
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 % bootstrap intervals
    per_label: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # gold label -> predicted label -> rows

    @property
    def main_value(self) -> float:
        """Return the value of the main metric."""
        return self.values[self.main_metric]

    def to_json(self) -> JSON:
        """Return everything as plain JSON values."""
        return {
            "main": self.main_metric,
            "higher_is_better": self.higher_is_better,
            "values": self.values,
            "intervals_95": {name: list(pair) for name, pair in self.intervals.items()},
            "per_label": self.per_label,
            "confusion": self.confusion,
        }

    @classmethod
    def from_json(cls, values: JSON) -> Scores:
        """Take back what `to_json` gave."""
        intervals = {name: (pair[0], pair[1]) for name, pair in values["intervals_95"].items()}
        return cls(
            values["main"],
            values["higher_is_better"],
            values["values"],
            intervals,
            values["per_label"],
            values["confusion"],
        )


@dataclass(frozen=True, slots=True)
class Numerics:
    """How an encoder computes. Its parameters, gradients and optimizer stay in fp32 in any case."""

    precision: ComputePrecision = "fp32"
    fast_dropout: bool = True
    """On a processor, dropout from cheap random bytes; see `bertune.kernels.dropout`."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of hidden states, and of the weights they are multiplied with unless these are in int8."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}[
            self.precision
        ]


class Tokenizer(Protocol):
    """What tasks and data need of a tokenizer."""

    max_length: int

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Turn texts, or pairs of texts, into ids, special tokens included, at most `max_length` long."""
        ...

    def encode_words(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], overlap: int
    ) -> list[tuple[Encoding, list[int]]]:
        """Turn texts that are cut into words into ids, long ones in overlapping windows; say which words have ids."""
        ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the word piece of each id."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text for ids."""
        ...

    @property
    def unk_token_id(self) -> int | None:
        """Return the id that stands for everything outside the vocabulary, if there is one."""
        ...

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        ...


class Encoder(Protocol):
    """Tokens in, vectors out, both ragged. Every implementation is also a `torch.nn.Module`."""

    model_type: str  # the architecture, transformers' model_type
    hidden_size: int
    num_layers: int
    prefix: str  # what comes before the encoder's own names in a saved checkpoint, such as "bert."
    hf_class: str  # the class of transformers that opens the encoder alone
    numerics: Numerics

    @property
    def max_positions(self) -> int:
        """Return how many tokens a row may have."""
        ...

    def __call__(self, ragged: Ragged, output: EncoderOutput = "last") -> torch.Tensor:
        """Return states: (T, W) of all tokens, or (R, W) of each row's first; see `EncoderOutput`."""
        ...

    def set_numerics(self, numerics: Numerics) -> None:
        """Choose the precision of the work; parameters stay in fp32."""
        ...

    def set_dropout(self, rate: float) -> None:
        """Change the dropout of hidden states and of attention."""
        ...

    def inference(self) -> AbstractContextManager[None]:
        """Return a context for many calls without gradients, in which weights are cast once."""
        ...

    def prepare_inference(self) -> None:
        """Cast the weights once for good, since training is over."""
        ...

    def layer_index(self, name: str) -> int:
        """Return the layer of a parameter: 0 for embeddings, 1 to num_layers for the blocks and what follows them."""
        ...

    def word_embeddings(self) -> torch.nn.Parameter:
        """Return the table of token vectors that is trained: (V, W), or its active rows."""
        ...

    def use_active_vocabulary(self, ids: torch.Tensor) -> torch.nn.Module | None:
        """Train only these rows of the word table; return what stands for it, or None where that cannot be."""
        ...

    def hf_state_dict(self) -> dict[str, torch.Tensor]:
        """Return every weight under the name that transformers gives it."""
        ...

    def load_hf_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `hf_state_dict` gave; KeyError, RuntimeError where it does not fit."""
        ...

    def hf_config(self) -> JSON:
        """Return what transformers keeps in config.json."""
        ...
