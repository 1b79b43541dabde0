"""A small trace of two domains with everything that a report tells."""

from __future__ import annotations

import numpy as np

import routestats as rs


def some_trace(
    layers: int = 3, prompts: int = 12, *, ordered: bool = True, seed: int = 0
) -> rs.Trace:
    """Prompts of 20 tokens, the last 5 written, in two domains that prefer other experts."""
    token_ids = np.random.default_rng(0).integers(0, 30, prompts * 20)
    rng = np.random.default_rng(seed)
    tokens = prompts * 20
    score = rng.gumbel(size=(tokens, layers, 8))
    code = (np.arange(tokens) // 20) % 2 == 0
    score[code, :, 0] += 1.5
    return rs.Trace.from_arrays(
        np.argsort(-score, axis=2)[:, :, :2].astype(np.uint8),
        num_experts=8,
        request_ids=[f"r{i // 20}" for i in range(tokens)],
        token_ids=token_ids,
        phase=["decode" if i % 20 >= 15 else "prefill" for i in range(tokens)],
        domain={f"r{i}": "maths" if i % 2 else "code" for i in range(prompts)},
        ordered=ordered,
    )
