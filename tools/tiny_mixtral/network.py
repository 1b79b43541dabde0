"""The network: transformers' own Mixtral, initialised for its depth, its routers watched."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

HEAD_SIZE = 32
MAX_POSITIONS = 4096


def make_config(
    *,
    vocab: int,
    layers: int,
    hidden: int,
    width: int,
    experts: int,
    top_k: int,
    pad: int,
    bos: int,
    eos: int,
) -> MixtralConfig:
    """A Mixtral of these sizes, with heads of 32 and no grouping of them."""
    heads = hidden // HEAD_SIZE
    config = MixtralConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_SIZE,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        max_position_embeddings=MAX_POSITIONS,
        sliding_window=None,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    # All of an expert's tokens in one product; the default loops over experts and indexes.
    config._experts_implementation = "grouped_mm"
    return config


def make_model(config: MixtralConfig, seed: int) -> MixtralForCausalLM:
    """An untrained model whose signal neither dies nor grows over its depth.

    Every projection keeps the variance of its input (standard deviation 1/sqrt(fan in)); what is
    added to the residual stream is divided by sqrt(2 * layers), so that all branches together add
    about as much as the embedding (GPT-2's scaling). transformers' 0.02 leaves the branches of a
    network of width 96 without effect for hundreds of steps. The head starts at zero: the first
    loss is log(vocabulary).
    """
    torch.manual_seed(seed)
    model = MixtralForCausalLM(config)
    branch = 1 / math.sqrt(2 * config.num_hidden_layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                nn.init.ones_(weight)
            elif "embed_tokens" in name:
                nn.init.normal_(weight, std=1.0)
            elif "lm_head" in name:
                nn.init.zeros_(weight)
            else:
                scale = branch if "o_proj" in name or "down_proj" in name else 1.0
                nn.init.normal_(weight, std=scale / math.sqrt(weight.shape[-1]))
    return model


class RouterTap:
    """Keep what every router said in the last forward pass."""

    def __init__(self, model: MixtralForCausalLM) -> None:
        self.num_experts: int = model.config.num_local_experts
        self._logits: list[Tensor] = []
        self._chosen: list[Tensor] = []
        for layer in model.model.layers:
            layer.mlp.gate.register_forward_hook(self._keep)

    def clear(self) -> None:
        self._logits.clear()
        self._chosen.clear()

    def balance_loss(self) -> Tensor:
        """Sum over layers of Switch's loss, E * sum over e of f_e * P_e; 1 per layer when even.

        f is the share of assignments, P the mean router probability (arXiv 2101.03961, eq. 4).
        Each layer has its own: transformers' pools the layers, so that a router that sends all
        tokens to one expert hides behind the others.
        """
        losses = []
        for logits, share in zip(self._logits, self.load(), strict=True):
            probability = F.softmax(logits.float(), dim=-1).mean(dim=0)
            losses.append(self.num_experts * (share * probability).sum())
        return torch.stack(losses).sum()

    def load(self) -> Tensor:
        """Share of assignments, [layers, experts] float32; rows sum to 1."""
        counts = [torch.bincount(c.flatten(), minlength=self.num_experts) for c in self._chosen]
        return torch.stack([count / count.sum() for count in counts])

    def counts(self) -> Tensor:
        """Assignments, [layers, experts] int64."""
        return torch.stack(
            [torch.bincount(c.flatten(), minlength=self.num_experts) for c in self._chosen]
        )

    def _keep(self, _module: nn.Module, _args: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, _, chosen = output
        self._logits.append(logits)
        self._chosen.append(chosen)


def token_loss(model: MixtralForCausalLM, tokens: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each token given those before it; tokens [rows, length]."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
