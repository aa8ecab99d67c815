"""Maps of characters: the normalizer of tokenizers that reads them does what the map says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import Precompiled

from bertune.text.charsmap import encode_charsmap

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@given(st.dictionaries(CHARACTERS, st.text(CHARACTERS, max_size=3), max_size=60), st.lists(CHARACTERS))
def test_each_character_becomes_what_the_map_says(replacements, others):
    normalizer = Precompiled(encode_charsmap(replacements))
    for character in {*replacements, *others}:
        assert normalizer.normalize_str(character) == replacements.get(character, character)


def test_a_large_map():
    """More characters than one block of 256 units holds, with values of all lengths."""
    replacements = {chr(c): chr(c + 1) * (c % 4) for c in range(0x3400, 0x9000, 3)}
    normalizer = Precompiled(encode_charsmap(replacements))
    wrong = [
        c for c in range(1, 0xD800) if normalizer.normalize_str(chr(c)) != replacements.get(chr(c), chr(c))
    ]
    assert wrong == []


def test_sequences_are_replaced_as_a_whole():
    normalizer = Precompiled(encode_charsmap({"e\u0301": "é", "o\u0302\u0301": "ố", "①": "1"}))
    assert normalizer.normalize_str("cafe\u0301 o\u0302\u0301 ①② e o\u0302") == "café ố 1② e o\u0302"


def test_nothing_is_replaced_without_a_map():
    assert Precompiled(encode_charsmap({})).normalize_str("a é 好") == "a é 好"


@pytest.mark.parametrize("replacements", [{"": "a"}, {"a\0": "b"}, {"a": "\0"}])
def test_what_the_form_cannot_say_is_refused(replacements):
    with pytest.raises(ValueError, match="empty text or a zero character"):
        encode_charsmap(replacements)
