"""``routestats profile``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routestats.cli._arguments import add_json, add_seed, positive
from routestats.cli.timing import text as timing_text
from routestats.data import datasets
from routestats.data.datasets import DataSpec, Prompt
from routestats.engines.vllm.offline import check_lengths, generate, start_engine
from routestats.engines.vllm.timed_rounds import BATCHES, time_rounds
from routestats.errors import DataError, TraceError
from routestats.models.built_in import tiny_settings
from routestats.models.choice import ModelChoice, layers_of, resolve
from routestats.schema import RUN_FILE
from routestats.stats import timing
from routestats.trace import Trace

HELP = "run a model over prompts in vLLM, and capture its routing"
EXAMPLES = (
    ("tiny --data humaneval --limit 20 -o runs/first", "the built-in model, on 20 prompts"),
    (
        "mistralai/Mixtral-8x7B-v0.1 --data humaneval --data gsm8k "
        "--engine-arg tensor_parallel_size=2 -o runs/mixtral",
        "the founding study, on two GPUs",
    ),
    ("ORG/NAME --data mine=prompts.jsonl:question -o runs/mine", "a field of your own file"),
    ("tiny --data humaneval --limit 4 --timing -o runs/timed", "also time every MoE layer"),
)
TIMED_TOKENS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the prompts, the run, and what else to measure."""
    parser.add_argument("model", metavar="MODEL", help="hub id, folder, or 'tiny' (built in)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run"
    )
    add_seed(parser, "the engine and of sampling")
    parser.add_argument("--verbose", action="store_true", help="show the engine's own log")
    add_json(parser)

    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "--data",
        action="append",
        type=_data_set,
        required=True,
        metavar="NAME[=PATH[:FIELD]]",
        help=f"{', '.join(datasets.NAMES)}, or NAME=FILE.jsonl[:FIELD] or NAME=FILE.txt of your "
        "own; repeatable",
    )
    prompts.add_argument(
        "--limit",
        action="append",
        type=_limit,
        default=[],
        metavar="[NAME=]N",
        help="use the first N prompts of data set NAME, or of each one; repeatable",
    )
    prompts.add_argument(
        "--gsm8k-file", type=Path, metavar="PATH", help="GSM8K as a .jsonl file (default: the hub)"
    )
    prompts.add_argument(
        "--or-mathwords",
        action="store_true",
        help="use the built-in mathwords, under that name, where GSM8K cannot be had",
    )
    prompts.add_argument(
        "--max-tokens",
        type=positive,
        default=64,
        metavar="N",
        help="tokens to generate for each prompt (default: 64)",
    )
    prompts.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="sampling temperature (default: 0, greedy)",
    )

    engine = parser.add_argument_group("engine and capture")
    engine.add_argument(
        "--engine-arg",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help="passed to vllm.LLM, e.g. tensor_parallel_size=2; repeatable",
    )
    engine.add_argument("--compile", action="store_true", help="use torch.compile on a CPU, too")
    engine.add_argument("--no-weights", action="store_true", help="do not keep gate weights")
    engine.add_argument(
        "--policy",
        choices=("block", "drop"),
        default="block",
        help="where the ring buffer is full: make the engine wait, or drop and count rows "
        "(default: block)",
    )
    engine.add_argument(
        "--lookahead",
        type=_hops,
        default=(),
        metavar="H",
        help="also apply the gates of the next H layers (or of those at hops H1,H2,...) to each "
        "layer's hidden state; needs an eager engine",
    )

    timed = parser.add_argument_group("timing")
    timed.add_argument(
        "--timing",
        action="store_true",
        help="afterwards time the stages of every MoE layer, in a pass of its own: each round "
        f"generates {TIMED_TOKENS} tokens four times for a batch, which may take longer than the "
        "capture (a progress bar says how long); needs an eager engine",
    )
    timed.add_argument(
        "--torch-profiler",
        action="store_true",
        help="with --timing: time the same stages by torch.profiler, and keep its Chrome trace",
    )
    timed.add_argument(
        "--timing-batch",
        action="append",
        type=positive,
        metavar="N",
        help="requests at a time while timing; repeatable (default: "
        f"{', '.join(map(str, BATCHES))})",
    )
    timed.add_argument(
        "--timing-pairs",
        type=positive,
        default=8,
        metavar="N",
        help="rounds of each batch, with clocks and without (default: 8)",
    )


