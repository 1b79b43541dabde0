"""Shared memory that the built-in model's Triton kernels take on each card, found by compiling.

vLLM's own launchers choose the tiles and call the kernels; where they would run, they are compiled
for the card instead, which needs no GPU. A program of its own, as Triton must be made to believe in
a card before vLLM is imported: prints a list of figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import triton
from triton.backends import backends
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Without a GPU vLLM leaves its kernels out; its CPU wheel takes them with a driver of that name.
with mock.patch.dict(backends, cpu=SimpleNamespace(driver=SimpleNamespace(is_active=bool))):
    import vllm.triton_utils

import torch
from fake_platform import CUDA_CARDS, Card, fake_platform

HEADS, HEAD, PAGE = 3, 32, 16
TOKENS = (1, 32, 64, 96, 128, 512, 2048)  # a step's; each has tiles of its own
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Compiled:
    """Stands in a kernel's place: compiles what is launched for one card."""

    def __init__(self, kernel: Any, card: Card) -> None:
        self.kernel, self.card, self.shared = kernel, card, 0

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            shown = SimpleNamespace(
                get_current_target=lambda: GPUTarget("cuda", self.card.sm, 32),
                get_current_device=lambda: self.card.sm,  # what is compiled is kept by device
                get_current_stream=lambda device=0: 0,
            )
            with mock.patch.object(driver, "_active", shown):
                made = self.kernel.warmup(*args, grid=(1,), **options)
            self.shared = max(self.shared, made.metadata.shared)

        return launch


def experts(card: Card, dtype: torch.dtype) -> int:
    """Of the MoE layer's two products, at its largest over `TOKENS`."""
    from vllm.model_executor.layers.fused_moe import fused_moe as moe
    from vllm.triton_utils import tl

    kinds = {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
    compiled = Compiled(moe.fused_moe_kernel, card)
    w13, w2 = torch.empty(8, 256, 96, dtype=dtype), torch.empty(8, 96, 128, dtype=dtype)
    with mock.patch.object(moe, "fused_moe_kernel", compiled):
        for tokens in TOKENS:
            config = moe.try_get_optimal_moe_config(w13.shape, w2.shape, 2, None, tokens)
            weights = torch.empty(tokens, 2)
            blocks = torch.empty(256, dtype=torch.int32)
            for a, b, top_k in (
                (torch.empty(tokens, 96, dtype=dtype), w13, 2),
                (torch.empty(2 * tokens, 128, dtype=dtype), w2, 1),
            ):
                for ids in (torch.empty(4096, dtype=torch.int32), None):
                    moe.invoke_fused_moe_triton_kernel(
                        a,
                        b,
                        torch.empty(tokens, 2, b.size(1), dtype=dtype),
                        None,
                        None,
                        weights,
                        ids,
                        blocks,
                        torch.empty(1, dtype=torch.int32),
                        mul_routed_weight=b is w2,
                        top_k=top_k,
                        config=config,
                        compute_type=kinds[dtype],
                        use_fp8_w8a8=False,
                        use_int8_w8a8=False,
                        use_int8_w8a16=False,
                        use_int4_w4a16=False,
                        per_channel_quant=False,
                    )
    return compiled.shared


def attention(card: Card, dtype: torch.dtype) -> int:
    """Of prefill and decode, and of what joins decode's segments."""
    from vllm.v1.attention.ops import triton_unified_attention as unified

    kernel = Compiled(unified.kernel_unified_attention, card)
    join = Compiled(unified.reduce_segments, card)
    pages = torch.empty(64, PAGE, HEADS, HEAD, dtype=dtype)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(unified, "kernel_unified_attention", kernel))
        stack.enter_context(mock.patch.object(unified, "reduce_segments", join))
        for length in (64, 1):
            query = torch.empty(length, HEADS, HEAD, dtype=dtype)
            segments = torch.empty(64, HEADS, 16, HEAD)
            unified.unified_attention(
                q=query,
                k=pages,
                v=pages,
                out=torch.empty_like(query),
                cu_seqlens_q=torch.tensor([0, length], dtype=torch.int32),
                max_seqlen_q=length,
                seqused_k=torch.tensor([128], dtype=torch.int32),
                max_seqlen_k=128,
                softmax_scale=HEAD**-0.5,
                causal=True,
                window_size=(-1, -1),
                block_table=torch.zeros(1, 64, dtype=torch.int32),
                softcap=0,
                q_descale=None,
                k_descale=torch.ones(1, HEADS),
                v_descale=torch.ones(1, HEADS),
                seq_threshold_3D=64,
                num_par_softmax_segments=16,
                softmax_segm_output=segments,
                softmax_segm_max=segments[..., 0].contiguous(),
                softmax_segm_expsum=segments[..., 0].contiguous(),
            )
    return max(kernel.shared, join.shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtypes", nargs="*", default=["bfloat16"], help=f"of: {', '.join(DTYPES)}")
    assert vllm.triton_utils.HAS_TRITON
    figures = []
    for name in parser.parse_args().dtypes:
        for card in CUDA_CARDS:
            with fake_platform(card, ()):
                for kernel in (experts, attention):
                    shared = kernel(card, DTYPES[name])
                    print(f"{name} {card.name}: {kernel.__name__} {shared:,} B", file=sys.stderr)
                    figures.append(
                        {
                            "kernel": kernel.__name__,
                            "card": card.name,
                            "dtype": name,
                            "shared_bytes": shared,
                            "triton": triton.__version__,
                        }
                    )
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
