"""What tokens look like: a table of pixels for ChineseBERT, a row for each token of the vocabulary.

A row is the token's picture in some fonts, one after the other, each of 24 x 24 pixels from left to right and top to bottom.
Letters: `V` tokens, `G` pixels of a row.

Source: Sun et al. 2021, arXiv 2106.16038; `GlyphEmbedding` of ShannonAI/ChineseBert.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertune.errors import ConfigError, MissingExtra, listed

GLYPH_SIZE = 24
"""Height and width of a picture in pixels."""
_PIXELS = GLYPH_SIZE * GLYPH_SIZE
_NO_CHARACTER = "\U0010fffe"  # in no font: what a font shows for it, it shows for everything that it lacks


class GlyphOptions(NamedTuple):
    """What a run wants of glyphs."""

    fonts: tuple[str, ...] = ()
    """Font files to render from, where neither the checkpoint nor the folder has pictures."""
    trainable: bool = False
    """Whether pixels learn too."""


def find_glyph_files(folder: Path) -> list[Path]:
    """Return the `.npy` files of a folder or its `config`, sorted by name: the order in which fonts stand in a row."""
    return sorted((*folder.glob("*.npy"), *folder.glob("config/*.npy")), key=lambda path: path.name)


def read_glyphs(files: Sequence[Path], rows: int, num_pixels: int) -> Tensor:
    """Put the pictures of several fonts side by side (V, G), values as they are.

    Args:
        files: each (V, 24, 24).
        rows: V.
        num_pixels: G.

    Raises:
        ConfigError: a file is damaged or of another shape, or there are more or fewer fonts than G asks for.
    """
    fonts = []
    for file in files:
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{file}: cannot be read as pictures of characters: {error}") from None
        if found.shape != (rows, GLYPH_SIZE, GLYPH_SIZE):
            raise ConfigError(
                f"{file}: has the shape {found.shape}; pictures of this vocabulary have {(rows, GLYPH_SIZE, GLYPH_SIZE)}"
            )
        fonts.append(found.reshape(rows, _PIXELS).astype(np.float32))
    if len(fonts) * _PIXELS != num_pixels:
        names = listed(file.name for file in files)
        raise ConfigError(
            f"glyph_embedding_dim is {num_pixels}, which is {num_pixels / _PIXELS:g} fonts of {GLYPH_SIZE} x {GLYPH_SIZE}, and there are {names}"
        )
    return torch.from_numpy(np.concatenate(fonts, 1))


def render_glyphs(fonts: Sequence[str], tokens: Sequence[str], num_pixels: int) -> tuple[Tensor, int]:
    """Draw each token that is one character, from 0 (paper) to 1 (ink).

    Args:
        fonts: font files that Pillow reads, such as .ttf, .otf and .ttc; used again from the first on where `num_pixels` asks for more.
        tokens: V; "##" before a character is left out; what is more than a character, special tokens among them, has no picture.
        num_pixels: G.

    Returns:
        Pixels (V, G), and how many of the characters a font lacks, which have no picture either.

    Raises:
        MissingExtra: Pillow is not installed.
        ConfigError: a file is no font, or `num_pixels` is no whole number of pictures.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise MissingExtra("pillow", "chinese", "drawing glyphs") from None
    if num_pixels % _PIXELS:
        raise ConfigError(
            f"glyph_embedding_dim is {num_pixels}, which is no multiple of {GLYPH_SIZE} x {GLYPH_SIZE} pixels"
        )
    opened = []
    for path in fonts:
        try:
            opened.append(ImageFont.truetype(path, GLYPH_SIZE))
        except OSError as error:
            raise ConfigError(f"train.glyph_font: {path!r} cannot be read as a font: {error}") from None

    def picture(font: Any, character: str) -> npt.NDArray[np.float32]:
        image = Image.new("L", (GLYPH_SIZE, GLYPH_SIZE))
        ImageDraw.Draw(image).text(
            (GLYPH_SIZE / 2, GLYPH_SIZE / 2), character, fill=255, font=font, anchor="mm"
        )
        return np.asarray(image, np.float32).reshape(-1) / np.float32(255)

    table = np.zeros((len(tokens), num_pixels), np.float32)
    lacking: set[str] = set()
    drawn: dict[int, npt.NDArray[np.float32]] = {}
    for place in range(num_pixels // _PIXELS):
        number = place % len(opened)
        if number not in drawn:
            nothing = picture(opened[number], _NO_CHARACTER)
            drawn[number] = np.zeros((len(tokens), _PIXELS), np.float32)
            for row, token in enumerate(tokens):
                character = token.removeprefix("##")
                if len(character) != 1:
                    continue
                found = picture(opened[number], character)
                if np.array_equal(found, nothing):
                    lacking.add(character)
                else:
                    drawn[number][row] = found
        table[:, place * _PIXELS : (place + 1) * _PIXELS] = drawn[number]
    return torch.from_numpy(table), len(lacking)


class FrozenGlyphs(nn.Module):
    """A table that is kept as it is: no gradient, no moments, no decay."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", table)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of tokens, (n,) to (n, G)."""
        return self.weight[ids]


class ActiveGlyphs(nn.Module):
    """The same with the rows of training at hand; the whole table stays in main memory, for tokens of other rows and for saving.

    Args:
        table: (V, G).
        active: the tokens of the training rows, each once.
    """

    def __init__(self, table: Tensor, active: Tensor) -> None:
        super().__init__()
        slots = torch.full((len(table),), len(active), dtype=torch.int64, device=active.device)
        slots[active] = torch.arange(len(active), device=active.device)
        self.active_index: Tensor
        self.active_rows: Tensor
        self.register_buffer("active_index", slots, persistent=False)
        self.register_buffer("active_rows", table[active.to(table.device)], persistent=False)
        self._whole = table.cpu()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of tokens, (n,) to (n, G).

        Raises:
            IndexError: in training mode, on a processor: a token is not active.
        """
        slots = self.active_index[ids]
        if self.training:
            return self.active_rows[slots]
        other = slots == len(self.active_rows)
        found = self.active_rows[slots.masked_fill(other, 0)]
        found[other] = self._whole[ids[other].cpu()].to(found.device)
        return found

    def full_weight(self) -> Tensor:
        """Return the table (V, G)."""
        return self._whole