def run(args: argparse.Namespace) -> int:
    """Capture, time if asked to, and print what came of it."""
    if args.compile and (args.timing or args.lookahead):
        raise argparse.ArgumentError(
            None, "--compile: --timing and --lookahead need an eager engine"
        )
    if args.torch_profiler and not args.timing:
        raise argparse.ArgumentError(None, "--torch-profiler: expected --timing beside it")
    specs = limited(args.data, args.limit)
    data = _load_data(specs, args)
    model = resolve(args.model)
    check_lookahead(args.lookahead, model)
    _check_output(args.output)
    print("routestats: starting the engine", file=sys.stderr)
    llm = start_engine(_settings(args, model), compiled=args.compile, verbose=args.verbose)
    for name, prompts in data.items():
        check_lengths(llm, name, prompts, args.max_tokens)
    rows = {
        name: generate(
            llm,
            prompts,
            args.output,
            name,
            temperature=args.temperature,
            max_tokens=args.max_tokens,
            seed=args.seed,
            weights=not args.no_weights,
            policy=args.policy,
            lookahead=args.lookahead,
        )
        for name, prompts in data.items()
    }
    if args.timing:
        begin = time.perf_counter()
        time_rounds(
            llm,
            _interleaved(data),
            args.output,
            rounds=args.timing_pairs,
            tokens=min(args.max_tokens, TIMED_TOKENS),
            batches=args.timing_batch or BATCHES,
            profiler=args.torch_profiler,
            seed=args.seed,
        )
        print(f"routestats: timing took {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    _summarise(args, model, rows)
    if args.timing:
        print(timing_text(timing(args.output)), file=sys.stderr if args.json else sys.stdout)
    return 0


def _data_set(text: str) -> DataSpec:
    try:
        return DataSpec.parse(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _limit(text: str) -> tuple[str | None, int]:
    name, _, number = text.rpartition("=")
    if not number.isdecimal() or int(number) < 1 or (not name and "=" in text):
        raise argparse.ArgumentTypeError(
            f"expected NAME=N, or N for every data set, with N at least 1, got {text!r}"
        )
    return name or None, int(number)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, {"True": True, "False": False, "None": None}.get(value, value)


def _hops(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected hops of at least 1, a number or several such as 1,2,4, got {text!r}"
        )
    numbers = [int(part) for part in parts]
    return tuple(range(1, numbers[0] + 1)) if len(numbers) == 1 else tuple(sorted(set(numbers)))


def limited(specs: Sequence[DataSpec], limits: Sequence[tuple[str | None, int]]) -> list[DataSpec]:
    """Data sets with their limits: one's own, else that of every data set.

    Raises
    ------
    argparse.ArgumentError
        If a data set is given twice, or a limit is for a data set that is not given.
    """
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise argparse.ArgumentError(None, f"--data {name}: given twice")
    wanted = dict(limits)
    for limit in wanted:
        if limit is not None and limit not in names:
            raise argparse.ArgumentError(
                None, f"--limit {limit}: expected one of the data {', '.join(names)}"
            )
    return [replace(spec, limit=wanted.get(spec.name, wanted.get(None))) for spec in specs]


def check_lookahead(hops: Sequence[int], model: ModelChoice) -> None:
    """Refuse hops that reach beyond the model before an engine is started for them.

    A model cannot have more MoE layers than layers. If its config cannot be read, the engine has
    to say it.

    Raises
    ------
    argparse.ArgumentError
        If a hop is not below the number of layers.
    """
    layers = layers_of(model) if hops else None
    if layers is not None and max(hops) >= layers:
        raise argparse.ArgumentError(
            None,
            f"--lookahead: expected hops from 1 to {layers - 1} in {model.name}, a model of "
            f"{layers} layers, got {max(hops)}",
        )


def _load_data(specs: Sequence[DataSpec], args: argparse.Namespace) -> dict[str, list[Prompt]]:
    data = {}
    for spec in specs:
        try:
            data[spec.name] = datasets.load(spec, args.gsm8k_file)
        except DataError as error:
            if spec.name != "gsm8k" or args.gsm8k_file or not args.or_mathwords:
                raise
            print(f"routestats: {error}", file=sys.stderr)
            print("routestats: using mathwords instead", file=sys.stderr)
            data["mathwords"] = datasets.load(replace(spec, name="mathwords"))
    return data


def _settings(args: argparse.Namespace, model: ModelChoice) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": model.path,
        "served_model_name": model.name,
        "seed": args.seed,
        # Cached prompt tokens are not computed and so have no rows: a study wants them all.
        "enable_prefix_caching": False,
    }
    if args.timing or args.lookahead:
        settings["enforce_eager"] = True
    settings |= dict(args.engine_arg)
    return tiny_settings(**settings) if model.built_in else settings


def _check_output(run_dir: Path) -> None:
    """Find out before the engine starts whether the run can be written."""
    if (run_dir / RUN_FILE).exists():
        held = len(Trace.open(run_dir))
        print(
            f"routestats: {run_dir} is a run of {held:,} tokens already: what is captured now is "
            "added to it (another -o makes a run of its own)",
            file=sys.stderr,
        )
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        raise TraceError(f"{run_dir}: is no run and not empty; expected a new folder or a run")
    made = []
    try:
        folder = run_dir
        while not folder.exists():
            made.append(folder)
            folder = folder.parent
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".tmp-probe"
        probe.write_bytes(bytes(4096))
        probe.unlink()
    except OSError as error:
        raise TraceError(f"{run_dir}: cannot be written: {error.strerror}") from None
    finally:
        for folder in made:
            if folder.is_dir():
                folder.rmdir()


def _interleaved(data: dict[str, list[Prompt]]) -> list[str]:
    """Prompts of all data sets, one of each in turn."""
    longest = max(map(len, data.values()))
    return [
        prompts[i].text for i in range(longest) for prompts in data.values() if i < len(prompts)
    ]


def _summarise(
    args: argparse.Namespace, model: ModelChoice, rows: dict[str, dict[str, Any]]
) -> None:
    if args.json:
        print(json.dumps({"run": str(args.output), "model": model.name, "domains": rows}, indent=1))
        return
    head = ("domain", "requests", "rows", "output", "dropped", "seconds", "rows/s")
    keys = ("requests", "rows", "output_tokens", "dropped_rows", "seconds", "rows_per_s")
    print(f"{head[0]:<14}" + "".join(f"{title:>11}" for title in head[1:]))
    for name, figures in rows.items():
        print(f"{name:<14}" + "".join(f"{figures[key]:>11,}" for key in keys))
    total = sum(figures["rows"] for figures in rows.values())
    note = " (built in: small, briefly trained)" if model.built_in else ""
    print(f"{total:,} complete tokens of {model.name}{note} in {args.output}")
