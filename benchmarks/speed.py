"""Speed and memory of bertune and of transformers' Trainer: same machine, rows, batch size, model.

    export BERTUNE_DATA=DATA BERTUNE_M3E=M3E
    python benchmarks/speed.py train chnsenticorp --rounds 3 --out speed.jsonl
    python benchmarks/speed.py train all
    python benchmarks/speed.py train chnsenticorp --precision fp32
    python benchmarks/speed.py switches tnews
    python benchmarks/speed.py predict sst2
    python benchmarks/speed.py memory xlmr
    python benchmarks/speed.py reach chnsenticorp
    python benchmarks/speed.py cold [OUT]

Tools are measured in turn, A B C, C B A, ..., each time in a new process (`peers.py`, which tells what
`default` and `best` are). The process of bertune has the environment that its command line gives itself, the
peer's has the plain one. Every round has its own seed, so its own rows. Printed at the end: medians, their
ratio, and the lowest and highest ratio of a round; a ratio above 1 speaks for bertune.

train    Rows a second of `--steps` optimizer steps after `--warm` others, from the end of the last of these
         to the end of the last step: making of batches, forward, backward, clipping and optimizer; reading
         and encoding of the data, evaluation and saving are not in it. The rows are those that bertune draws
         from the whole training file; the peer gets exactly them, which is checked. `default` on slow works
         gets some of them, spread evenly over their lengths.
switches The same of bertune alone, each time with one thing switched off that makes it fast: what that thing
         is worth.
predict  Rows a second of texts to labels in their order, tokenization included, loading not. Both open the
         same folder.
memory   Peak resident memory of a process that has read all rows and done `--steps` steps; xlmr has random
         weights in the shape of XLM-R-base with its 250,002 word vectors, and m3e-small's tokenizer.
reach    Seconds of training and evaluation until the peer's last dev accuracy is first seen: the peer
         evaluates after every epoch, bertune every `--eval-every` steps, saving what is best. Settings and
         number of epochs are the same.
cold     Seconds of a whole process that labels one line: `bertune predict OUT -`, and
         transformers.pipeline(..., OUT).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
PEERS = Path(__file__).with_name("peers.py")
Result = dict[str, Any]
Round = dict[str, Result]

CHN = [
    f"data.train={DATA}/chnsenticorp/train.tsv",
    f"data.dev={DATA}/chnsenticorp/dev.tsv",
    "data.columns=[text,label]",
]
TNEWS = [f"data.train={DATA}/tnews/train.tsv", f"data.dev={DATA}/tnews/dev.tsv", "data.columns=[text,label]"]
SST2 = [f"data.train={DATA}/glue/SST-2/train.tsv", f"data.dev={DATA}/glue/SST-2/dev.tsv"]


@dataclass(frozen=True)
class Work:
    """Data, model and how much of it is measured; steps of `default` are fewer where it takes long."""

    model: str
    settings: list[str]
    steps: int
    default_steps: int
    epochs: int = 1
    eval_every: int = 50


WORKS = {
    "chnsenticorp": Work("m3e", [*CHN, "data.max_length=256"], 30, 10, epochs=2, eval_every=50),
    "tnews": Work("m3e", [*TNEWS, "data.max_length=128"], 90, 30, eval_every=200),
    "sst2": Work("minilm", [*SST2, "data.max_length=128"], 90, 30, eval_every=200),
    "bert-base": Work("bert-base", [*CHN, "data.max_length=256"], 12, 4),
    "xlmr": Work("xlmr", [*TNEWS, "data.max_length=128", "data.limit=10000"], 12, 6),
}
ALL = ("chnsenticorp", "tnews", "sst2", "bert-base")
SWITCHES: dict[str, Result] = {
    "fp32": {"precision": "fp32"},
    "exact-dropout": {
        "settings": ["train.fast_dropout=false"]
    },  # torch's dropout, and with it torch's attention
    "all-words": {"settings": ["train.active_vocabulary=false"]},
    "whole-last-layer": {"settings": ["options.pooling=mean"]},  # a head that reads all tokens
    "pages-given-back": {"environment": {"BERTUNE_KEEP_PAGES": "0"}},
}
"""What is switched off, and how."""
FIGURES = {
    "train": ("rows_per_s", "rows/s"),
    "switches": ("rows_per_s", "rows/s"),
    "predict": ("rows_per_s", "rows/s"),
    "memory": ("peak_gb", "GB"),
    "cold": ("process_s", "s"),
}
"""What is compared, and its unit. More is better where it says rows/s."""
MEMORY_STEPS = 5
LINE = "a gripping , funny and altogether human film ."
PIPELINE = (
    "import sys; from transformers import pipeline; "
    "print(pipeline('text-classification', sys.argv[1])(sys.stdin.readline().strip()))"
)


class Failed(Exception):
    """A measurement did not end well."""


def call(
    command: Sequence[str], threads: int | None, stdin: str | None = None, more: dict[str, str] | None = None
) -> tuple[str, float]:
    """Run a process; return what it printed and how long it took."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(more or {})}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, encoding="utf-8", env=environment, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Failed(f"{shlex.join(command)}\n{done.stderr[-3000:]}\nexit code {done.returncode}")
    return done.stdout, seconds


