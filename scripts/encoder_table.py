"""Try every encoder class of the installed transformers in bertune, and write the table of docs/encoders.md.

    python scripts/encoder_table.py              # all classes, a few minutes; prints the table
    python scripts/encoder_table.py bert fnet    # some types
    python scripts/encoder_table.py --write      # puts the table into docs/encoders.md

For each type of model a tiny encoder with random weights is made and saved as transformers does it. Then
bertune loads it, its states are compared with transformers' own, row by row without padding, a few steps are
trained, and the saved folder is opened and compared. Whatever is refused must be refused by one message.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import io
import json
import logging
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, int] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "attention_head_size"), 8),
    **dict.fromkeys(
        ("intermediate_size", "hidden_dim", "d_inner", "d_ff", "ffn_dim", "moe_intermediate_size",
         "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "dff", "shared_expert_intermediate_size"), 64
    ),
    **dict.fromkeys(("vocab_size", "type_vocab_size_"), 120),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
}  # fmt: skip
"""Sizes of the tiny encoders, by the names that configurations give them."""
SPECIAL: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "d_model": 32, "n_head": 4},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
    "longformer": {"attention_window": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "lilt": {"hidden_size": 48, "max_2d_position_embeddings": 64},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "max_2d_position_embeddings": 64},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8], "attn_layers": ["local", "lsh"]},
    "big_bird": {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "convbert": {"num_groups": 1, "embedding_size": 32},
    "canine": {"local_transformer_stride": 8, "downsampling_rate": 2, "num_hash_buckets": 16},
    "esm": {"mask_token_id": 4, "pad_token_id": 1},
}
TEXTS = [
    "good red dog",
    "bad",
    "the house is big and the tree is small",
    "awful blue car",
    "fine cat",
    "a one two",
]
LENGTHS = [7, 3, 40, 33, 12, 7]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(" ".join(TEXTS)).split(),
    *"abcdefghijklmnopqrstuvwxyz0123456789",
]
TOLERANCE = 1e-4
MARKS = ("<!-- encoder table -->", "<!-- end of the table -->")
TRIED_HEADER = '''"""Types of transformers' models that run; `scripts/encoder_table.py --write` wrote this."""

from __future__ import annotations

