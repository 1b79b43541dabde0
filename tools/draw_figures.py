"""Every figure of routing statistics, as PNG: what each is made from, and how it is called.

    python tools/draw_figures.py study/tiny-humaneval-gsm8k -o figures/tiny
    python tools/draw_figures.py --synthetic dsv3 --tokens 5000 -o figures/synthetic
    python tools/draw_figures.py study/tiny-humaneval-gsm8k --gallery -o docs/images/gallery

The second draws a made-up trace of a large model's shape (``bench/_workload.py``): 58 layers of 256
experts, top-8. Its two domains differ in the upper half of the layers, for some of the requests.
Figures of what was measured inside an engine (timing, lookahead, confidence, speculation) need a
run that holds it: ``routestats report`` draws them. The third makes the pictures of the gallery.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import routestats as rs
from routestats import plots, stats

REQUEST_TOKENS = 50
WINDOW = 8  # layers of the short paths
SEGMENTS = (4, 8, 16, 32)
GALLERY = (
    *("prediction", "hop_accuracy", "matrix_gain", "matrix_beyond_token", "matrix_correlation"),
    *("affinity_grid", "affinity", "expert_load", "load_by_domain", "load_difference"),
    *("domain_divergence", "transfer", "path_coverage", "path_frequencies", "path_flow"),
    *("path_flow_window", "repetition", "segment_routing", "put_together"),
)
HOPS = (0, 1, 2, 4, 8, 16, 32)  # of a model with many experts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", help="a run folder")
    parser.add_argument("--synthetic", choices=("mixtral", "qwen3", "dsv3"))
    parser.add_argument("--tokens", type=int, default=5_000, help="of the synthetic trace")
    parser.add_argument("--only", nargs="+", default=(), help="figures whose names begin so")
    parser.add_argument("--gallery", action="store_true", help="those of the docs, as small files")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.synthetic is None):
        parser.error("expected a run folder or --synthetic")
    if arguments.run is not None:
        trace, note = rs.Trace.open(arguments.run), Path(arguments.run).name
    else:
        trace, note = synthetic(arguments.synthetic, arguments.tokens), "synthetic"
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, draw in figures(trace, note).items():
        if arguments.only and not name.startswith(tuple(arguments.only)):
            continue
        if arguments.gallery and name not in GALLERY:
            continue
        start = time.perf_counter()
        picture = arguments.output / f"{name}.png"
        draw().savefig(picture, dpi=100)
        if arguments.gallery:
            make_small(picture)
        print(f"{name:26s} {time.perf_counter() - start:6.1f} s", flush=True)


def make_small(picture: Path) -> None:
    """Write a picture again with 256 colours, a third of its size."""
    from PIL import Image

    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


class Results:
    """What the figures are made from, each computed when it is first asked for."""

    def __init__(self, trace: rs.Trace) -> None:
        self.trace = trace
        self.large = trace.shape.num_experts > 64
        # All pairs of 58 layers of 256 experts take a gigabyte: of such, some distances.
        some = tuple(hop for hop in HOPS if hop < trace.shape.num_layers)
        self.hops: tuple[int, ...] | str = some if self.large else "all"

    @cached_property
    def counts(self) -> rs.RouteCounts:
        return rs.count(self.trace, hops=self.hops, pairing="any")

    @cached_property
    def loads(self) -> dict[str, stats.ExpertLoad]:
        parts = {name: self.trace.filter(domain=name) for name in self.trace.domains}
        return {
            name: stats.expert_load(rs.count(part, hops=(), pairing="any"))
            for name, part in parts.items()
        }

    @cached_property
    def accuracy(self) -> stats.HopAccuracy:
        return stats.hop_accuracy(*self.trace.split(test=0.2))

    @cached_property
    def information(self) -> stats.Information:
        hops = self.hops if isinstance(self.hops, str) else self.hops[1:]
        return stats.information(self.trace, hops=hops, null_draws=2 if self.large else 5)

    @cached_property
    def differences(self) -> list[stats.DomainDifference]:
        return [
            stats.compare_domains(self.trace, phase=phase, hops=())
            for phase in ("prefill", "decode")
        ]

    @cached_property
    def paths(self) -> stats.Paths:
        return stats.paths(self.trace, kind="top1")

    @cached_property
    def segments(self) -> list[stats.SegmentRouting]:
        return [stats.segment_routing(self.trace, m) for m in SEGMENTS]


def figures(trace: rs.Trace, note: str) -> dict[str, Callable[[], Figure]]:
    """Name of each figure, and the call that draws it."""
    made = Results(trace)
    last = trace.shape.num_layers - 1
    far = max(hop for hop in HOPS if hop <= last)
    window = min(WINDOW, trace.shape.num_layers)
    few = min(8, trace.shape.num_experts)
    recall = f"recall_at_{trace.shape.top_k}"
    return {
        "expert_load": lambda: plots.expert_load(stats.expert_load(made.counts), note=note),
        "load_by_domain": lambda: plots.load_by_domain(made.loads, note=note),
        "load_difference": lambda: plots.load_difference(made.differences[0], note=note),
        "domain_divergence": lambda: plots.domain_divergence(*made.differences, note=note),
        "transfer": lambda: plots.transfer(stats.transfer(trace), note=note),
        "affinity_grid": lambda: plots.affinity_grid(made.counts, note=note),
        "affinity": lambda: plots.affinity(stats.affinity(made.counts, 0, 1), note=note),
        "affinity_far": lambda: plots.affinity(stats.affinity(made.counts, 0, far), note=note),
        "affinity_busiest": lambda: plots.affinity(
            stats.affinity(made.counts, last - 1, last), top=few, relative=False, note=note
        ),
        "matrix_accuracy": lambda: plots.layer_matrix(made.accuracy, note=note),
        "matrix_gain": lambda: plots.layer_matrix(made.accuracy, gain=True, note=note),
        "matrix_recall": lambda: plots.layer_matrix(
            made.accuracy, recall, predictor="history_selected", baseline="uniform"
        ),
        "matrix_information": lambda: plots.layer_matrix(made.information, note=note),
        "matrix_beyond_token": lambda: plots.layer_matrix(
            made.information, "mi_bits", baseline="token", gain=True
        ),
        "matrix_cramers_v": lambda: plots.layer_matrix(made.information, "cramers_v"),
        "matrix_correlation": lambda: plots.layer_matrix(stats.correlation(made.counts)),
        "matrix_correlation_largest": lambda: plots.layer_matrix(
            stats.correlation(made.counts), "largest"
        ),
        "hop_accuracy": lambda: plots.hop_accuracy(made.accuracy, note=note),
        "prediction": lambda: plots.prediction(made.accuracy, note=note),
        "path_coverage": lambda: plots.path_coverage(
            made.paths, stats.paths(trace, kind="set"), note=note
        ),
        "path_frequencies": lambda: plots.path_frequencies(made.paths, note=note),
        "path_frequencies_window": lambda: plots.path_frequencies(
            rs.count_paths(trace, length=window), note=note
        ),
        "path_flow": lambda: plots.path_flow(rs.count_paths(trace), note=note),
        "path_flow_window": lambda: plots.path_flow(
            rs.count_paths(trace, start=0, length=window), top=20, note=note
        ),
        "repetition": lambda: plots.repetition(stats.repetition(trace), note=note),
        "segment_routing": lambda: plots.segment_routing(*made.segments, note=note),
        "segment_routing_one": lambda: plots.segment_routing(made.segments[2], note=note),
        "put_together": lambda: put_together(made),
    }


def put_together(made: Results) -> Figure:
    """Any of them on Axes of one's own."""
    figure = Figure(figsize=(17, 10), layout="constrained")
    panels = figure.subplots(2, 3)
    plots.layer_matrix(made.accuracy, ax=panels[0, 0])
    plots.affinity(stats.affinity(made.counts, 0, 1), ax=panels[0, 1])
    plots.load_difference(made.differences[0], ax=panels[0, 2])
    plots.path_frequencies(made.paths, ax=panels[1, 0])
    plots.repetition(stats.repetition(made.trace), "shared", ax=panels[1, 1])
    plots.segment_routing(*made.segments, measure="sch", ax=panels[1, 2])
    return figure


