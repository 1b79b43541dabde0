"""`rs.time_stages`: how long the stages of a MoE layer take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from routestats.arguments import check_integer, check_path
from routestats.errors import InvalidTypeError, InvalidValueError, one_of
from routestats.schema import DEFAULT_DOMAIN, check_domain
from routestats.trace.timings import SOURCES


@dataclass(frozen=True, slots=True)
class TimingRequest:
    """What to time, and where it goes; its fields are the arguments of `time_stages`."""

    run_dir: str
    domain: str
    source: str
    warm_up: int
    max_steps: int

    def __post_init__(self) -> None:
        check_domain(self.domain)
        if self.source not in SOURCES:
            raise InvalidValueError(f"source: {one_of(SOURCES, self.source)}")
        for name, least in (("warm_up", 0), ("max_steps", 1)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), least))


@contextmanager
def time_stages(
    model: Any,
    run_dir: str | os.PathLike[str],
    domain: str = DEFAULT_DOMAIN,
    *,
    source: Literal["hooks", "outline", "profiler"] = "hooks",
    warm_up: int = 3,
    max_steps: int = 16,
) -> Iterator[dict[str, Any]]:
    """Time the stages of every MoE layer while `model` generates inside a ``with`` block.

    Nothing is captured at the same time, because that would change the times. They go into the
    run's folder ``timing/``; read them with `routestats.stats.timing`.

    Parameters
    ----------
    model : vllm.LLM
        Eager.
    run_dir : path
    domain : str
        Name of what the prompts are.
    source : {"hooks", "outline", "profiler"}
        Clocks around the stages; clocks around each whole MoE layer, to which the stages must add
        up; or ``torch.profiler``, whose Chrome trace is kept.
    warm_up : int
        Steps at the beginning that statistics leave out.
    max_steps : int
        Steps after which the profiler stops listening.

    Yields
    ------
    dict
        Filled when the block ends: ``steps`` and ``file``.

    Raises
    ------
    CaptureError
        If the engine is compiled, is being captured, or has a kernel that runs its stages in one
        piece.
    InvalidTypeError, InvalidValueError
        If an argument is wrong.

    Examples
    --------
    >>> with rs.time_stages(llm, "runs/mixtral", domain="humaneval"):  # doctest: +SKIP
    ...     llm.generate(prompts, params)
    """
    if not hasattr(model, "collective_rpc"):
        raise InvalidTypeError(f"model: expected a vllm.LLM, got {type(model).__name__}")
    path = check_path("run_dir", run_dir)
    request = TimingRequest(str(path.absolute()), domain, source, warm_up, max_steps)
    from routestats.engines.vllm.control import call_worker

    call_worker(model, "routestats_start_timing", asdict(request))
    summary: dict[str, Any] = {}
    try:
        yield summary
    except BaseException:
        call_worker(model, "routestats_stop_timing", False)
        raise
    summary.update(call_worker(model, "routestats_stop_timing", True))
