"""``routestats profile``: prompts through vLLM, with capture."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from routestats.cli import _models, _timing, datasets
from routestats.errors import CaptureError, DataError, TraceError


def run(args: argparse.Namespace) -> int:
    needs_eager = bool(args.timing or args.lookahead)
    if args.compile and needs_eager:
        raise DataError("--compile: --timing and --lookahead need an eager engine")
    if args.torch_profiler and not args.timing:
        raise DataError("--torch-profiler: expected --timing beside it")
    data = _load_data(args)
    model = _models.resolve(args.model)
    _models.check_lookahead(args.lookahead, model)
    engine_args = _engine_args(args, model)
    _check_output(args.output)
    llm = _start_engine(engine_args, verbose=args.verbose)
    for name, prompts in data.items():
        _check_lengths(llm, name, prompts, args.max_tokens)
    rows = {name: _generate(llm, name, prompts, args) for name, prompts in data.items()}
    if args.timing:
        _timing.take(llm, data, args)
    _summarise(args, model, rows)
    if args.timing:
        print(_timing.text(args.output), file=sys.stderr if args.json else sys.stdout)
    return 0


def _load_data(args: argparse.Namespace) -> dict[str, list[datasets.Prompt]]:
    data = {}
    for spec in datasets.parse_specs(args.data, args.limit):
        try:
            data[spec.name] = datasets.load(spec, args.gsm8k_file)
        except DataError as error:
            if spec.name != "gsm8k" or args.gsm8k_file or not args.or_mathwords:
                raise
            print(f"routestats: {error}", file=sys.stderr)
            print("routestats: using mathwords instead", file=sys.stderr)
            data["mathwords"] = datasets.load(datasets.DataSpec("mathwords", limit=spec.limit))
    return data


def _engine_args(args: argparse.Namespace, model: _models.ModelChoice) -> dict[str, Any]:
    given: dict[str, Any] = {
        "model": model.path,
        "served_model_name": model.name,
        "seed": args.seed,
        # Cached prompt tokens are not computed and so have no rows: a study wants them all.
        "enable_prefix_caching": False,
    }
    if model.built_in:
        given["dtype"] = "float32"
    for text in args.engine_arg:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise DataError(f"--engine-arg {text}: expected NAME=VALUE")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = {"True": True, "False": False, "None": None}.get(value, value)
    given["_compile"] = args.compile
    if args.timing or args.lookahead:
        given.setdefault("enforce_eager", True)
    return given


def _check_output(run_dir: Path) -> None:
    """Find out before the engine starts whether the run can be written."""
    if (run_dir / "run.json").exists():
        from routestats.trace import Trace

        held = len(Trace.open(run_dir))
        print(
            f"routestats: {run_dir} is a run of {held:,} tokens already: what is captured now is "
            "added to it (another -o makes a run of its own)",
            file=sys.stderr,
        )
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        raise TraceError(f"{run_dir}: is no run and not empty")
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


def _start_engine(engine_args: dict[str, Any], *, verbose: bool) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import routestats as rs

    rs.enable()
    try:
        import torch
        from vllm import LLM
    except ImportError as error:
        raise CaptureError(f"vllm: cannot be imported: {error}") from None
    compiled = engine_args.pop("_compile")
    if not torch.cuda.is_available():
        # Compiling takes two minutes on a CPU, which a study of routing does not win back.
        engine_args.setdefault("enforce_eager", not compiled)
    print("routestats: starting the engine", file=sys.stderr)
    try:
        return LLM(**engine_args)
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        raise CaptureError(f"the engine does not start: {type(error).__name__}: {line}") from None


def _check_lengths(llm: Any, name: str, prompts: list[datasets.Prompt], max_tokens: int) -> None:
    tokenizer = llm.get_tokenizer()
    longest = llm.llm_engine.model_config.max_model_len
    for prompt in prompts:
        tokens = len(tokenizer.encode(prompt.text))
        if tokens + max_tokens > longest:
            raise DataError(
                f"{name}: {prompt.task_id} has {tokens} tokens, which with --max-tokens "
                f"{max_tokens} exceeds the model's {longest}"
            )


def _generate(
    llm: Any, name: str, prompts: list[datasets.Prompt], args: argparse.Namespace
) -> dict[str, Any]:
    from vllm import SamplingParams

    import routestats as rs

    params = SamplingParams(
        temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed
    )
    begin = time.perf_counter()
    with rs.capture(
        llm,
        args.output,
        domain=name,
        weights=not args.no_weights,
        policy=args.policy,
        lookahead=args.lookahead,
    ) as capture:
        outputs = llm.generate(
            [prompt.text for prompt in prompts], params, use_tqdm=_progress_bar(name, capture)
        )
        capture.label(outputs, task_ids=[prompt.task_id for prompt in prompts])
    seconds = time.perf_counter() - begin
    return {
        **{k: v for k, v in capture.summary.items() if k not in ("depth", "error")},
        "output_tokens": sum(len(o.token_ids) for output in outputs for o in output.outputs),
        "seconds": round(seconds, 2),
        "rows_per_s": round(capture.summary["rows"] / seconds, 1),
    }


def _progress_bar(name: str, capture: Any) -> Any:
    from tqdm import tqdm

    class Progress(tqdm):  # type: ignore[misc]
        """vLLM's own bar, which also tells what capture has taken in."""

        _asked = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            now = time.monotonic()
            if now - self._asked > 1.0:
                self._asked = now
                seen = capture.progress()
                seconds = max(self.format_dict["elapsed"], 1e-9)
                self.set_postfix_str(
                    f"{seen['rows']:,} rows, {seen['rows'] / seconds:,.0f} rows/s, "
                    f"{seen['dropped_rows']:,} dropped",
                    refresh=False,
                )
            shown: bool | None = super().update(n)
            return shown

    def bar(*positional: Any, **keywords: Any) -> Any:
        keywords.update(desc=name, unit="request", postfix=None)
        return Progress(*positional, **keywords)

    return bar


def _summarise(
    args: argparse.Namespace, model: _models.ModelChoice, rows: dict[str, dict[str, Any]]
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
