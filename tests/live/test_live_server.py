"""The dashboard's server: who may look, and what wrong use says."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nbclient
import nbformat
import pytest
from cli_cases import fails, run
from live_cases import FakeEngine

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError, RouteStatsError, TraceError
from routestats.live import DashboardServer

pytestmark = pytest.mark.filterwarnings("ignore::bokeh.util.warnings.BokehUserWarning")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    engine = FakeEngine(tmp_path / "run")
    for _ in range(10):
        engine.step()
    engine.close()
    return tmp_path / "run"


def connect(server: DashboardServer, origin: str) -> int:
    """Status that a page of `origin` gets when it opens the websocket."""
    from bokeh.util.token import generate_jwt_token, generate_session_id
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import websocket_connect

    token = generate_jwt_token(generate_session_id())

    async def attempt() -> int:
        request = HTTPRequest(server.url.replace("http", "ws") + "ws", headers={"Origin": origin})
        try:
            made = await websocket_connect(request, subprotocols=["bokeh", token])
        except HTTPClientError as error:
            return int(error.code)
        made.close()
        while await made.read_message() is not None:
            pass  # until the other side has closed, too
        return 101

    return asyncio.run(attempt())


def test_pages_of_other_origins_are_refused(finished: Path) -> None:
    with DashboardServer(finished, port=0, allow_origins=["lab.example:443"]) as server:
        port = server.port
        assert connect(server, "http://evil.example") == 403
        assert connect(server, f"http://evil.example:{port}") == 403
        assert connect(server, "http://127.0.0.1:1") == 403
        for origin in (f"127.0.0.1:{port}", f"localhost:{port}", "lab.example:443"):
            assert connect(server, f"http://{origin}") == 101


def test_only_this_machine_by_default(finished: Path) -> None:
    server = DashboardServer(finished, port=0)
    try:
        assert {one.getsockname()[0] for one in server._sockets} == {"127.0.0.1"}
        assert set(server.origins) == {f"127.0.0.1:{server.port}", f"localhost:{server.port}"}
    finally:
        server.stop()
    server = DashboardServer(finished, port=0, address="0.0.0.0", allow_origins=["box:5006"])
    try:
        assert {one.getsockname()[0] for one in server._sockets} == {"0.0.0.0"}
        assert set(server.origins) == {f"0.0.0.0:{server.port}", "box:5006"}
    finally:
        server.stop()


def test_everything_comes_from_the_server_itself(finished: Path) -> None:
    with DashboardServer(finished, port=0) as server:
        with urllib.request.urlopen(server.url) as answer:
            page = answer.read().decode()
        assert "routestats · run" in page
        sources = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert any("bokeh.min.js" in source for source in sources)
        assert all(source.startswith("/static/") for source in sources), sources


def test_a_session_holds_the_run(finished: Path) -> None:
    from bokeh.client import pull_session

    with DashboardServer(finished, port=0) as server:
        session = pull_session(url=server.url)
        try:
            document = session.document
            tokens = document.get_model_by_name("tokens").data
            assert len(tokens["text"]) == 32
            load = document.get_model_by_name("load").data["tokens"][0]
            assert load.sum() == 160 * 4 * 2
            assert "160" in document.get_model_by_name("counters").text
            shown = document.get_model_by_name("counters").text
            assert "● finished" in shown
            assert "newest rows from the run&#x27;s files" in shown
            assert ">0</div>" in shown.split("not seen by this view")[0][-120:]
        finally:
            session.close()


def test_show_serves_on_a_thread_and_takes_captures(finished: Path) -> None:
    class Capture:
        run_dir = finished

    server = rs.live.show(Capture())
    try:
        assert server.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(server.url) as answer:
            assert answer.status == 200
    finally:
        server.stop()
    server.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url)
    with pytest.raises(TraceError, match="no such folder"):
        rs.live.show(finished.parent / "none")
    with pytest.raises(InvalidTypeError, match="run: expected a path or a capture, got int"):
        rs.live.show(5)


@pytest.mark.filterwarnings("default")
def test_show_in_a_notebook_goes_on_while_its_cell_is_busy(finished: Path) -> None:
    code = f"""
import subprocess, sys
import routestats as rs
server = rs.live.show({str(finished)!r})
look = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)"
print(subprocess.run([sys.executable, "-c", look, server.url], capture_output=True, text=True))
server.stop()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    frame = next(o.data["text/html"] for o in outputs if o.output_type == "display_data")
    assert re.search(r'<iframe[^>]*src="http://127\.0\.0\.1:\d+/"', re.sub(r"\s+", " ", frame))
    assert any("stdout='200" in o.get("text", "") for o in outputs)


@pytest.mark.parametrize("origin", ["host", "http://host:5006", ":5006", "host:", "*:5006"])
def test_origins_are_checked(finished: Path, origin: str) -> None:
    with pytest.raises(InvalidValueError, match="allow-origin: expected HOST:PORT, got"):
        DashboardServer(finished, port=0, allow_origins=[origin])


@pytest.mark.parametrize("command", ["dashboard", "metrics"])
def test_wrong_use_is_one_line(tmp_path: Path, finished: Path, command: str) -> None:
    assert fails(command, "--run", str(tmp_path / "none")) == f"{tmp_path / 'none'}: no such folder"
    assert "is no run: it has no run.json" in fails(command, "--run", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fails(command, "--run", str(finished), "--port", str(port))
        assert line == f"127.0.0.1:{port}: cannot be served: Address already in use"
    assert "expected at most 65535" in fails(command, "--run", str(finished), "--port", "70000")
    (tmp_path / "empty").mkdir()
    for name in ("bokeh", "prometheus_client"):
        (tmp_path / "empty" / f"{name}.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path / "empty"), os.environ.get("PYTHONPATH", "")])
    done = run(command, "--run", str(finished), PYTHONPATH=path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "which is not installed: pip install 'routestats[live]'" in line


def test_a_tokenizer_that_is_not_there(finished: Path) -> None:
    line = fails("dashboard", "--run", str(finished), "--port", "0", "--tokenizer", "/none")
    assert line == "tokenizer: expected a folder or file with tokenizer.json, got /none"


def test_no_bokeh_no_view_and_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.server.tornado", None)
    with pytest.raises(RouteStatsError, match="the live view needs Bokeh"):
        DashboardServer("run", port=0)
