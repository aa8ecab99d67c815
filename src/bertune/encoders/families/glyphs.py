"""Glyphs: a table of pixels for ChineseBERT, a row for each token of the vocabulary.

A row is the picture of the token in some fonts, one font after the other. A picture has 24 x 24 pixels, from
left to right and from top to bottom. Letters: `V` tokens, `G` pixels of a row.

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
_NO_CHARACTER = "\U0010fffe"  # in no font: its picture is that of every character that a font lacks


class GlyphOptions(NamedTuple):
    """The glyph settings of a run."""

    fonts: tuple[str, ...] = ()
    """Font files to draw from, where neither the checkpoint nor the folder has pictures."""
    trainable: bool = False
    """Whether the glyph table is trained too."""


def find_glyph_files(folder: Path) -> list[Path]:
    """Return the `.npy` files of a folder and its `config`, sorted by name: the order of fonts in a row."""
    return sorted((*folder.glob("*.npy"), *folder.glob("config/*.npy")), key=lambda path: path.name)


def read_glyphs(files: Sequence[Path], rows: int, num_pixels: int) -> Tensor:
    """Return the pictures of several fonts side by side (V, G), values unchanged.

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
            pictures = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{file}: cannot be read as pictures of characters: {error}") from None
        expected = (rows, GLYPH_SIZE, GLYPH_SIZE)
        if pictures.shape != expected:
            raise ConfigError(
                f"{file}: has the shape {pictures.shape}; pictures of this vocabulary have {expected}"
            )
        fonts.append(pictures.reshape(rows, _PIXELS).astype(np.float32))
    if len(fonts) * _PIXELS != num_pixels:
        names = listed(file.name for file in files)
        raise ConfigError(
            f"glyph_embedding_dim is {num_pixels}, which is {num_pixels / _PIXELS:g} fonts of "
            f"{GLYPH_SIZE} x {GLYPH_SIZE}, and there are {names}"
        )
    return torch.from_numpy(np.concatenate(fonts, 1))


def render_glyphs(fonts: Sequence[str], tokens: Sequence[str], num_pixels: int) -> tuple[Tensor, int]:
    """Draw each token that is one character, from 0 (paper) to 1 (ink).

    Args:
        fonts: font files that Pillow reads, such as .ttf, .otf and .ttc. Where `num_pixels` asks for more
            fonts, they are used again from the first one on.
        tokens: V. "##" before a character is left out. Tokens of several characters, such as special tokens,
            have no picture.
        num_pixels: G.

    Returns:
        Pixels (V, G), and how many characters at least one font lacks; they have no picture in that font.

    Raises:
        MissingExtra: Pillow is not installed.
        ConfigError: a file is no font, or `num_pixels` is no multiple of the pixels of a picture.
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

    def draw(font: Any, character: str) -> npt.NDArray[np.float32]:
        image = Image.new("L", (GLYPH_SIZE, GLYPH_SIZE))
        ImageDraw.Draw(image).text(
            (GLYPH_SIZE / 2, GLYPH_SIZE / 2), character, fill=255, font=font, anchor="mm"
        )
        return np.asarray(image, np.float32).reshape(-1) / np.float32(255)

    table = np.zeros((len(tokens), num_pixels), np.float32)
    lacking: set[str] = set()
    drawn: dict[int, npt.NDArray[np.float32]] = {}
    for slot in range(num_pixels // _PIXELS):
        number = slot % len(opened)
        if number not in drawn:
            unknown = draw(opened[number], _NO_CHARACTER)
            drawn[number] = np.zeros((len(tokens), _PIXELS), np.float32)
            for row, token in enumerate(tokens):
                character = token.removeprefix("##")
                if len(character) != 1:
                    continue
                pixels = draw(opened[number], character)
                if np.array_equal(pixels, unknown):
                    lacking.add(character)
                else:
                    drawn[number][row] = pixels
        table[:, slot * _PIXELS : (slot + 1) * _PIXELS] = drawn[number]
    return torch.from_numpy(table), len(lacking)


class FrozenGlyphs(nn.Module):
    """A table that is not trained: no gradient, no moments, no decay."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", table)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of tokens, (n,) to (n, G)."""
        return self.weight[ids]


class ActiveGlyphs(nn.Module):
    """A table that is not trained, with only the rows of the training texts on the device.

    The whole table stays in main memory, for tokens of other rows and for saving.

    Args:
        table: (V, G).
        active: the tokens of the training rows, each once.
    """

    def __init__(self, table: Tensor, active: Tensor) -> None:
        super().__init__()
        index = torch.full((len(table),), len(active), dtype=torch.int64, device=active.device)
        index[active] = torch.arange(len(active), device=active.device)
        self.active_index: Tensor
        self.active_rows: Tensor
        self.register_buffer("active_index", index, persistent=False)
        self.register_buffer("active_rows", table[active.to(table.device)], persistent=False)
        self._full_table = table.cpu()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of tokens, (n,) to (n, G).

        Raises:
            IndexError: in training mode, on a CPU: a token is not active.
        """
        index = self.active_index[ids]
        if self.training:
            return self.active_rows[index]
        is_inactive = index == len(self.active_rows)
        rows = self.active_rows[index.masked_fill(is_inactive, 0)]
        rows[is_inactive] = self._full_table[ids[is_inactive].cpu()].to(rows.device)
        return rows

    def full_weight(self) -> Tensor:
        """Return the table (V, G)."""
        return self._full_table
