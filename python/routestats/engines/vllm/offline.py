"""An engine in this process that answers prompts offline, with capture: vLLM's ``LLM``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routestats.data.datasets import Prompt
from routestats.engines.capture import capture, enable
from routestats.engines.vllm.control import call_worker
from routestats.errors import CaptureError, DataError


def start_engine(settings: dict[str, Any], *, compiled: bool, verbose: bool) -> Any:
    """A ``vllm.LLM`` that is ready for capture.

    Parameters
    ----------
    settings : dict
        Passed to ``vllm.LLM``.
    compiled : bool
        Compile also where there is no GPU: it takes two minutes on a CPU, more than a study of
        routing gains by it.
    verbose : bool
        Show the engine's own log.

    Raises
    ------
    CaptureError
        If vLLM cannot be imported, or the engine does not start.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    enable()
    try:
        import torch
        from vllm import LLM
    except ImportError as error:
        raise CaptureError(f"vllm: cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        settings = {"enforce_eager": not compiled, **settings}
    try:
        llm = LLM(**settings)
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        raise CaptureError(f"the engine does not start: {type(error).__name__}: {line}") from None
    _speak_for(llm)
    return llm


def _speak_for(llm: Any) -> None:
    """Say what the engine's own log, which may be hidden, says of its capture.

    Raises
    ------
    CaptureError
        If the engine cannot be captured.
    """
    about = call_worker(llm, "routestats_about")
    if about["refusal"] is not None:
        raise CaptureError(about["refusal"])
    if about["warning"] is not None:
        print(f"routestats: {about['warning']}", file=sys.stderr)


def check_lengths(llm: Any, name: str, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """Refuse prompts that leave no room for `max_tokens` further tokens.

    Raises
    ------
    DataError
        For the first such prompt of data set `name`.
    """
    tokenizer = llm.get_tokenizer()
    longest = llm.llm_engine.model_config.max_model_len
    for prompt in prompts:
        tokens = len(tokenizer.encode(prompt.text))
        if tokens + max_tokens > longest:
            raise DataError(
                f"{name}: expected at most {longest} tokens, the model's limit, got {tokens} of "
                f"{prompt.task_id} and up to {max_tokens} of the answer"
            )


def generate(
    llm: Any,
    prompts: Sequence[Prompt],
    run_dir: Path,
    domain: str,
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
    **options: Any,
) -> dict[str, Any]:
    """Answer prompts with capture, behind a progress bar; `options` are those of `rs.capture`.

    Returns
    -------
    dict
        The capture's totals, and ``output_tokens``, ``seconds``, ``rows_per_s``.

    Raises
    ------
    RouteStatsError
        What `rs.capture` raises.
    """
    from vllm import SamplingParams

    params = SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed)
    begin = time.perf_counter()
    with capture(llm, run_dir, domain, **options) as captured:
        outputs = llm.generate(
            [prompt.text for prompt in prompts], params, use_tqdm=_progress_bar(domain, captured)
        )
        captured.label(outputs, task_ids=[prompt.task_id for prompt in prompts])
    seconds = time.perf_counter() - begin
    return {
        **{k: v for k, v in captured.summary.items() if k not in ("depth", "error")},
        "output_tokens": sum(len(o.token_ids) for output in outputs for o in output.outputs),
        "seconds": round(seconds, 2),
        "rows_per_s": round(captured.summary["rows"] / seconds, 1),
    }


def _progress_bar(name: str, captured: Any) -> Any:
    from tqdm import tqdm

    class Progress(tqdm):  # type: ignore[misc]
        """vLLM's own bar, with the rows that were captured."""

        _asked = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            now = time.monotonic()
            if now - self._asked > 1.0:
                self._asked = now
                seen = captured.progress()
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
