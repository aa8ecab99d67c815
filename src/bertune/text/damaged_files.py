"""What a file really is, by its first bytes, where a model's file was expected."""

from __future__ import annotations

from pathlib import Path

_AGAIN = "download the file itself"
_BEGINNINGS: dict[bytes, str] = {
    b"version https://git-lfs": "is a pointer of git LFS, not the file: run `git lfs pull` in its folder, "
    f"or {_AGAIN}",
    b"<!doctype html": f"is a web page (HTML), not the file: {_AGAIN}",
    b"<html": f"is a web page (HTML), not the file: {_AGAIN}",
    b"<?xml": f"is XML, most often the refusal of a server, not the file: {_AGAIN}",
    b"entry not found": f"holds a message of the Hub (Entry not found), not the file: {_AGAIN}",
    b"repository not found": f"holds a message of the Hub (Repository not found), not the file: {_AGAIN}",
    b"invalid username or password": f"holds a message of the Hub (no access), not the file: {_AGAIN}",
    b'{"error"': f"holds the refusal of a server, not the file: {_AGAIN}",
    b"access to model": f"holds a message of the Hub (no access), not the file: {_AGAIN}",
    b"\x1f\x8b": "is packed by gzip: unpack it",
    b"\x89hdf": "is a file of HDF5, as TensorFlow and Keras write it",
    b"gguf": "is a file for llama.cpp (GGUF)",
    b"7z\xbc\xaf": "is a 7z archive: unpack it",
    b"rar!": "is a RAR archive: unpack it",
}
_ZIPPED_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}
"""Files that torch writes as zip archives."""


def describe_damage(path: Path) -> str:
    """Return what stands in a file's place, and what to do; "" where its first bytes say nothing.

    A file that cannot be read says nothing here: whoever reads it reports that.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError:
        return ""
    if not begin:
        return f"is empty: {_AGAIN}"
    if begin.startswith(b"PK\x03\x04") and path.suffix not in _ZIPPED_SUFFIXES:
        return "is a zip archive: unpack it"
    if not begin.strip(b"\x00"):
        return f"holds zeros, as a broken download does: {_AGAIN}"
    low = begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((text for beginning, text in _BEGINNINGS.items() if low.startswith(beginning)), "")
