"""Settings of an encoder that begins from nothing: its size, and the tokenizer that its rows train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bertune.config.schema import PositiveInt, RunConfig, Section

NEW = "new"
"""The `model` of a run that begins from nothing."""
HEAD_SIZE = 64
"""The width of an attention head in BERT, and in the small BERTs of Turc et al. 2019 (arXiv 1908.08962)."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first tokens of every vocabulary that is made here, in the order of BERT's."""


class NewEncoder(Section):
    """A BERT that begins from nothing, with `model: new`. The defaults are BERT-mini of Turc et al. 2019."""

    layers: PositiveInt = 4
    """Number of layers."""
    hidden_size: PositiveInt = 256
    """Width of the states. The usual sizes: 2 layers of 128 (tiny), 4 of 256 (mini), 4 of 512 (small), 8 of
    512 (medium), 12 of 768 (base)."""
    heads: PositiveInt | None = None
    """Number of attention heads; it must divide `hidden_size`. Without it: one for each 64 of the width."""
    intermediate_size: PositiveInt | None = None
    """Width inside the feed-forward networks. Without it: four times `hidden_size`."""
    max_positions: Annotated[int, Field(ge=8)] = 512
    """Most tokens of a row, special tokens included."""
    tokenizer: Literal["wordpiece", "unigram"] = "wordpiece"
    """`wordpiece`: BERT's; words are divided at blanks and punctuation, and each Chinese character is a
    token. `unigram`: the pieces under which the rows are most probable; Chinese words can be pieces, and
    characters are normalized (NFKC)."""
    vocab_size: Annotated[int, Field(ge=32)] = 8000
    """Most tokens of the vocabulary, with five special ones. A few texts may give fewer. 8,000 suit a few
    megabytes; 30,000 is usual for gigabytes."""
    lowercase: bool = True
    """Make letters small; `wordpiece` then takes accents off too, as BERT does."""
    min_frequency: PositiveInt = 2
    """How often a piece of several characters must occur in the training rows."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> NewEncoder:
        if self.hidden_size % self.num_heads:
            fitting = [n for n in range(1, self.hidden_size + 1) if self.hidden_size % n == 0]
            near = sorted(sorted(fitting, key=lambda n: abs(n - self.num_heads))[:3])
            raise ValueError(
                f"heads {self.num_heads} do not divide hidden_size {self.hidden_size}; these near it do: "
                f"{', '.join(map(str, near))}"
            )
        return self

    @property
    def num_heads(self) -> int:
        """Return the number of heads: by default one for each 64 of the width, if these divide it.

        >>> NewEncoder(hidden_size=512).num_heads, NewEncoder(hidden_size=300).num_heads
        (8, 4)
        """
        if self.heads is not None:
            return self.heads
        nearest = max(1, self.hidden_size // HEAD_SIZE)
        return next((n for n in range(nearest, 0, -1) if self.hidden_size % n == 0), 1)

    @property
    def feed_forward_size(self) -> int:
        """Return the width inside the feed-forward networks."""
        return self.intermediate_size or 4 * self.hidden_size

    def describe(self) -> str:
        """Return the size in words.

        >>> NewEncoder().describe()
        'BERT of 4 layers of width 256, 4 heads, 512 positions'
        """
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        heads = "1 head" if self.num_heads == 1 else f"{self.num_heads} heads"
        return f"BERT of {layers} of width {self.hidden_size}, {heads}, {self.max_positions} positions"


def new_encoder_faults(run: RunConfig, offered: NewEncoder | None, given: NewEncoder | None) -> list[str]:
    """Return all that is wrong with beginning from nothing, or with not doing so; each names its setting.

    Args:
        run: the settings.
        offered: what the task makes where `model` is new; None: it makes no encoder.
        given: `options.new`, as far as the task has it.
    """
    if run.model != NEW:
        if given is None:
            return []
        got = f"model is {run.model!r}" if "model" in run.model_fields_set else "model is not given"
        return [
            f"options.new: describes an encoder that begins from nothing, and {got}; write model: new, or "
            "leave options.new out to go on from a pretrained encoder"
        ]
    if offered is None and Path(NEW).is_dir():
        return []  # a folder of that name, as before
    if offered is None:
        return [
            f"model: new begins from nothing, and task {run.task} needs a pretrained encoder; make one by "
            "`bertune train pretrain model=new data.train=TEXTS out=OUT`, then give model=OUT "
            "(for a folder of that name write ./new)"
        ]
    faults = []
    if run.data.max_length is not None and run.data.max_length > offered.max_positions:
        faults.append(
            f"data.max_length: {run.data.max_length} is more than options.new.max_positions, "
            f"{offered.max_positions}; make one of them fit"
        )
    if run.train.reinit_layers:
        faults.append("train.reinit_layers: every layer of a new encoder is drawn anew; leave it out")
    if run.train.head == "keep":
        faults.append("train.head: a new encoder has no head that can be kept; leave it out")
    if run.model_code == "trusted":
        faults.append("model_code: a new encoder brings no Python code; leave it out")
    return faults
