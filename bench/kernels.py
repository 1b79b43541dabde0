"""The counting kernels of this checkout beside those of another one.

    python bench/kernels.py --baseline DIR

``DIR`` is another checkout of this repository with its extension built (``git worktree add DIR
REVISION``, then ``tools/dev-build.sh`` there). Two processes, one of each, hold the same traces and
take turns at the same call; both must give the same result. A ratio is the median of the rounds'
own ratios of processor time of all threads, new over old, with the quartiles: below 1 is faster.
Processor time, because a busy machine changes it less than it changes time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parents[1]
TOKENS = {"mixtral": 20_000, "qwen3": 5_000, "dsv3": 2_000}
CALLS = ("all pairs", "adjacent pairs", "top-1 paths", "set paths", "all n-grams", "history")


# --- in the process of one checkout ---


def calls(shape_name: str) -> dict[str, Callable[[], Any]]:
    """What is timed, each with a result that can be compared."""
    import pair_counts
    import paths
    import prediction
    from _workload import SHAPES, make_trace

    shape = SHAPES[shape_name]
    experts = make_trace(shape, TOKENS[shape_name])
    few = experts[: len(experts) // 10]
    test = np.arange(len(experts)) % 5 == 0
    return {
        "all pairs": lambda: pair_counts.ours(experts, shape, "all pairs").pair(0, shape.L - 1),
        "adjacent pairs": lambda: pair_counts.ours(experts, shape, "adjacent").pair(0, 1),
        "top-1 paths": lambda: paths.ours(experts, shape, "top1"),
        "set paths": lambda: paths.ours(experts, shape, "set"),
        "all n-grams": lambda: paths.our_ngrams(few, shape),
        "history": lambda: prediction.with_routestats(experts[~test], experts[test], shape.E),
    }


def serve() -> None:
    """Answer each line, a shape and a call, with its seconds and a digest of its result."""
    made: dict[str, dict[str, Callable[[], Any]]] = {}
    for line in sys.stdin:
        shape, call = json.loads(line)
        if shape not in made:
            made[shape] = calls(shape)
        start = time.process_time()
        result = made[shape][call]()
        seconds = time.process_time() - start
        exact = result.tobytes() if isinstance(result, np.ndarray) else repr(result).encode()
        print(json.dumps([seconds, blake2b(exact).hexdigest()]), flush=True)


# --- in the process that compares ---


class Side:
    """The process of one checkout."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join(str(folder / part) for part in ("python", "bench"))
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--serve"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, shape: str, call: str) -> tuple[float, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([shape, call]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{call}, {shape}: a side has ended")
        seconds, digest = json.loads(answer)
        return seconds, digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--baseline", type=Path, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    if args.baseline is None:
        parser.error("--baseline: expected another checkout")
    new, old = Side(HERE), Side(args.baseline.resolve())
    rows = []
    for shape in TOKENS:
        for call in CALLS:
            if len({side.run(shape, call)[1] for side in (new, old)}) > 1:
                print(f"{call}, {shape}: the results differ")
                return 1
            ratios = []
            for turn in range(args.rounds):
                order = (new, old) if turn % 2 else (old, new)
                took = {side: side.run(shape, call)[0] for side in order}
                ratios.append(took[new] / took[old])
            low, middle, high = statistics.quantiles(ratios, n=4)
            rows.append({"call": call, "shape": shape, "ratio": middle, "low": low, "high": high})
            print(f"{call:15} {shape:8} {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