def measure(spec: Result, threads: int | None) -> Result:
    """Take one measurement in a process of its own."""
    environment = spec.pop("environment", None)
    command = [sys.executable, str(PEERS), json.dumps(spec)]
    printed, seconds = call(command, threads, more=environment)
    return {
        **json.loads(printed.splitlines()[-1]),
        "process_s": seconds,
        "command": shlex.join(["python", f"benchmarks/{PEERS.name}", command[2]]),
    }


def orders(tools: Sequence[str], rounds: int) -> Iterator[tuple[int, list[str]]]:
    """Yield A B C, C B A, A B C, ...

    >>> list(orders("AB", 2))
    [(1, ['A', 'B']), (2, ['B', 'A'])]
    """
    for n in range(1, rounds + 1):
        yield n, list(tools) if n % 2 else list(reversed(tools))


def find_model(name: str, args: argparse.Namespace) -> str:
    """Return what `model=` takes; a shape with random weights is made once and kept."""
    if name == "minilm":
        return name
    if not args.m3e:
        raise Failed("give the folder of m3e-small with --m3e FOLDER or BERTUNE_M3E")
    if name == "m3e":
        return str(args.m3e)
    folder = Path(args.cache).expanduser() / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        measure(
            {"what": "model", "tool": "maker", "settings": [name, str(args.m3e)], "folder": str(folder)},
            args.threads,
        )
    return str(folder)


def settings_of(name: str, args: argparse.Namespace, seed: int) -> list[str]:
    work = WORKS[name]
    own = [
        f"model={find_model(work.model, args)}",
        f"seed={seed}",
        "train.batch_size=32",
        "train.learning_rate=5e-5",
        "train.head_learning_rate=null",
        "train.warmup_ratio=0.1",
    ]
    return ["classify", *work.settings, *own, f"train.epochs={work.epochs}", *args.overrides]


def spec_of(name: str, tool: str, args: argparse.Namespace, seed: int, folder: str) -> Result:
    """Say what one process has to do."""
    work = WORKS[name]
    spec = {
        "what": args.what,
        "tool": tool,
        "settings": settings_of(name, args, seed),
        "precision": args.precision,
    }
    if args.what == "switches":
        off = SWITCHES.get(tool, {})
        spec |= {
            "what": "train",
            "tool": "bertune",
            "warm": args.warm,
            "steps": args.steps or work.steps,
            **off,
        }
        spec["settings"] = [*settings_of(name, args, seed), *off.get("settings", [])]
    elif args.what == "train":
        steps = args.steps or work.steps
        spec |= {"warm": args.warm, "steps": steps}
        fewer = args.default_steps or min(steps, work.default_steps)
        if tool == "default" and fewer < steps:
            batch = next(
                int(s.partition("=")[2])
                for s in reversed(spec["settings"])
                if s.startswith("train.batch_size=")
            )
            spec["take"] = fewer * batch
    elif args.what == "memory":
        spec |= {"warm": 0, "steps": args.steps or MEMORY_STEPS}
    elif args.what == "predict":
        spec |= {"rows": args.rows, "folder": folder}
    else:
        spec["eval_every"] = args.eval_every or work.eval_every
    return spec


