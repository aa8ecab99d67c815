"""WordPiece for plain English words, without the Rust tokenizer."""

from __future__ import annotations

import re
from typing import Any


class AsciiWordPiece:
    """BERT's tokenizer for words of printable ASCII without added tokens: a few dictionary look-ups.

    Runs of letters and digits, and single signs, are split from left to right into the longest pieces that
    the vocabulary has.

    Source: Wu et al. 2016, arXiv 1609.08144 (WordPiece); BertPreTokenizer and WordPiece of tokenizers.
    """

    def __init__(self, model: dict[str, Any], *, lower: bool, excluded: set[str]) -> None:
        self._vocabulary: dict[str, int] = model["vocab"]
        self._prefix: str = model["continuing_subword_prefix"]
        self._max_letters: int = model["max_input_chars_per_word"]
        self._unknown = [self._vocabulary[model["unk_token"]]]
        self._lower = lower
        self._excluded = excluded
        signs = re.escape("".join(excluded))
        self._other = re.compile(f"[^\t\n\r -~]|[{signs}]" if excluded else "[^\t\n\r -~]")
        self._find_parts = re.compile("[A-Za-z0-9]+|[!-/:-@\\[-`{-~]").findall

    @classmethod
    def from_tokenizer_json(cls, tokenizer_json: dict[str, Any]) -> AsciiWordPiece | None:
        """Return one for a tokenizer.json; None where an added token may be part of a word."""
        added = [token["content"] for token in tokenizer_json.get("added_tokens") or ()]
        if (
            any(token.isalnum() for token in added)
            or tokenizer_json["model"]["unk_token"] not in tokenizer_json["model"]["vocab"]
        ):
            return None
        excluded = {sign for token in added for sign in token if not sign.isalnum()}
        lower = bool(tokenizer_json["normalizer"]["lowercase"])
        return cls(tokenizer_json["model"], lower=lower, excluded=excluded)

    def split(self, text: str) -> list[str] | None:
        """Return the runs and signs of a text in the case of the vocabulary.

        None where the text has anything but printable ASCII and blanks, or a sign of an added token.
        """
        # faster than the search below
        is_plain = text.isascii() and text.isprintable() and not any(sign in text for sign in self._excluded)
        if not is_plain and self._other.search(text):
            return None
        parts: list[str] = self._find_parts(text.lower() if self._lower else text)
        return parts

    def __call__(self, word: str) -> list[int] | None:
        """Return the ids of a word; None where `split` does."""
        parts = self.split(word)
        return None if parts is None else [token for part in parts for token in self._pieces(part)]

    def _pieces(self, part: str) -> list[int]:
        if len(part) > self._max_letters:
            return self._unknown
        ids, start, get = [], 0, self._vocabulary.get
        while start < len(part):
            rest = self._prefix + part[start:] if start else part
            for end in range(len(rest), len(rest) - len(part) + start, -1):
                token = get(rest[:end])
                if token is not None:
                    break
            else:
                return self._unknown
            ids.append(token)
            start += end - (len(rest) - len(part) + start)
        return ids
