"""What the model has learnt, on text it has never seen, beside models that know no context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import MixtralForCausalLM, PreTrainedTokenizerFast

from .corpus import ask, read_humaneval
from .network import RouterTap


@dataclass(frozen=True)
class HeldOut:
    """Texts that are scored, each as ``text[scored]`` within the prompt that a capture gives."""

    name: str
    texts: list[str]
    scored: list[tuple[int, int]]


@dataclass(frozen=True)
class Score:
    """Cross-entropies in nats per token, and what the routers did.

    Attributes
    ----------
    name : str
    texts, tokens : int
        Number of texts, and of scored tokens.
    model, training_unigram, own_unigram : float
        The model; the frequencies of the training text (add-one); the frequencies of the scored
        text itself, which is the least that any model without context can reach.
    load : ndarray of int64, [layers, experts]
        Assignments of all tokens of the prompts.
    """

    name: str
    texts: int
    tokens: int
    model: float
    training_unigram: float
    own_unigram: float
    load: npt.NDArray[np.int64]

    @property
    def below_unigram(self) -> float:
        """Share by which the model lies below the better of the two unigram models."""
        return 1 - self.model / min(self.training_unigram, self.own_unigram)


def humaneval() -> HeldOut:
    """HumanEval's prompts, scored whole."""
    texts = [task["prompt"] for task in read_humaneval()]
    return HeldOut("HumanEval prompts", texts, [(0, len(text)) for text in texts])


def gsm8k(questions: Sequence[str]) -> HeldOut:
    """GSM8K's test questions within their prompt; the words of the prompt itself are not scored."""
    texts = [ask(question) for question in questions]
    spans = [(t.index(q), t.index(q) + len(q)) for t, q in zip(texts, questions, strict=True)]
    return HeldOut("GSM8K test questions", texts, spans)


@torch.no_grad()
def score(
    model: MixtralForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    held_out: HeldOut,
    training_counts: npt.NDArray[np.int64],
) -> Score:
    """Score every text by itself, from an end-of-text token on, as documents begin in training."""
    model.eval()
    device = model.device
    tap = RouterTap(model)
    vocab = model.config.vocab_size
    seen = np.zeros(vocab, np.int64)
    total = 0.0
    load = np.zeros((model.config.num_hidden_layers, model.config.num_local_experts), np.int64)
    for text, (first, last) in zip(held_out.texts, held_out.scored, strict=True):
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor([tokenizer.eos_token_id, *encoded["input_ids"]], device=device)
        wanted = torch.tensor(
            [start >= first - 1 and end <= last for start, end in encoded["offset_mapping"]],
            device=device,
        )
        tap.clear()
        logits = model(input_ids=ids[None, :], use_cache=False).logits[0, :-1]
        losses = F.cross_entropy(logits.float(), ids[1:], reduction="none")
        total += float(losses[wanted].double().sum())
        seen += np.bincount(ids[1:][wanted].cpu().numpy(), minlength=vocab)
        load += tap.counts().cpu().numpy()
    tokens = int(seen.sum())
    training = (training_counts + 1) / (training_counts + 1).sum()
    own = seen[seen > 0] / tokens
    return Score(
        name=held_out.name,
        texts=len(held_out.texts),
        tokens=tokens,
        model=total / tokens,
        training_unigram=float(-(seen * np.log(training)).sum() / tokens),
        own_unigram=float(-(own * np.log(own)).sum()),
        load=load,
    )


def loss_table(scores: Sequence[Score]) -> str:
    """Markdown: one line per held-out text."""
    lines = [
        "| held-out text | tokens | model | unigram of training text | unigram of the text itself "
        "| below the better unigram |",
        "|---|---|---|---|---|---|",
    ]
    for s in scores:
        lines.append(
            f"| {s.name} ({s.texts}) | {s.tokens:,} | {s.model:.3f} | {s.training_unigram:.3f} "
            f"| {s.own_unigram:.3f} | {s.below_unigram:.1%} |"
        )
    return "\n".join(lines)


def load_table(scores: Sequence[Score]) -> str:
    """Markdown: share of assignments of every expert, % by layer, each text with equal weight."""
    share = _mean_share(scores)
    experts = share.shape[1]
    lines = [
        "| layer | " + " | ".join(f"e{e}" for e in range(experts)) + " |",
        "|---" * (experts + 1) + "|",
    ]
    for layer, row in enumerate(share):
        lines.append(f"| {layer} | " + " | ".join(f"{100 * x:.1f}" for x in row) + " |")
    return "\n".join(lines)


def least_load(scores: Sequence[Score]) -> tuple[float, int, int]:
    """The smallest share of any expert over all texts together, its layer and its number."""
    share = _mean_share(scores)
    layer, expert = np.unravel_index(int(share.argmin()), share.shape)
    return float(share[layer, expert]), int(layer), int(expert)


def save_counts(folder: Path, counts: npt.NDArray[np.int64]) -> None:
    """Keep the token frequencies of the training text beside the model."""
    lines = "\n".join(str(count) for count in counts.tolist())
    (folder / "training_token_counts.txt").write_text(lines + "\n", encoding="ascii")


def load_counts(folder: Path) -> npt.NDArray[np.int64]:
    """Read what `save_counts` wrote."""
    text = (folder / "training_token_counts.txt").read_text(encoding="ascii")
    return np.array(text.split(), np.int64)


def _mean_share(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    shares = [s.load / s.load.sum(axis=1, keepdims=True) for s in scores]
    mean: npt.NDArray[np.float64] = np.mean(shares, axis=0)
    return mean
