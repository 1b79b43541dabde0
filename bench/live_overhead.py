"""What does it cost an engine to be looked at? Capture with the feed over capture without it.

    python bench/live_overhead.py hidden-1024
    python bench/live_overhead.py hidden-1024 --viewer

Both sides of a pair are captured, inside one engine and in random order; only one of them publishes
its rows. With --viewer, the dashboard and one viewer, who is sent everything that a browser would
be, follow that side's run from processes of their own, on the same machine: on few cores that is
mostly the price of the cores. Before anything is timed, the run with the feed must verify, its feed
must have given exactly the rows of the run, and both sides must put out the same tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from _engine import engine
from _paired import alternate, figures_of, line_of, prompts, settings_of


class Side:
    """Generate, captured into `run`, with or without the feed."""

    def __init__(self, llm: Any, prompts: list[str], params: Any, run: Path, live: bool) -> None:
        self.llm, self.prompts, self.params, self.run, self.live = llm, prompts, params, run, live
        self.tokens: list[list[int]] = []

    def seconds(self) -> float:
        import routestats as rs

        with rs.capture(self.llm, self.run, domain="d", live=self.live):
            start = time.perf_counter()
            outputs = self.llm.generate(self.prompts, self.params, use_tqdm=False)
            took = time.perf_counter() - start
        self.tokens = [list(output.outputs[0].token_ids) for output in outputs]
        return took


def check(side: Side) -> None:
    """The feed gives the rows of the run, all of them and no others."""
    import routestats as rs
    from routestats.live._follow import RunFollower

    follower = RunFollower(side.run, 65_536)
    pieces: list[np.ndarray] = []
    done = threading.Event()

    def follow() -> None:
        while not done.is_set():
            rows, standing = follower.poll()
            if rows is not None and standing.silent_seconds is not None:
                pieces.append(rows["experts"])
            time.sleep(0.02)

    thread = threading.Thread(target=follow)
    thread.start()
    side.seconds()
    time.sleep(0.5)
    done.set()
    thread.join()
    follower.close()
    assert rs.verify(side.run).ok
    trace = rs.Trace.open(side.run)
    assert np.array_equal(np.concatenate(pieces), trace.experts), "the feed is not the run"


@contextlib.contextmanager
def viewer(run: Path) -> Iterator[None]:
    """A dashboard process, and one that takes in what it sends."""
    looking = (
        "import sys, time\n"
        "from bokeh.client import pull_session\n"
        "session = pull_session(url=sys.argv[1])\n"
        "while True:\n"
        "    session.force_roundtrip(); time.sleep(0.1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "routestats.cli",
        "dashboard",
        "--run",
        str(run),
        "--port",
        "0",
    ]
    dashboard = subprocess.Popen([*command, "--wait"], stdout=subprocess.PIPE, text=True)
    assert dashboard.stdout is not None
    url = dashboard.stdout.readline().split(" at ")[1].split()[0]
    looker = subprocess.Popen([sys.executable, "-c", looking, url])
    try:
        time.sleep(5)
        assert looker.poll() is None
        yield
        assert dashboard.poll() is None
        assert looker.poll() is None, "nobody looked"
    finally:
        for process in (looker, dashboard):
            process.kill()
            process.wait()


def publish_us(layers: int, experts: int, top_k: int, rows: int) -> float:
    """Processor time of publishing `rows` at once; done 4 times a second or more."""
    from routestats.schema import RoutingBatch
    from routestats.shape import RouteShape
    from routestats.trace.feed import FeedWriter

    shape = RouteShape(layers, experts, top_k)
    numbers = np.arange(rows, dtype=np.int32)
    ids: Any = np.random.default_rng(0).integers(0, experts, (rows, layers, top_k))
    batch = RoutingBatch(
        domain="d",
        request_ids=tuple(f"request-{i}" for i in range(16)),
        request_index=numbers % 16,
        positions=numbers,
        token_ids=numbers,
        phase=np.zeros(rows, np.uint8),
        experts=ids.astype(shape.id_dtype),
    )
    with tempfile.TemporaryDirectory() as folder:
        feed = FeedWriter(folder, shape, layer_ids=range(layers))
        start = time.thread_time()
        for _ in range(200):
            feed.publish([batch], rows=rows, dropped=0, waiting=0)
        took = time.thread_time() - start
        feed.close(rows=0, dropped=0)
    return round(took / 200 * 1e6, 1)


def measure(live: Side, plain: Side, minutes: float, before: list[list[float]]) -> dict[str, Any]:
    for side in (live, plain, live, plain):  # warm up both
        side.seconds()
    assert live.tokens == plain.tokens, "the feed changed the output"
    pairs = alternate(live.seconds, plain.seconds, minutes, before)
    return {
        **figures_of(pairs),
        "tokens_per_run": sum(map(len, plain.tokens)),
        "seconds": [[round(x, 4) for x in pair] for pair in pairs],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="tiny, hidden-1024 or the path of a model")
    parser.add_argument("--viewer", action="store_true", help="someone is looking on")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--more", action="store_true", help="add to the pairs that --json holds")
    args = parser.parse_args()
    if args.more and args.json is None:
        parser.error("--more: expected --json FILE beside it, got none")
    before = json.loads(args.json.read_text())["seconds"] if args.more else []
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

    import routestats as rs

    questions = prompts(args.requests)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = settings_of(
            args.model,
            folder,
            dtype="auto",
            max_model_len=1024,
            enforce_eager=True,
            enable_prefix_caching=False,
        )
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=args.max_tokens, ignore_eos=True)
        rs.enable()
        with engine(**arguments) as llm:
            live = Side(llm, questions, params, folder / "live", live=True)
            plain = Side(llm, questions, params, folder / "plain", live=False)
            check(live)
            with viewer(live.run) if args.viewer else contextlib.nullcontext():
                figures = measure(live, plain, args.minutes, before)
    figures = {
        "model": args.model if args.model in ("tiny", "hidden-1024") else "path",
        "viewer": args.viewer,
        **figures,
        "cores": os.cpu_count(),
        "publish_cpu_us": {
            f"{layers} x {experts} top-{top_k}, {rows} rows": publish_us(
                layers, experts, top_k, rows
            )
            for layers, experts, top_k in ((8, 8, 2), (32, 8, 2), (58, 256, 8))
            for rows in (16, 2048)
        },
    }
    print(
        f"{figures['model']}{', looked at' if args.viewer else ''}: with the feed / without = "
        + line_of(figures)
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
