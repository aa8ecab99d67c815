"""Out of memory: how it is recognised."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was short: of a GPU, of Apple's, or of the processor."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)
