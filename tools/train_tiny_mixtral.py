#!/usr/bin/env python3
"""Train the built-in ``tiny`` model: a 32-layer, 8-expert, top-2 Mixtral of 11 million weights.

    python tools/train_tiny_mixtral.py train --text gsm8k=gsm8k_train.jsonl \
        --held-out gsm8k_test.jsonl --work runs/tiny --out python/routestats/models/tiny
    python tools/train_tiny_mixtral.py evaluate MODEL --held-out gsm8k_test.jsonl

Interrupted, the same command goes on from ``--work``. HumanEval and the held-out file are only
ever evaluated on: documents that overlap them are left out, and their number is printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, MixtralForCausalLM, PreTrainedTokenizerFast

from tiny_mixtral import card, corpus, evaluation, network, training, vocabulary


def main() -> None:
    args = _parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command == "train":
        _train(args)
    else:
        _evaluate(args)


def _train(args: argparse.Namespace) -> None:
    args.work.mkdir(parents=True, exist_ok=True)
    questions = _questions(args.held_out)
    sources = _sources(args, questions)
    tokenizer = vocabulary.train_tokenizer(sources, args.vocab, args.seed)
    vocab = tokenizer.get_vocab()
    pad, bos, eos = (vocab[text] for text in (vocabulary.PAD, vocabulary.BOS, vocabulary.EOS))
    for source in sources:
        corpus.encode(source, tokenizer, eos)
        print(
            f"{source.name}: {len(source.documents):,} documents, {source.characters:,} "
            f"characters, {len(source.tokens):,} tokens; {source.dropped_overlap} left out because "
            f"{corpus.OVERLAP_WORDS} words in a row are in held-out text",
            flush=True,
        )
    config = network.make_config(
        vocab=args.vocab,
        layers=args.layers,
        hidden=args.hidden,
        width=args.width,
        experts=args.experts,
        top_k=args.top_k,
        pad=pad,
        bos=bos,
        eos=eos,
    )
    model = network.make_model(config, args.seed)
    plan = training.Plan(
        steps=args.steps,
        rows=args.rows,
        context=args.context,
        learning_rate=args.learning_rate,
        warmup=args.warmup,
        decay=args.decay,
        balance=args.balance,
        weight_decay=args.weight_decay,
        seed=args.seed,
    )
    shares = _shares(args.share, [source.name for source in sources])
    batches = training.Batches([source.tokens for source in sources], shares, plan)
    seconds = training.train(model, batches, plan, args.work, device=args.device)

    counts = np.sum([np.bincount(s.tokens, minlength=args.vocab) for s in sources], axis=0)
    _export(model, vocabulary.wrap(tokenizer, network.MAX_POSITIONS), args.out, args.steps > 0)
    evaluation.save_counts(args.out, counts)
    scores = _scores(args.out, questions, args.device)
    text = card.write(
        args.out, plan, sources, shares, scores, seconds=seconds, machine=_machine(args.device)
    )
    print(text)


def _evaluate(args: argparse.Namespace) -> None:
    scores = _scores(args.model, _questions(args.held_out), args.device)
    least, layer, expert = evaluation.least_load(scores)
    print(evaluation.loss_table(scores))
    print()
    print(evaluation.load_table(scores))
    print(f"\nleast used: expert {expert} of layer {layer}, {least:.1%} of its assignments")
    failed = [s.name for s in scores if s.below_unigram < args.below]
    if failed or least < args.least_load:
        print(
            f"FAILED: expected {args.below:.0%} below unigram (not so: {', '.join(failed) or '-'}) "
            f"and a least load of {args.least_load:.0%}"
        )
        sys.exit(1)


def _sources(args: argparse.Namespace, questions: list[str]) -> list[corpus.Source]:
    """Every source, without what overlaps held-out text."""
    limit = round(args.corpus_mb * 1e6)
    sources = [corpus.find_python(limit, args.seed), corpus.find_prose(limit // 2, args.seed)]
    for text in args.text:
        name, _, path = text.partition("=")
        if not path or not Path(path).is_file():
            sys.exit(f"--text {text}: expected NAME=PATH of a file")
        sources.append(corpus.read_text(name, Path(path)))
    tasks = corpus.read_humaneval()
    held_out = [task["prompt"] + task["canonical_solution"] for task in tasks]
    corpus.drop_overlap(sources, [*held_out, *questions])
    return sources


def _shares(wanted: list[str], names: list[str]) -> list[float]:
    """Share of the training windows of each source: as asked, else equal."""
    shares = dict.fromkeys(names, 1.0)
    for text in wanted:
        name, _, number = text.partition("=")
        if name not in shares:
            sys.exit(f"--share {text}: expected NAME=WEIGHT with a NAME of {', '.join(names)}")
        shares[name] = float(number)
    total = sum(shares.values())
    return [share / total for share in shares.values()]


def _questions(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line in lines if line.strip()]


def _scores(folder: Path, questions: list[str], device: str) -> list[evaluation.Score]:
    """Scores of the weights as they are shipped, in float32."""
    model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    counts = evaluation.load_counts(folder)
    texts = (evaluation.humaneval(), evaluation.gsm8k(questions))
    return [evaluation.score(model, tokenizer, held_out, counts) for held_out in texts]


def _export(
    model: MixtralForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    trained: bool,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.cpu().to(torch.bfloat16)
    model.config.routestats = "trained by routestats" if trained else "untrained: random weights"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        # safetensors writes for the owner alone; an installed package is for everybody.
        file.chmod(0o644)


def _machine(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return f"{torch.get_num_threads()} threads of {model or platform.processor()}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--held-out", type=Path, required=True, help="GSM8K's test file (.jsonl)")
    common.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    common.add_argument("--threads", type=int, help="threads of torch on the CPU")

    train = commands.add_parser("train", parents=[common], help="train, export and evaluate")
    train.add_argument("--out", type=Path, required=True, help="folder of the exported model")
    train.add_argument("--work", type=Path, required=True, help="folder of checkpoint and log")
    train.add_argument("--text", action="append", default=[], metavar="NAME=PATH")
    train.add_argument("--share", action="append", default=[], metavar="NAME=WEIGHT")
    train.add_argument("--corpus-mb", type=float, default=24, help="of Python; half of it prose")
    train.add_argument("--steps", type=int, default=3600)
    train.add_argument("--rows", type=int, default=8, help="windows in a batch")
    train.add_argument("--context", type=int, default=256, help="tokens in a window")
    train.add_argument("--learning-rate", type=float, default=3e-3)
    train.add_argument("--warmup", type=int, default=100, help="steps")
    train.add_argument("--decay", type=float, default=0.3, help="share of the steps")
    train.add_argument("--balance", type=float, default=0.01, help="weight of each layer's loss")
    train.add_argument("--weight-decay", type=float, default=0.05)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--vocab", type=int, default=2048)
    train.add_argument("--layers", type=int, default=32)
    train.add_argument("--hidden", type=int, default=96)
    train.add_argument("--width", type=int, default=128, help="of an expert")
    train.add_argument("--experts", type=int, default=8)
    train.add_argument("--top-k", type=int, default=2)

    evaluate = commands.add_parser("evaluate", parents=[common], help="score a model")
    evaluate.add_argument("model", type=Path)
    evaluate.add_argument("--below", type=float, default=0.30, help="least gain over unigram")
    evaluate.add_argument("--least-load", type=float, default=0.02)
    return parser.parse_args()


if __name__ == "__main__":
    main()
