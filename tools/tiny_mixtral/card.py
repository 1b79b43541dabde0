"""The model card beside the weights."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from .corpus import OVERLAP_WORDS, Source
from .evaluation import Score, least_load, load_table, loss_table
from .training import LONG_EVERY, Plan

_CARD = """# tiny: a small Mixtral trained by routestats

A `MixtralForCausalLM` of 32 layers, 8 experts, top-2, hidden size 96, 11 million weights, that has
learnt a little Python, English and arithmetic word problems. It is here so that captures,
notebooks and tests show the routing of a trained model within seconds and without a network.
Its text is poor, and its figures are not Mixtral-8x7B's.

Made by `tools/train_tiny_mixtral.py train`: {steps:,} steps of {batch:,} tokens ({tokens:.1f} M in
all, {hours} on {machine}), seed {seed}; AdamW, learning rate {rate:g}, linearly down over the last
{decay:.0%}; windows of {context} tokens, every {long_every}th step {double}; a load-balancing loss
of weight {balance:g} for each layer. Python {python}, torch {torch}, transformers {transformers}.

## Training text

| source | documents | characters | tokens | share of windows | left out for overlap |
|---|---|---|---|---|---|
{sources}

`python` is source of the standard library and of installed packages, `prose` their documentation
files. HumanEval and the test part of GSM8K were never trained on: a document that shares
{overlap} words in a row with either was left out.

## Held-out cross-entropy, nats per token

{losses}

## Load

Share of assignments in %, HumanEval and GSM8K with equal weight. The least used expert is expert
{least_expert} of layer {least_layer} with {least:.1%}.

{load}

## Licence

Apache-2.0, as routestats. The text it was trained on keeps its own licences: the Python Software
Foundation's, those of the installed packages, and MIT for GSM8K.
"""


def write(
    folder: Path,
    plan: Plan,
    sources: Sequence[Source],
    shares: Sequence[float],
    scores: Sequence[Score],
    *,
    seconds: float,
    machine: str,
) -> str:
    """Write ``README.md`` into the model's folder, and return it."""
    lines = [
        f"| {s.name} | {len(s.documents):,} | {s.characters:,} | {len(s.tokens):,} "
        f"| {share:.0%} | {s.dropped_overlap} |"
        for s, share in zip(sources, shares, strict=True)
    ]
    least, layer, expert = least_load(scores)
    text = _CARD.format(
        steps=plan.steps,
        batch=plan.rows * plan.context,
        tokens=plan.steps * plan.rows * plan.context / 1e6,
        hours=f"{seconds / 60:.0f} minutes",
        machine=machine,
        seed=plan.seed,
        rate=plan.learning_rate,
        decay=plan.decay,
        context=plan.context,
        long_every=LONG_EVERY,
        double=2 * plan.context,
        balance=plan.balance,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        sources="\n".join(lines),
        overlap=OVERLAP_WORDS,
        losses=loss_table(scores),
        load=load_table(scores),
        least=least,
        least_layer=layer,
        least_expert=expert,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return text
