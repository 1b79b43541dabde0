"""What does capture cost? Time with it over time without it, paired inside one engine.

    python bench/capture_overhead.py tiny
    python bench/capture_overhead.py hidden-1024
    python bench/capture_overhead.py PATH [--compiled]

Each pair generates the same tokens twice, once captured and once with the same engine's callbacks
taken off, in random order, so that the machine's moods fall on both. Pairs are added until the
95 % interval of the median ratio is at most 0.01 wide, or the time is up. Before anything is
timed, one captured generation is verified, and both ways must put out the same tokens.

Compiled code keeps its callbacks, so with --compiled the other side is a second engine, created
without them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from _engine import engine
from _paired import alternate, figures_of, line_of, prompts, settings_of


class Side:
    """One way to generate: captured, or not."""

    def __init__(self, llm: Any, prompts: list[str], params: Any, run: Path | None) -> None:
        self.llm, self.prompts, self.params, self.run = llm, prompts, params, run
        self.outputs: list[Any] = []

    def seconds(self) -> float:
        import routestats as rs

        capture = rs.capture(self.llm, self.run, domain="d") if self.run else None
        if capture is None:
            self.llm.collective_rpc("routestats_unbind")
        with capture or nullcontext():
            start = time.perf_counter()
            self.outputs = self.llm.generate(self.prompts, self.params, use_tqdm=False)
            return time.perf_counter() - start

    def tokens(self) -> list[list[int]]:
        return [list(output.outputs[0].token_ids) for output in self.outputs]


def measure(captured: Side, plain: Side, minutes: float) -> dict[str, Any]:
    import routestats as rs

    for side in (captured, plain, captured, plain):  # warm up both
        side.seconds()
    assert captured.tokens() == plain.tokens(), "capture changed the output"
    assert captured.run is not None
    check = rs.verify(captured.run)
    assert check.ok, check.render()

    pairs = alternate(captured.seconds, plain.seconds, minutes)
    return {**figures_of(pairs), "tokens_per_run": sum(map(len, plain.tokens()))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="tiny, hidden-1024 or the path of a model")
    parser.add_argument("--compiled", action="store_true", help="torch.compile, two engines")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

    import routestats as rs

    questions = prompts(args.requests)
    with tempfile.TemporaryDirectory() as folder:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=args.max_tokens, ignore_eos=True)

        arguments = settings_of(
            args.model,
            Path(folder),
            dtype="auto",
            max_model_len=1024,
            enforce_eager=not args.compiled,
            enable_prefix_caching=False,
        )
        with ExitStack() as engines:
            # Before the hooks are asked for.
            other = engines.enter_context(engine(**arguments)) if args.compiled else None
            rs.enable()
            llm = engines.enter_context(engine(**arguments))
            captured = Side(llm, questions, params, Path(folder) / "run")
            plain = Side(other or llm, questions, params, None)
            figures = measure(captured, plain, args.minutes)
    figures = {
        "model": args.model if args.model in ("tiny", "hidden-1024") else "path",
        "compiled": args.compiled,
        **figures,
        "cores": os.cpu_count(),
    }
    print(
        f"{figures['model']}{' compiled' if args.compiled else ''}: captured / plain = "
        + line_of(figures)
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