def rounds_of(name: str, args: argparse.Namespace, folder: str) -> list[Round]:
    found = []
    for seed, tools in orders(args.tools, args.rounds):
        one: Round = {}
        for tool in tools:
            one[tool] = measure(spec_of(name, tool, args, seed, folder), args.threads)
            print(f"{args.what} {name} round {seed} {tool}: {said(args.what, one[tool])}", flush=True)
        check_same_rows(one)
        found.append(one)
    return found


def check_same_rows(one: Round) -> None:
    """Hold tools that measured equally many rows to the same rows and tokens."""
    for tool, result in one.items():
        ours = one.get("bertune", result)
        same = [(r.get("which"), r.get("tokens")) for r in (ours, result)]
        if ours.get("rows") == result.get("rows") and "which" in result and same[0] != same[1]:
            raise Failed(f"{tool} saw other rows than bertune: {same}")


def said(what: str, result: Result) -> str:
    if what == "reach":
        return ", ".join(f"{look['accuracy']:.4f} after {look['seconds']:.1f} s" for look in result["dev"])
    key, unit = FIGURES[what]
    extra = ""
    if what in {"train", "switches"}:
        extra = f", {result['rows']} rows, {result['tokens'] / result['rows']:.1f} tokens each"
    elif what == "predict":
        extra = f", accuracy {result['accuracy']:.4f}"
    return f"{result[key]:.4g} {unit}{extra}"


def seconds_until(looks: list[Result], accuracy: float) -> float:
    """Return when the dev accuracy was first that high."""
    return next((look["seconds"] for look in looks if look["accuracy"] >= accuracy), math.inf)


def pair_of(what: str, one: Round, peer: str) -> tuple[float, float]:
    """Return the figures of bertune and of a peer in one round."""
    if what == "reach":
        goal = one[peer]["dev"][-1]["accuracy"]
        return seconds_until(one["bertune"]["dev"], goal), seconds_until(one[peer]["dev"], goal)
    key, _ = FIGURES[what]
    return one["bertune"][key], one[peer][key]


def compare(what: str, rounds: list[Round], peer: str) -> Result:
    """Medians of bertune and a peer, their ratio, and its range over the rounds."""
    unit = "s" if what == "reach" else FIGURES[what][1]
    more_is_better = unit == "rows/s"
    pairs = [pair_of(what, one, peer) for one in rounds]

    def ratio(ours: float, theirs: float) -> float:
        return ours / theirs if more_is_better else theirs / ours

    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    each = [ratio(*pair) for pair in pairs]
    result = {
        "peer": peer,
        "unit": unit,
        "bertune": ours,
        "theirs": theirs,
        "ratio": ratio(ours, theirs),
        "low": min(each),
        "high": max(each),
    }
    return {key: None if value == math.inf else value for key, value in result.items()}


def tell(what: str, name: str, found: list[Result]) -> None:
    for c in found:
        ours = "not reached" if c["bertune"] is None else f"{c['bertune']:.4g}"
        print(
            f"{what} {name}, median {c['unit']}: bertune {ours}, {c['peer']} {c['theirs']:.4g}; "
            f"ratio {c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})",
            flush=True,
        )


def run_cold(folder: str, args: argparse.Namespace) -> list[Round]:
    script = Path(sysconfig.get_path("scripts")) / "bertune"
    commands = {
        "bertune": [str(script), "predict", folder, "-"],
        "pipeline": [sys.executable, "-c", PIPELINE, folder],
    }
    for command in commands.values():
        call(command, args.threads, f"{LINE}\n")  # so that nobody is the first to read files from the disk
    found = []
    for n, tools in orders(list(commands), args.rounds):
        one: Round = {}
        for tool in tools:
            printed, seconds = call(commands[tool], args.threads, f"{LINE}\n")
            one[tool] = {
                "process_s": seconds,
                "printed": printed.strip(),
                "command": shlex.join([Path(commands[tool][0]).name, *commands[tool][1:]]),
            }
            print(f"cold round {n} {tool}: {seconds:.2f} s", flush=True)
        found.append(one)
    return found


