"""Speed and memory of bertune's sentence vectors and of sentence-transformers: same machine, folder, texts.

    python benchmarks/encode.py encode FOLDER --rounds 3 --out encode.jsonl
    python benchmarks/encode.py encode FOLDER --texts mixed --tools bertune default sorted
    python benchmarks/encode.py encode FOLDER --onnx-python ONNX/bin/python --openvino-python OV/bin/python
    python benchmarks/encode.py train --limit 2048 --rounds 3
    python benchmarks/encode.py cold FOLDER
    python benchmarks/encode.py corpus FOLDER --rows 200000 --peer sorted

FOLDER is one that sentence-transformers opens too: what `bertune train match` or `embed` has written.
BERTUNE_DATA is the folder of the data, BERTUNE_M3E that of m3e-small. Tools are measured in turn, A B C, C B
A, ..., each time in a new process; a ratio above 1 speaks for bertune.

encode  Texts a second of texts to vectors of length 1 in their order, tokenization included, loading and a
        first batch not. The texts are those of STS-B dev (both sides), the lines of a file, or `mixed`
        (Chinese and English in turn). `int8` is bertune with products in int8. Peers: `default` as it comes;
        `sorted` in bf16 where the processor has units for it, given batches of 32 sorted by tokens; `onnx`
        and `openvino` in int8, sorted too, by the Python of an environment that has optimum's packages.
        Spearman is that of the cosines on STS-B dev.
train   Rows a second of one epoch of `--limit` rows, batch 64, loss and precision the same, evaluation and
        saving not counted.
cold    Seconds of a whole process that makes the vector of one line.
corpus  Seconds and peak resident memory of a process that writes the vectors of many short texts to a .npy
        file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speed import Failed, call, orders

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
Result = dict[str, Any]
BATCH = 32
OURS = {"bertune": "auto", "int8": "int8"}
"""Our tools, and their precision."""
TRAIN = ("stsb-en-cosent", "simclue-negatives")
LINE = "a gripping , funny and altogether human film ."
COLD = (
    "import sys; from sentence_transformers import SentenceTransformer; "
    "print(SentenceTransformer(sys.argv[1], device='cpu').encode(sys.stdin.readline().strip()).tolist())"
)


def lines(path: str | Path) -> list[str]:
    return [line for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]


def stsb(part: str) -> list[list[str]]:
    return [line.split("\t") for line in lines(DATA / f"glue/STS-B/{part}.tsv")[1:]]


def texts_of(name: str) -> list[str]:
    if name == "stsb":
        return [row[side] for side in (7, 8) for row in stsb("dev")]
    if name == "mixed":
        zh, en = titles(), lines(DATA / "raw-en/sentence-collector.en.txt")
        drawn = random.Random(42)
        return list(
            itertools.chain.from_iterable(zip(drawn.sample(zh, 1500), drawn.sample(en, 1500), strict=True))
        )
    return lines(name)


def titles() -> list[str]:
    return [line.split("\t")[0] for part in ("train", "dev") for line in lines(DATA / f"tnews/{part}.tsv")]


# One measurement, in a process of its own


def has_bf16() -> bool:
    """The peer's Python may have no bertune."""
    flags = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").exists() else []
    )
    return "amx_bf16" in flags or "avx512_bf16" in flags


