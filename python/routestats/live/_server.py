"""Serving the page on an address and port, to pages of allowed origins."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routestats.errors import InvalidValueError, RouteStatsError
from routestats.live._state import WINDOW_ROWS, LiveState
from routestats.trace.files import one_line

ADDRESS, PORT = "127.0.0.1", 5006


class DashboardServer:
    """The live view of one run, served by one thread for any number of viewers.

    Parameters
    ----------
    run_dir : path
        A run, or where one will be.
    address : str
        By default only this machine can reach it.
    port : int
        0 for any that is free.
    allow_origins : sequence of str
        ``host:port`` of further pages that may connect. The server's own is always allowed, and
        of a server on ``127.0.0.1`` also ``localhost``.
    window : int
        Tokens of the sliding window.
    tokenizer : str, optional
        Folder, file or hub id; by default looked for on this machine.

    Raises
    ------
    RouteStatsError
        If Bokeh is not installed, or the port cannot be had.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        address: str = ADDRESS,
        port: int = PORT,
        allow_origins: Sequence[str] = (),
        window: int = WINDOW_ROWS,
        tokenizer: str | None = None,
    ) -> None:
        require_bokeh()
        for origin in allow_origins:
            _check_origin(origin)
        self.state = LiveState(run_dir, window=window, tokenizer=tokenizer)
        self._address = address
        self._sockets, self.port = _bind(address, port)
        own = {address, "localhost"} if address in ("127.0.0.1", "::1") else {address}
        self.origins = (*sorted(f"{_host(name)}:{self.port}" for name in own), *allow_origins)
        self._loop: Any = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{_host(self._address)}:{self.port}/"

    def run(self) -> None:
        """Serve until `stop`, or until the process is interrupted."""
        from bokeh.application import Application
        from bokeh.application.handlers.function import FunctionHandler
        from bokeh.server.server import BaseServer
        from bokeh.server.tornado import BokehTornado
        from tornado.httpserver import HTTPServer
        from tornado.ioloop import IOLoop

        from routestats.live._app import Page

        policy_loop = asyncio.new_event_loop()
        asyncio.set_event_loop(policy_loop)
        self._loop = IOLoop.current()
        application = Application(FunctionHandler(lambda document: _keep(document, Page, self)))
        tornado = BokehTornado(
            {"/": application},
            extra_websocket_origins=list(self.origins),
            # How long a page without a viewer is kept.
            unused_session_lifetime_milliseconds=5_000,
            check_unused_sessions_milliseconds=2_500,
        )
        http = HTTPServer(tornado)
        http.add_sockets(self._sockets)
        server = BaseServer(self._loop, tornado, http)
        server.start()
        self._ready.set()
        try:
            self._loop.start()
        finally:
            server.stop(wait=True)
            http.stop()
            self.state.close()
            policy_loop.run_until_complete(policy_loop.shutdown_asyncgens())
            self._loop.close(all_fds=True)
            asyncio.set_event_loop(None)

    def start(self) -> DashboardServer:
        """Serve on a thread of its own, which does not keep the process alive."""
        self._thread = threading.Thread(target=self.run, name="routestats-live", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout=60):
            raise RouteStatsError("live view: expected its server to start within 60 s, it did not")
        return self

    def stop(self) -> None:
        """Stop serving; may be called any number of times."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.add_callback(self._loop.stop)
            self._thread.join(timeout=10)
        for one in self._sockets:
            one.close()

    def __enter__(self) -> DashboardServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"live view of {self.state.run_dir} at {self.url}"


def require_bokeh() -> None:
    """Raise `RouteStatsError` if Bokeh is not installed."""
    # Bokeh imports pandas when it streams, and fails if another thread is importing it just then.
    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401
    try:
        import bokeh.server.tornado  # noqa: F401
    except ImportError:
        raise RouteStatsError(
            "the live view needs Bokeh, which is not installed: pip install 'routestats[live]'"
        ) from None


def _keep(document: Any, page: Any, server: DashboardServer) -> None:
    page(document, server.state)  # the document's callbacks hold it


def _bind(address: str, port: int) -> tuple[list[socket.socket], int]:
    from tornado.netutil import bind_sockets

    try:
        sockets = bind_sockets(port, address)
    except (OSError, OverflowError) as error:
        raise RouteStatsError(
            f"{_host(address)}:{port}: cannot be served: {one_line(error)}"
        ) from None
    return sockets, sockets[0].getsockname()[1]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _check_origin(origin: str) -> None:
    host, colon, port = origin.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in origin or "*" in host:
        raise InvalidValueError(f"allow-origin: expected HOST:PORT, got {origin!r}")
