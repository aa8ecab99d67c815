"""What stands in the place of a model's files: pointers, web pages, pieces, weights of other programs.

Loads no torch.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from bertune.text.damaged_files import describe_damage

OTHER_WEIGHTS = {
    "tf_model.h5": "weights of TensorFlow",
    "tf_model.h5.index.json": "weights of TensorFlow",
    "*.ckpt.index": "weights of TensorFlow 1",
    "model.ckpt*": "weights of TensorFlow 1",
    "saved_model.pb": "a SavedModel of TensorFlow",
    "flax_model.msgpack": "weights of Flax",
    "adapter_model.safetensors": "an adapter (PEFT) without the model that it changes",
    "adapter_model.bin": "an adapter (PEFT) without the model that it changes",
    "*.gguf": "weights for llama.cpp",
    "*.onnx": "a graph for ONNX",
    "*.ot": "weights for Rust",
    "*.mlpackage": "a model for Core ML",
}
"""Patterns of files that bertune does not read, and what they are."""
_READABLE = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")


def check_weight_file(path: Path) -> str:
    """Say what is wrong with a file of weights, by its first bytes and its size; "" where nothing is."""
    damage = describe_damage(path)
    if damage:
        return damage
    if path.suffix != ".safetensors":
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        return "is cut or damaged; download it again" if is_zip and not zipfile.is_zipfile(path) else ""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return "is cut, or no file of safetensors" if length < 1 << 27 else "is no file of safetensors"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "is no file of safetensors"
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        return f"is cut: {size:,} of {wanted:,} bytes are there; download it again"
    return ""


def describe_other_weights(folder: Path) -> str:
    """Say which weights a folder holds that bertune does not read as they are, and what to do; "" if none."""
    for pattern, kind in OTHER_WEIGHTS.items():
        found = next(iter(sorted(folder.glob(pattern))), None)
        if found is not None:
            return f"; it holds {found.name}, {kind}: {_way_out(kind, folder)}"
    files = [file for pattern in _READABLE for file in sorted(folder.glob(pattern))]
    files = [file for file in files if not file.name.startswith(_NO_WEIGHTS)]
    if files:
        target = "model.safetensors" if files[0].suffix == ".safetensors" else "pytorch_model.bin"
        return f"; if {files[0].name} holds them, rename it to {target}"
    return ""


def _way_out(kind: str, folder: Path) -> str:
    if "TensorFlow 1" in kind:
        return "convert them with `transformers-cli convert` of transformers 4, or take the PyTorch release"
    if "weights of TensorFlow" in kind or "Flax" in kind:
        option = "from_flax" if "Flax" in kind else "from_tf"
        return (
            "convert them once, with transformers 4: "
            f"AutoModel.from_pretrained({str(folder)!r}, {option}=True).save_pretrained(NEW)"
        )
    if "PEFT" in kind:
        return "merge it into its model (merge_and_unload of peft), save that, and give its folder"
    return "give the folder of the PyTorch release"