'''
TRIED_END = (
    '"""Loaded, compared with transformers, trained and saved by that script, with random weights."""\n\n'
)
FP32_END = '"""Those of them that transformers cannot compute in bf16."""\n'
LARGEST = 20_000_000


def tiny_config(config_class: Any, model_type: str) -> Any:
    """Return a small configuration of a class."""
    fields = (
        {f.name: f for f in dataclasses.fields(config_class)}
        if dataclasses.is_dataclass(config_class)
        else {}
    )
    known = {*fields, *getattr(config_class, "attribute_map", {})}
    settings = {name: size for name, size in SIZES.items() if name in fields}
    for name, target in getattr(config_class, "attribute_map", {}).items():
        if name in SIZES and target in known and isinstance(target, str) and "." not in target:
            settings[target] = SIZES[name]
    for name, field in fields.items():
        if name.endswith("token_id") and isinstance(field.default, int) and field.default >= 100:
            settings[name] = 3
    settings |= SPECIAL.get(model_type, {})
    return config_class(**settings)


def write_tokenizer(folder: Path) -> None:
    """Write a WordPiece tokenizer of a few words."""
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(VOCABULARY)), encoding="utf-8")
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    (folder / "vocab.txt").unlink()


def ragged_batch(lengths: list[int]) -> Any:
    """Return rows of random ids as bertune packs them."""
    from bertune.types import Ragged

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 50, (sum(lengths),), generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Ragged(ids, torch.zeros_like(ids), offsets, tuple(lengths))


def states_of_transformers(folder: Path, ragged: Any, takes_mask: bool) -> torch.Tensor:
    """Return the states of each row alone, by transformers itself."""
    from transformers import AutoModel

    rows = []
    for start, stop in zip(ragged.offsets[:-1], ragged.offsets[1:], strict=True):
        # a new model for each row: BigBird changes itself when a row is short
        model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        ids = ragged.input_ids[None, start:stop]
        mask: dict[str, Any] = {"attention_mask": torch.ones_like(ids)} if takes_mask else {}
        if "use_cache" in inspect.signature(model.forward).parameters:
            mask["use_cache"] = False
        with torch.no_grad():
            rows.append(model(input_ids=ids, **mask).last_hidden_state[0])
    return torch.cat(rows)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-9))


def try_type(model_type: str, config_class: Any, work: Path) -> dict[str, Any]:
    """Try one type of model; return `result` (runs, refused, or a failure) and details."""
    from transformers import AutoModel

    from bertune.encoders.auto_load import reason_to_refuse
    from bertune.errors import BertuneError

    try:
        config = tiny_config(config_class, model_type)
        reason = reason_to_refuse(config)
    except Exception as error:
        reason = ""
        with contextlib.suppress(Exception):
            reason = reason_to_refuse(config_class())
        if not reason:
            return {"result": "no tiny configuration", "why": repr(error)[:300]}
    if reason:
        return {"result": "refused", "why": reason}
    folder = work / model_type
    folder.mkdir()
    torch.manual_seed(0)
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModel.from_config(config, dtype=torch.float32).parameters())
        if size > LARGEST:
            return {"result": "no tiny model", "why": f"{size / 1e6:.0f} M parameters"}
        model = AutoModel.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        takes_mask = "attention_mask" in inspect.signature(type(model).forward).parameters
        del model
    except Exception as error:
        return {"result": "no tiny model", "why": repr(error)[:300]}
    write_tokenizer(folder)
    try:
        return _run(folder, takes_mask)
    except BertuneError as error:
        return {"result": "refused", "why": str(error)}
    except Exception:
        return {"result": "TRACEBACK", "why": traceback.format_exc()[-700:]}


def _run(folder: Path, takes_mask: bool) -> dict[str, Any]:
    import bertune
    from bertune.encoders.load import load_encoder
    from bertune.types import Numerics

    encoder, report = load_encoder(folder)
    encoder.eval()  # type: ignore[attr-defined]
    ragged = ragged_batch(LENGTHS)
    with torch.no_grad():
        ours = encoder(ragged)
        theirs = states_of_transformers(folder, ragged, takes_mask)
        longest = ragged_batch([min(encoder.max_positions, 512)])
        encoder(longest)
        encoder.set_numerics(Numerics("bf16"))
    found: dict[str, Any] = {
        "difference": difference(ours, theirs),
        "notes": report.notes,
        "precision": encoder.numerics.precision,
        "by_length": getattr(encoder, "one_length_at_a_time", False),
        "native": type(encoder).__module__,
        "packed": getattr(encoder, "_packed", True),
    }
    rows = [{"text": text, "label": "+" if number % 2 else "-"} for number, text in enumerate(TEXTS * 2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": "classify",
        "model": str(folder),
        "out": str(folder / "out"),
        "data": {"train": str(folder / "rows.jsonl"), "dev": str(folder / "rows.jsonl")},
        "options": {"pooling": "mean"},
        "train": {"max_steps": 2, "batch_size": 6, "precision": "bf16", "checkpoint_every": "never"},
    }
    bertune.train(settings, quiet=True)
    pipeline = bertune.load(folder / "out", precision="fp32")
    again = bertune.load(folder / "out", precision="fp32")
    first, second = pipeline.predict(TEXTS), again.predict(TEXTS[::-1])[::-1]
    found["saved"] = max(abs(a.confidence - b.confidence) for a, b in zip(first, second, strict=True))
    found["class"] = encoder.hf_class
    found["result"] = "runs" if found["difference"] < TOLERANCE else "DIFFERS"
    return found


def table_lines(results: dict[str, Any]) -> list[str]:
    """Return the lines between the marks of docs/encoders.md."""
    import transformers

    lines = [f"Made by `scripts/encoder_table.py` with transformers {transformers.__version__}.", ""]
    lines += ["| type | class | how | precision |", "|---|---|---|---|"]
    for name, found in results.items():
        if found["result"] == "runs":
            low = "bf16" if found["precision"] == "bf16" else "fp32 alone"
            lines.append(f"| {name} | {found['class']} | {_how(found)} | {low} |")
    groups: dict[str, list[str]] = {}
    for name, found in results.items():
        if found["result"] != "runs":
            groups.setdefault(_group(found), []).append(name)
    lines += ["", "All other types, by what bertune says of them:"]
    for reason, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        text = f"**{reason}** ({len(names)}): {', '.join(names)}."
        lines += ["", *textwrap.wrap(text, 108, break_long_words=False, break_on_hyphens=False)]
    return lines


def _how(found: dict[str, Any]) -> str:
    if found["native"] == "bertune.encoders.bert":
        return "bertune's own BERT"
    if found["by_length"]:
        return "rows of one length at a time"
    return "without padding" if found["packed"] else "padded"


def _group(found: dict[str, Any]) -> str:
    if found["result"] == "refused":
        reason = found["why"].partition(" can run: ")[2] or found["why"]
        reason = reason.partition("; give another")[0].partition(" of type")[0]
        known = {
            "a trial with": "refused: the trial with a short text fails",
            "transformers cannot import": "refused: a package is missing",
            "it also needs": "refused: it needs more than the ids of tokens",
            "it reads": "refused: it reads no ids of tokens",
        }
        return next(
            (group for begin, group in known.items() if reason.startswith(begin)), f"refused: {reason}"
        )
    return "no tiny model could be made here; it is tried when it is opened"


def write_files(results: dict[str, Any]) -> None:
    """Write the table into docs/encoders.md, and the types that run into encoders/tried.py."""
    root = Path(__file__).parent.parent
    page = root / "docs" / "encoders.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    table = "\n".join(table_lines(results))
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
    runs = {name: found for name, found in results.items() if found["result"] == "runs"}
    slow = [name for name, found in runs.items() if found["precision"] == "fp32"]
    text = f"{TRIED_HEADER}{_python_set('TRIED', runs)}{TRIED_END}{_python_set('FP32_ALONE', slow)}{FP32_END}"
    (root / "src" / "bertune" / "encoders" / "tried.py").write_text(text, encoding="utf-8")


def _python_set(name: str, members: Iterable[str]) -> str:
    wrapped = textwrap.wrap(" ".join(f'"{member}",' for member in members), 100, break_on_hyphens=False)
    lines = "".join(f"    {line}\n" for line in wrapped)
    return f"{name}: frozenset[str] = frozenset({{\n{lines}}})  # fmt: skip\n"


def main() -> None:
    """Try the types that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("types", nargs="*")
    parser.add_argument("--json", type=Path, help="a file for all that was found")
    parser.add_argument("--write", action="store_true", help="write docs/encoders.md and encoders/tried.py")
    parser.add_argument("--from-json", action="store_true", help="take what --json has found before")
    arguments = parser.parse_args()
    if arguments.from_json:
        write_files(json.loads(arguments.json.read_text()))
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    results: dict[str, Any] = {}
    for model_type in arguments.types or sorted(MODEL_MAPPING_NAMES):
        with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(io.StringIO()):
            try:
                config_class = CONFIG_MAPPING[model_type]
            except Exception as error:
                results[model_type] = {"result": "no class", "why": repr(error)[:300]}
                continue
            results[model_type] = try_type(model_type, config_class, Path(work))
        print(model_type, json.dumps(results[model_type], default=str)[:400], flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1, default=str))
    if arguments.write:
        write_files(results)


if __name__ == "__main__":
    main()