def synthetic(shape: str, tokens: int) -> rs.Trace:
    """A trace of `bench/_workload.py`, in two domains."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
    from _workload import SHAPES, make_trace

    first, second = (make_trace(SHAPES[shape], tokens, seed=seed) for seed in (0, 1))
    return two_domains(first, second, SHAPES[shape].E)


def two_domains(
    first: npt.NDArray[np.integer], second: npt.NDArray[np.integer], num_experts: int
) -> rs.Trace:
    """Requests of 50 tokens, half read and half written; in half of them the domain is maths.

    A third of its requests have the upper half of their layers from `second`, all else is of
    `first`. A token's id is what it chose at layer 0.
    """
    experts = first.copy()
    tokens, layers = first.shape[:2]
    request, position = np.divmod(np.arange(tokens), REQUEST_TOKENS)
    half = request.max() // 2
    elsewhere = (request > half) & (request % 3 == 0)
    experts[elsewhere, layers // 2 :] = second[elsewhere, layers // 2 :]
    return rs.Trace.from_arrays(
        experts,
        num_experts=num_experts,
        request_ids=[f"r{number}" for number in request],
        positions=position,
        token_ids=experts[:, 0, 0].astype(np.int64) * num_experts + experts[:, 0, 1],
        phase=np.where(position < REQUEST_TOKENS // 2, "prefill", "decode").tolist(),
        domain={f"r{n}": "code" if n <= half else "maths" for n in range(request.max() + 1)},
        ordered=True,
    )


if __name__ == "__main__":
    main()
