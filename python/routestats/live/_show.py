"""`rs.live.show`: the live view in a notebook cell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routestats.errors import InvalidTypeError
from routestats.live._server import ADDRESS, DashboardServer
from routestats.live._state import WINDOW_ROWS
from routestats.trace.files import read_run_file


def show(
    run: Any,
    *,
    port: int = 0,
    address: str = ADDRESS,
    allow_origins: Sequence[str] = (),
    window: int = WINDOW_ROWS,
    tokenizer: str | None = None,
    height: int = 1150,
) -> DashboardServer:
    """Show a run while it is written, below the cell that calls this.

    It is the page of ``routestats dashboard``, served by a thread of this process, so that it goes
    on while the cell generates.

    Parameters
    ----------
    run : path, or what ``rs.capture`` gives
        A run's folder, or anything with one as its ``run_dir``.
    port : int
        By default any that is free.
    address : str
        By default only this machine can reach it.
    allow_origins : sequence of str
        ``host:port`` of further pages that may connect, such as a proxy's.
    window : int
        Tokens of the sliding window.
    tokenizer : str, optional
        Folder, file or hub id of the tokenizer; by default looked for on this machine.
    height : int
        Of the cell's output, in pixels.

    Returns
    -------
    DashboardServer
        With ``url``, and ``stop()``, which ends it.

    Raises
    ------
    TraceError
        If there is no such run.
    RouteStatsError
        If Bokeh is not installed, or the port cannot be had.

    Examples
    --------
    >>> with rs.capture(llm, "runs/mixtral") as capture:  # doctest: +SKIP
    ...     rs.live.show(capture)
    ...     llm.generate(prompts, params)
    """
    folder = getattr(run, "run_dir", run)
    if not isinstance(folder, (str, os.PathLike)):
        raise InvalidTypeError(f"run: expected a path or a capture, got {type(run).__name__}")
    path = Path(folder)
    read_run_file(path)
    server = DashboardServer(
        path,
        address=address,
        port=port,
        allow_origins=allow_origins,
        window=window,
        tokenizer=tokenizer,
    ).start()
    try:
        from IPython import get_ipython
        from IPython.display import IFrame, display
    except ImportError:
        return server
    if get_ipython() is not None:
        # A frame has the server's own origin, whatever the notebook's address is.
        display(IFrame(server.url, width="100%", height=height))  # type: ignore[no-untyped-call]
    return server