def load_ours(spec: Result) -> Callable[[list[str]], Any]:
    import bertune

    model = bertune.load(spec["folder"], device="cpu", precision=OURS[spec["tool"]])
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def load_theirs(spec: Result) -> Callable[[list[str]], Any]:
    import torch
    from sentence_transformers import SentenceTransformer

    tool, threads = spec["tool"], spec.get("threads")
    more: Result = {}
    if tool == "sorted" and has_bf16():
        more = {"model_kwargs": {"dtype": torch.bfloat16}}
    elif tool == "onnx":
        import onnxruntime

        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads or 0
        kwargs = {
            "file_name": "onnx/model_qint8_avx512_vnni.onnx",
            "provider": "CPUExecutionProvider",
            "session_options": session,
        }
        more = {"backend": "onnx", "model_kwargs": kwargs}
    elif tool == "openvino":
        config = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        more = {
            "backend": "openvino",
            "model_kwargs": {"file_name": "openvino_model_qint8_quantized.xml", "ov_config": config},
        }
    model = SentenceTransformer(spec["folder"], device="cpu", **more)

    def plain(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

    return plain if tool == "default" else by_tokens(model.tokenizer, plain)


def by_tokens(tokenizer: Any, encode: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """Encode batches of similar length in tokens, one at a time: `encode` sorts all texts by characters."""
    import numpy as np

    def sorted_first(texts: list[str]) -> Any:
        lengths = [len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]
        order = sorted(range(len(texts)), key=lambda n: -lengths[n])
        parts = [encode([texts[n] for n in order[at : at + BATCH]]) for at in range(0, len(order), BATCH)]
        vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(parts)
        return vectors

    return sorted_first


def encode(spec: Result) -> Result:
    import numpy as np

    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    model = (load_ours if spec["tool"] in OURS else load_theirs)(spec)
    model(texts[:BATCH])
    began = time.perf_counter()
    vectors = model(texts)
    seconds = time.perf_counter() - began
    result = {"per_s": len(texts) / seconds, "seconds": seconds, "width": vectors.shape[1]}
    if spec["score"]:
        from scipy.stats import spearmanr

        a, b = np.split(np.asarray(model(texts_of("stsb")), np.float32), 2)
        result["spearman"] = float(
            spearmanr([float(row[9]) for row in stsb("dev")], (a * b).sum(1)).statistic
        )
    if spec.get("save"):
        np.save(spec["save"], vectors)
    return result


def train(spec: Result) -> Result:
    import embedding

    args = argparse.Namespace(limit=spec["limit"], epochs=1, batch=64, rate=None, overrides=[])
    run = embedding.run_of(spec["work"], args)
    run.rows["dev"] = run.rows["dev"][:33]  # bertune looks at it at the end, which is not measured
    seconds = embedding.TOOLS[spec["tool"]](run, spec["seed"], score=False)["seconds"]
    return {"per_s": len(run.rows["train"]) / seconds, "seconds": seconds, "rows": len(run.rows["train"])}


def export(spec: Result) -> Result:
    """Write the folder of a quantized model; OpenVINO's is calibrated on the first side of STS-B train."""
    from sentence_transformers import (
        SentenceTransformer,
        export_dynamic_quantized_onnx_model,
        export_static_quantized_openvino_model,
    )

    place, backend = spec["out"], spec["tool"]
    model = SentenceTransformer(spec["folder"], device="cpu", backend=backend, model_kwargs={"export": True})
    model.save_pretrained(place)
    if backend == "onnx":
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", place)
    else:
        rows = Path(place, "calibration")
        rows.mkdir()
        Path(rows, "train.jsonl").write_text(
            "".join(json.dumps({"text": row[7]}) + "\n" for row in stsb("train")), encoding="utf-8"
        )
        where = {
            "dataset_name": str(rows),
            "dataset_config_name": "default",
            "dataset_split": "train",
            "column_name": "text",
        }
        export_static_quantized_openvino_model(model, None, place, **where)
    return {}


WHAT = {"encode": encode, "train": train, "export": export}


def worker(spec: Result) -> None:
    if spec["tool"] in OURS and spec["what"] != "encode":  # which is a call of the library for all tools
        from peers import as_the_command_line

        result = as_the_command_line(lambda: WHAT[spec["what"]](spec))
    else:
        result = WHAT[spec["what"]](spec)
    print(json.dumps(result))


# All measurements


def measure(spec: Result, args: argparse.Namespace) -> Result:
    python = {"onnx": args.onnx_python, "openvino": args.openvino_python}.get(spec["tool"], sys.executable)
    spec = {**spec, "threads": args.threads}
    return json.loads(call([python, __file__, "worker", json.dumps(spec)], args.threads)[0].splitlines()[-1])


def rounds_of(
    name: str, tools: Sequence[str], args: argparse.Namespace, one: Callable[[str, int], Result]
) -> list[Result]:
    found = []
    for seed, order in orders(tools, args.rounds):
        results = {}
        for tool in order:
            results[tool] = one(tool, seed)
            print(
                name,
                f"round {seed}",
                tool,
                json.dumps({k: v if isinstance(v, str) else round(v, 4) for k, v in results[tool].items()}),
                flush=True,
            )
        found.append(results)
    return found


def tell(name: str, tools: Sequence[str], rounds: list[Result], key: str) -> Result:
    """Medians and ratios; of what ends in `_s` as in per_s more is better, of seconds less."""
    said: Result = {tool: {key: statistics.median(r[tool][key] for r in rounds)} for tool in tools}
    for tool in tools:
        if "spearman" in rounds[0][tool]:
            said[tool]["spearman"] = rounds[0][tool]["spearman"]
        for ours in (name for name in OURS if name in tools and name != tool and tool not in OURS):
            each = [r[ours][key] / r[tool][key] for r in rounds]
            if key == "seconds":
                each = [1 / ratio for ratio in each]
            said[tool] |= {
                f"{ours}_ratio": statistics.median(each),
                f"{ours}_low": min(each),
                f"{ours}_high": max(each),
            }
    for tool in tools:
        print(name, "median", tool, ", ".join(f"{k} {v:.4g}" for k, v in said[tool].items()), flush=True)
    return said


def run_encode(args: argparse.Namespace, place: str) -> Result:
    texts = texts_of(args.texts)
    Path(place, "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    print(
        f"{len(texts)} texts, {len(set(texts))} different ones, "
        f"{sum(map(len, texts)) / len(texts):.1f} characters each"
    )
    folders = {}
    for tool in args.tools:
        folders[tool] = args.folder
        if tool in {"onnx", "openvino"}:
            folders[tool] = f"{place}/{tool}"
            measure({"what": "export", "tool": tool, "folder": args.folder, "out": folders[tool]}, args)

    def one(tool: str, seed: int) -> Result:
        return measure(
            {
                "what": "encode",
                "tool": tool,
                "folder": folders[tool],
                "texts": f"{place}/texts.json",
                "score": seed == 1,
            },
            args,
        )

    rounds = rounds_of("encode", args.tools, args, one)
    return {"rounds": rounds, "said": tell("encode", args.tools, rounds, "per_s")}


def run_train(args: argparse.Namespace, _: str) -> Result:
    found: Result = {}
    tools = ["bertune", "peer"]
    for work in args.works:

        def one(tool: str, seed: int, work: str = work) -> Result:
            return measure(
                {"what": "train", "tool": tool, "work": work, "limit": args.limit, "seed": seed}, args
            )

        rounds = rounds_of(f"train {work}", tools, args, one)
        found[work] = {"rounds": rounds, "said": tell(f"train {work}", tools, rounds, "per_s")}
    return found


def bertune_command() -> str:
    return str(Path(sysconfig.get_path("scripts")) / "bertune")


def run_cold(args: argparse.Namespace, _: str) -> Result:
    commands = {
        "bertune": [bertune_command(), "embed", args.folder, "-"],
        "peer": [sys.executable, "-c", COLD, args.folder],
    }
    for command in commands.values():
        call(command, args.threads, f"{LINE}\n")  # so that nobody is the first to read files from the disk

    def one(tool: str, _: int) -> Result:
        printed, seconds = call(commands[tool], args.threads, f"{LINE}\n")
        return {"seconds": seconds, "printed": printed.strip()[:60]}

    rounds = rounds_of("cold", list(commands), args, one)
    return {"rounds": rounds, "said": tell("cold", list(commands), rounds, "seconds")}


def watched(command: list[str], threads: int | None) -> Result:
    """Run a process; return seconds and its peak resident memory, that of no child."""
    environment = {
        **os.environ,
        **({"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {}),
    }
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise Failed(
                f"{shlex.join(command)}\n{said.read().decode()[-3000:]}\nexit code {process.returncode}"
            )
    return {"seconds": seconds, "peak_gb": usage.ru_maxrss * 1024 / 1e9}  # Linux counts in KiB


def run_corpus(args: argparse.Namespace, place: str) -> Result:
    import numpy as np

    short = titles()
    texts = [f"{short[n % len(short)]} {n}" for n in range(args.rows)]
    Path(place, "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    Path(place, "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    commands = {
        "bertune": [
            bertune_command(),
            "embed",
            args.folder,
            f"{place}/texts.txt",
            "-o",
            f"{place}/bertune.npy",
        ]
    }
    for tool in args.peer:
        spec = {
            "what": "encode",
            "tool": tool,
            "folder": args.folder,
            "texts": f"{place}/texts.json",
            "score": False,
            "save": f"{place}/{tool}.npy",
        }
        commands[tool] = [sys.executable, __file__, "worker", json.dumps(spec)]
    found: Result = {}
    for tool in args.tools or commands:
        found[tool] = watched(commands[tool], args.threads)
        vectors = np.load(f"{place}/{tool}.npy", mmap_mode="r")
        found[tool] |= {
            "rows": vectors.shape[0],
            "width": vectors.shape[1],
            "per_s": len(texts) / found[tool]["seconds"],
        }
        print("corpus", tool, json.dumps(found[tool]), flush=True)
        if len(vectors) != len(texts):
            raise Failed(f"{tool} wrote {len(vectors)} vectors of {len(texts)} texts")
    return found


RUNS = {"encode": run_encode, "train": run_train, "cold": run_cold, "corpus": run_corpus}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("folder", nargs="?", help="of a model of sentence vectors; not for train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tools",
        nargs="+",
        help="encode: of bertune, int8, default, sorted, onnx, openvino; corpus: without, all",
    )
    parser.add_argument("--texts", default="stsb", help="encode: stsb, mixed, or a file with a text a line")
    parser.add_argument(
        "--onnx-python",
        help="Python with optimum-onnx, onnxruntime and a sentence-transformers that goes with them",
    )
    parser.add_argument("--openvino-python", help="Python with optimum-intel, openvino and nncf")
    parser.add_argument("--works", nargs="+", default=TRAIN, help="train: works of embedding.py")
    parser.add_argument("--limit", type=int, default=2048, help="train: rows")
    parser.add_argument("--rows", type=int, default=200_000, help="corpus: texts")
    parser.add_argument(
        "--peer", nargs="*", default=[], choices=["default", "sorted"], help="corpus: also these peers"
    )
    parser.add_argument("--threads", type=int, help="threads of every process; without it torch's default")
    parser.add_argument("--out", help="file to add a line of JSON to")
    args = parser.parse_args()
    if args.what != "train" and not Path(args.folder or "").is_dir():
        parser.error("give the folder of a model")
    if args.what == "encode":
        own = [tool for tool in ("onnx", "openvino") if getattr(args, f"{tool}_python")]
        args.tools = args.tools or ["bertune", "default", "sorted", *own]
        missing = [tool for tool in args.tools if tool in {"onnx", "openvino"} and tool not in own]
        if missing:
            parser.error(f"{missing[0]} needs --{missing[0]}-python")
    return args


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(json.loads(sys.argv[2]))
        return
    args = arguments()
    try:
        with tempfile.TemporaryDirectory() as place:
            found = RUNS[args.what](args, place)
    except Failed as error:
        raise SystemExit(f"error: {error}") from None
    if args.out:
        with Path(args.out).open("a", encoding="utf-8") as file:
            file.write(
                json.dumps(
                    {"command": shlex.join(sys.argv), "what": args.what, "found": found}, ensure_ascii=False
                )
                + "\n"
            )


if __name__ == "__main__":
    main()
