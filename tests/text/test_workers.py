"""Processes that tokenise begin fast and small: without torch, whatever the tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bertune
from bertune.text import workers

PACKAGE = Path(bertune.__file__).parent


@pytest.mark.parametrize("module", ["tokenizer", "pinyin_tokenizer", "workers", "load"])
def test_a_process_that_tokenises_loads_no_torch(module):
    begin = workers._BEGIN.replace("serve()\n", "").replace("pickle.load(sys.stdin.buffer)", repr(sys.path))
    heavy = "{'torch', 'transformers'}"
    program = f"{begin}\nimport bertune.text.{module}\nprint(sorted({heavy} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
