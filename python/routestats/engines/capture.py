"""`rs.enable` and `rs.capture`, the public face of capture."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, SupportsIndex

from routestats.arguments import check_path
from routestats.engines.recorder_options import RecorderOptions
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.schema import DEFAULT_DOMAIN, check_domain


class Capture(Protocol):
    """What `capture` gives inside its ``with`` block."""

    run_dir: Path
    summary: dict[str, Any]

    def progress(self) -> dict[str, int]:
        """Rows, drops and requests so far."""

    def label(self, outputs: Any = None, *, task_ids: Any = None, groups: Any = None) -> None:
        """Say which item of a data set each output answers; vLLM's outputs must be given."""


def enable() -> None:
    """Make every vLLM engine that is created from now on ready for `capture`.

    Engines run in processes of their own, which inherit the setting (``ROUTESTATS_ENABLE=1``). An
    engine that is already running is not changed.
    """
    from routestats.engines.vllm.plugin import ENABLE_VARIABLE, register

    os.environ[ENABLE_VARIABLE] = "1"
    if "vllm.v1.worker.worker_base" in sys.modules:
        # vLLM loads its plugins once per process, perhaps before this call.
        register()


def capture(
    model: Any,
    run_dir: str | os.PathLike[str],
    domain: str = DEFAULT_DOMAIN,
    *,
    weights: bool = True,
    policy: Literal["block", "drop"] = "block",
    ring_rows: int | None = None,
    flush_rows: int = 65_536,
    flush_seconds: float = 10.0,
    counts: bool = False,
    paths: bool = False,
    lookahead: int | Sequence[int] = 0,
    live: bool = True,
) -> AbstractContextManager[Capture]:
    """Capture the routing of everything `model` generates inside a ``with`` block.

    Repeated captures into one folder make one run. A capture inside another changes the domain
    while it lasts.

    Parameters
    ----------
    model : vllm.LLM or transformers.PreTrainedModel
        A vLLM engine that was created after `enable` or is eager, or a transformers MoE model.
    run_dir : path
        Folder of the run: new, empty, or a run of the same model.
    domain : str
        Name of what the prompts are, e.g. ``humaneval``: up to 100 letters, digits, ``_``, ``.``
        and ``-``.
    weights : bool
        Keep gate weights (float16). The ids are ordered by weight in any case.
    policy : {"block", "drop"}
        When the ring is full: the engine waits, or the step's rows are dropped and counted.
    ring_rows : int, optional
        Rows that the ring holds, at least the engine's ``max_num_batched_tokens``; by default four
        times as many, and at least 32,768. A row takes three bytes per layer and choice (1.4 kB for
        DeepSeek-V3, Mixtral-8x7B 0.2 kB), in the memory of the engine's device where the routing is
        computed on a GPU, and as much in the host's. There the memory is made when the engine
        starts, so a larger ring than the default's is refused.
    flush_rows : int
    flush_seconds : float
        A Parquet file is written when either is reached.
    counts : bool
        Also count loads, co-activation and adjacent layers as rows arrive, and save the counts
        (``counts-any.npz``). They are of all rows of the run, those of earlier captures too.
    paths : bool
        Also count full paths as rows arrive, and save the 1,000 most frequent ones
        (``paths-top1.parquet``, ``paths-set.parquet``). They are of all rows of the run: after a
        second capture the run is counted again or, where it is large, they are not saved, and
        ``run.json`` says why. Saved counts and paths go when a capture without these options adds
        rows, or when one fails.
    lookahead : int or sequence of int
        At every layer l, also apply the gates of layers l+1 to l+H, or of those at the given hops,
        to the hidden state that enters l's experts, and keep what they would choose. For an eager
        vLLM engine only. See `routestats.stats.lookahead`.
    live : bool
        Publish the newest rows for `routestats.live`, in a file of some 8 MiB that is removed at
        the end.

    Returns
    -------
    context manager of Capture

    Raises
    ------
    CaptureError
        If the engine cannot be captured, or was not captured completely.
    TraceError
        If the run cannot be written.
    InvalidTypeError, InvalidValueError
        If an argument is wrong.

    Examples
    --------
    >>> with rs.capture(llm, "runs/mixtral", domain="humaneval"):  # doctest: +SKIP
    ...     llm.generate(prompts, params)
    """
    options = RecorderOptions(
        weights=weights,
        policy=policy,
        ring_rows=ring_rows,
        flush_rows=flush_rows,
        flush_seconds=flush_seconds,
        counts=counts,
        paths=paths,
        lookahead=lookahead_hops(lookahead),
        live=live,
    )
    path, domain = check_path("run_dir", run_dir), check_domain(domain)
    if hasattr(model, "collective_rpc") and hasattr(model, "llm_engine"):
        from routestats.engines.vllm.control import VllmCapture

        return VllmCapture(model, path, domain, options)
    if hasattr(model, "forward") and hasattr(model, "config"):
        from routestats.engines.transformers.capture import TransformersCapture

        if options.lookahead:
            raise InvalidValueError("lookahead: expected a vLLM engine, got a transformers model")
        return TransformersCapture(model, path, domain, options)
    raise InvalidTypeError(
        f"model: expected a vllm.LLM or a transformers model, got {type(model).__name__}"
    )


def lookahead_hops(lookahead: int | Sequence[int]) -> tuple[int, ...]:
    """Hops from 1 to H, or those given, ascending.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If it is no integer or sequence of them, or one is below 1.
    """
    several = isinstance(lookahead, Iterable)
    hops = tuple(lookahead) if isinstance(lookahead, Iterable) else (lookahead,)
    if any(isinstance(hop, bool) or not isinstance(hop, SupportsIndex) for hop in hops):
        raise InvalidTypeError(f"lookahead: expected an integer or integers, got {lookahead!r}")
    hops = tuple(map(operator.index, hops))
    if any(hop < several for hop in hops):
        raise InvalidValueError(f"lookahead: expected hops of at least 1, got {lookahead}")
    return tuple(sorted(set(hops))) if several else tuple(range(1, hops[0] + 1))
