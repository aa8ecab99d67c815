"""ChineseBERT of random weights: what hearing and seeing cost, and whether a model learns from them.

    BERTUNE_DATA=DATA python benchmarks/chinesebert.py speed --shape base --rounds 5
    BERTUNE_DATA=DATA python benchmarks/chinesebert.py speed --shape small
    BERTUNE_DATA=DATA python benchmarks/chinesebert.py ablation --font FONT.ttc --seeds 1 2 3
    BERTUNE_DATA=DATA python benchmarks/chinesebert.py write FOLDER --shape tiny --font FONT.ttc

speed     A plain BERT and a ChineseBERT of the same width, depth and vocabulary, both of random weights, on
          the same TNEWS titles, in one process and in turn (A B, B A, ...). train: rows/s of `--steps`
          optimizer steps, making of batches included. predict: rows/s of `predict_dataset` on encoded rows,
          weights and tables prepared before, as `bertune.load` does; tokenizer: titles/s of both tokenizers.
          Seconds are of processor time, one thread. Medians, and the lowest and highest ratio of a round.
ablation  A ChineseBERT of random weights learns TNEWS from `--rows` titles and is scored on 2,000 dev titles,
          as it is, and with syllables shuffled over all titles, with pixels of 0, and with both; then the
          same with the word vectors taken away, so that sound and shape are all there is. Dev accuracy of the
          best epoch, mean over seeds.
write     The folder of such a ChineseBERT, for bertune train.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.bert import Bert
from bertune.encoders.families.chinesebert_encoder import ChineseBert
from bertune.encoders.families.glyphs import render_glyphs
from bertune.encoders.families.registry import FAMILIES
from bertune.encoders.load import load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.heads.model import Model
from bertune.inference.predict import predict_dataset
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.kernels.precision import choose_precision
from bertune.tasks.base.reading import read_examples
from bertune.training.rng import seed_everything
from bertune.training.step import TrainStep
from bertune.types import Example, Numerics

DATA = Path(os.environ.get("BERTUNE_DATA", "data"))
CPU = torch.device("cpu")
SHAPES = {"base": (768, 12, 12, 3072), "small": (512, 4, 8, 2048), "tiny": (128, 2, 4, 512)}


def write_folder(
    folder: Path, shape: str, *, chinese: bool = True, font: str | None = None, seed: int = 0
) -> Path:
    """Write an encoder of random weights with the vocabulary of bert-base-chinese."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (DATA / "vocab" / "bert-base-chinese" / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(text, encoding="utf-8")
    tokens = text.rstrip("\n").split("\n")
    width, layers, heads, inner = SHAPES[shape]
    config = {
        "model_type": "chinesebert" if chinese else "bert", "vocab_size": len(tokens), "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
    }  # fmt: skip
    torch.manual_seed(seed)
    encoder = (ChineseBert if chinese else Bert)(config, FAMILIES[config["model_type"]])
    encoder.init_weights(list(encoder.state_dict()))
    state = {f"bert.{name}": tensor for name, tensor in encoder.hf_state_dict().items()}
    if chinese and font:
        state["bert.embeddings.glyph_embeddings.embedding.weight"], lacking = render_glyphs(
            [font], tokens, 1728
        )
        print(f"{lacking} characters of the vocabulary are not in the font")
    elif chinese:
        state["bert.embeddings.glyph_embeddings.embedding.weight"] = (
            torch.rand(len(tokens), 1728) > 0.8
        ).float()
    save_file({n: t.detach().contiguous() for n, t in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


READ: dict[str, list[Example]] = {}


def examples_of(file: str, task, data: DataConfig, most: int, seed: int = 0) -> list[Example]:
    if file not in READ:
        READ[file] = read_examples([str(DATA / "tnews" / file)], task, data, lambda _: None)
    found = READ[file]
    chosen = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[n] for n in chosen]


class Bench:
    """A model of one kind, ready to train or to predict."""

    def __init__(self, folder: Path, num_rows: int, *settings: str, seed: int = 42) -> None:
        run, self.task = prepare(
            "classify",
            [
                "data.columns=[text,label]",
                "data.max_length=256",
                "train.batch_size=32",
                f"seed={seed}",
                *settings,
            ],
        )
        self.run = run
        self.train = examples_of("train.tsv", self.task, run.data, num_rows)
        self.dev = examples_of("dev.tsv", self.task, run.data, 2000)
        self.task.fit(self.train, lambda _: None)
        seed_everything(seed)
        pretrained = PretrainedFolder(folder)
        encoder, report = load_encoder(pretrained)
        self.tokenizer = pretrained.load_tokenizer(run.data, encoder.max_positions)
        self.model = Model(encoder, self.task.head(encoder, report.pooler))
        encoder.set_numerics(Numerics(choose_precision(run.train.precision, CPU)[0], run.train.fast_dropout))

    def fit(self, rows: EncodedDataset) -> TrainStep:
        AcceleratorState._reset_state(reset_partial_state=True)
        return TrainStep(self.model, self.task, rows, self.run, Accelerator(cpu=True))

    def encoded(self, examples: list[Example]) -> EncodedDataset:
        return EncodedDataset(self.task.encode(examples, self.tokenizer))


def speed(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        kinds = {
            "bert": write_folder(Path(place) / "b", args.shape, chinese=False),
            "chinesebert": write_folder(Path(place) / "c", args.shape),
        }
        (kinds["bert"] / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        benches = {kind: Bench(folder, args.rows, *args.overrides) for kind, folder in kinds.items()}
    figures: dict[str, dict[str, list[float]]] = {
        what: {kind: [] for kind in kinds} for what in ("train", "predict", "tokenizer")
    }
    training = {}
    for kind, bench in benches.items():
        work = bench.fit(bench.encoded(bench.train))
        training[kind] = work, work.batches()
    texts = [example.texts for example in benches["bert"].train]
    dev = {kind: bench.encoded(bench.dev[: args.predict]) for kind, bench in benches.items()}

    def timed(what: str, kind: str, warm: bool = False) -> None:
        bench = benches[kind]
        if what == "tokenizer":
            began, done = time.process_time(), len(texts)
            bench.tokenizer.encode(texts)
        elif what == "train":
            work, batches = training[kind]
            bench.model.train()
            began, done = time.process_time(), 0
            for _ in range(2 if warm else args.steps):
                rows = next(batches)
                work.step(rows)
                done += len(rows)
        else:
            if warm:
                bench.model.eval().encoder.prepare_inference()
            began, done = time.process_time(), len(dev[kind])
            predict_dataset(bench.model, bench.task, dev[kind], CPU)
        if not warm:
            figures[what][kind].append(done / (time.process_time() - began))

    for what in figures:
        for kind in kinds:
            timed(what, kind, warm=True)
        for number in range(args.rounds):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                timed(what, kind)
        both = figures[what]
        ratios = [c / b for b, c in zip(both["bert"], both["chinesebert"], strict=True)]
        medians = {kind: statistics.median(values) for kind, values in both.items()}
        print(
            f"{args.shape} {what}: bert {medians['bert']:.4g} rows/s, "
            f"chinesebert {medians['chinesebert']:.4g} rows/s; "
            f"chinesebert / bert {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


class NoWords(torch.nn.Module):
    """Vectors of 0 for every token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight.new_zeros(len(ids), self.weight.shape[1]) + 0 * self.weight


def shuffled(rows: list, seed: int) -> list:
    """Give every token that is read the reading of another token of any title."""
    heard = np.concatenate([np.asarray(r.inputs[0].pinyin_ids) for r in rows])
    heard[heard != 0] = np.random.default_rng(seed).permutation(heard[heard != 0])
    found, start = [], 0
    for row in rows:
        piece = row.inputs[0]
        found.append(
            replace(
                row, inputs=(replace(piece, pinyin_ids=heard[start : start + len(piece.input_ids)].tolist()),)
            )
        )
        start += len(piece.input_ids)
    return found


def learn(
    folder: Path, args: argparse.Namespace, seed: int, *, words: bool, pinyin: bool, glyphs: bool
) -> float:
    """Return the best dev accuracy."""
    settings = [f"train.epochs={args.epochs}", f"train.learning_rate={args.rate}"]
    settings += ["train.head_learning_rate=null", *args.overrides]
    settings += [] if words else ["train.active_vocabulary=false"]
    bench = Bench(folder, args.rows, *settings, seed=seed)
    encoder = bench.model.encoder
    if not glyphs:
        encoder.embeddings.glyph_embeddings.weight.zero_()
    if not words:
        encoder.embeddings.word_embeddings = NoWords(encoder.hidden_size)
    rows = {}
    for name, examples in (("train", bench.train), ("dev", bench.dev)):
        encoded = bench.task.encode(examples, bench.tokenizer)
        rows[name] = EncodedDataset(encoded if pinyin else shuffled(encoded, seed))
    work, best = bench.fit(rows["train"]), 0.0
    epoch = -(-len(rows["train"]) // 32)
    batches = work.batches()
    for step in range(1, work.total_steps + 1):
        bench.model.train()
        work.step(next(batches))
        if step % epoch == 0:
            predictions, _ = predict_dataset(bench.model, bench.task, rows["dev"], CPU)
            best = max(best, bench.task.score(predictions, bench.dev, intervals=False).main_value)
    return best


def ablation(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = write_folder(Path(place) / "c", args.shape, font=args.font)
        for words in (True, False):
            for pinyin, glyphs in ((True, True), (False, True), (True, False), (False, False)):
                found = [
                    learn(folder, args, seed, words=words, pinyin=pinyin, glyphs=glyphs)
                    for seed in args.seeds
                ]
                what = (
                    f"words {'yes' if words else 'no '}  pinyin {'yes' if pinyin else 'shuffled'}  "
                    f"glyphs {'yes' if glyphs else 'zero'}"
                )
                print(
                    f"{what:48} {' '.join(f'{x:.4f}' for x in found)}  mean {statistics.mean(found):.4f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "ablation", "write"))
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--font")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--predict", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    args = parser.parse_args()
    retain_freed_memory()
    limit_kernel_caches(128)
    torch.set_num_threads(1)
    if args.what == "write":
        print(write_folder(Path(args.folder or "chinesebert"), args.shape, font=args.font))
    else:
        {"speed": speed, "ablation": ablation}[args.what](args)


if __name__ == "__main__":
    main()