def trained_folder(name: str, args: argparse.Namespace, place: str) -> str:
    """Train for a few steps and return the folder; further settings come last and win."""
    folder = f"{place}/{name}"
    settings = settings_of(name, args, 1)
    measure(
        {"what": "trained", "settings": [settings[0], "train.max_steps=20", *settings[1:]], "folder": folder},
        args.threads,
    )
    return folder


def rounds_and_peers(name: str, args: argparse.Namespace, place: str) -> tuple[list[Round], list[str]]:
    if args.what == "cold":
        own = Path(name).is_dir()
        return run_cold(name if own else trained_folder("sst2", args, place), args), ["pipeline"]
    folder = trained_folder(name, args, place) if args.what == "predict" else ""
    return rounds_of(name, args, folder), [tool for tool in args.tools if tool != "bertune"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "switches", "predict", "memory", "reach", "cold"])
    parser.add_argument(
        "work",
        nargs="?",
        help=f"{', '.join(WORKS)}, or all; of cold: the folder that bertune train has written",
    )
    parser.add_argument("overrides", nargs="*", help="further settings, section.name=value, for all tools")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="file to add a line of JSON to")
    parser.add_argument("--tools", nargs="+", choices=["bertune", "best", "default"])
    parser.add_argument(
        "--precision", choices=["auto", "fp32"], default="auto", help="fp32: nobody computes in bf16"
    )
    parser.add_argument("--steps", type=int, help="measured steps")
    parser.add_argument("--default-steps", type=int, help="measured steps of the slow peer, default")
    parser.add_argument("--warm", type=int, default=3, help="steps before them, at least 1")
    parser.add_argument("--rows", type=int, default=1000, help="rows to predict")
    parser.add_argument("--eval-every", type=int, help="steps between bertune's evaluations in reach")
    parser.add_argument("--threads", type=int, help="threads of every process; without it torch's default")
    parser.add_argument("--m3e", default=os.environ.get("BERTUNE_M3E"), help="folder of m3e-small")
    parser.add_argument(
        "--cache", default="~/.cache/bertune-benchmarks", help="where encoders with random weights are kept"
    )
    args, extra = parser.parse_known_args()
    if any(text.startswith("-") for text in extra):
        parser.error(f"unknown: {' '.join(extra)}")
    if args.what == "cold":
        args.work = args.work or "sst2"
    elif args.work not in {*WORKS, "all"}:
        parser.error(f"choose a work: {', '.join(WORKS)}, all")
    if args.warm < 1:
        parser.error("--warm must be at least 1")
    args.overrides += extra
    if args.what == "switches":
        args.tools = ["bertune", *SWITCHES]
    args.tools = args.tools or (
        ["bertune", "best"] if args.precision == "fp32" else ["bertune", "best", "default"]
    )
    if "bertune" not in args.tools:
        parser.error("--tools needs bertune")
    return args


def main() -> None:
    args = arguments()
    try:
        machine = measure({"what": "machine", "tool": "machine"}, args.threads)
        print(
            json.dumps({key: value for key, value in machine.items() if key not in {"command", "process_s"}})
        )
        for name in ALL if args.work == "all" else [args.work]:
            with tempfile.TemporaryDirectory() as place:
                rounds, peers = rounds_and_peers(name, args, place)
            found = [compare(args.what, rounds, peer) for peer in peers]
            tell(args.what, name, found)
            if args.out:
                line = {
                    "command": shlex.join(sys.argv),
                    "what": args.what,
                    "work": name,
                    "machine": machine,
                    "compared": found,
                    "rounds": rounds,
                }
                with Path(args.out).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except Failed as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
