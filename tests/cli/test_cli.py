"""The command line: wrong use is one line and exit 2, and leaves nothing behind."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_cases import fails, run
from trace_cases import write_run

from routestats import _core
from routestats.cli import info, main
from routestats.cli._main import COMMANDS
from routestats.cli.profile import limited
from routestats.data.datasets import DataSpec


@pytest.fixture
def dense_model(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    return folder


def test_a_dense_model(tmp_path: Path, dense_model: Path) -> None:
    line = fails("profile", str(dense_model), "--data", "mathwords", "-o", str(tmp_path / "run"))
    assert "a llama model without experts; expected a MoE model" in line
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_none(tmp_path: Path) -> None:
    for model in ("./none", "none", str(tmp_path)):
        line = fails("profile", model, "--data", "mathwords", "-o", str(tmp_path / "run"))
        assert line.startswith(model)
        assert "expected" in line


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_folder_that_is_no_run(tmp_path: Path, command: str) -> None:
    assert fails(command, str(tmp_path)) == f"{tmp_path}: is no run: it has no run.json"
    assert fails(command, str(tmp_path / "none")).endswith("none: no such folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [["verify"], ["report"], ["paths"], ["timing"], ["table", "srp"], ["metrics", "--run"]],
)
def test_a_file_that_is_no_run(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "README.md"
    file.write_text("# A run\n")
    line = fails(*command, str(file))
    assert line == f"{file}: expected a run's folder, with its run.json, got a file"


@pytest.mark.parametrize("command", ["verify", "report"])
def test_parquet_that_is_not_ours(tmp_path: Path, command: str) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    assert "is no trace: its schema lacks routestats' metadata" in fails(command, str(file))


@pytest.mark.parametrize("command", ["verify", "report"])
def test_truncated_parquet(tmp_path: Path, command: str) -> None:
    write_run(tmp_path / "run")
    file = next((tmp_path / "run").glob("tokens/domain=d1/*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file}: cannot be read as Parquet" in fails(command, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "report").exists()


@pytest.mark.parametrize("command", [["paths"], ["compare"]])
def test_seeds_and_numbers(tmp_path: Path, command: list[str]) -> None:
    runs = [str(tmp_path / "a"), str(tmp_path / "b")][: 1 + (command == ["compare"])]
    for run_dir in runs:
        write_run(Path(run_dir))
    line = fails(*command, *runs, "--seed", "-1")
    assert line.startswith("argument --seed: expected at least 0, got -1")
    line = fails(*command, *runs, "--seed", "x")
    assert line.startswith("argument --seed: expected an integer, got 'x'")


@pytest.mark.parametrize("data", [("mathwords", "some/model"), ("gsm8k", "openai/gsm8k")])
def test_a_hub_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[str, str]
) -> None:
    # A port on which nobody listens. The hub's client prints a line for each retry.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    name, asked = data
    line = fails("profile", "some/model", "--data", name, "-o", str(tmp_path / "run"))
    assert line.startswith(f"{asked}: the hub (http://127.0.0.1:9) cannot be reached (")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = fails("profile", "some/model", "--data", name, "-o", str(tmp_path / "run"))
    assert line.startswith(f"{asked}: is not in the local cache, and HF_HUB_OFFLINE is set")


class _Absent(BaseHTTPRequestHandler):
    """A hub that knows no repository, and counts who asks."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_model_that_the_hub_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Absent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        line = fails("profile", "some/model", "--data", "mathwords", "-o", str(tmp_path / "run"))
        server.shutdown()
    assert line.startswith("some/model: the hub has no such model")
    assert _Absent.asked.count("/api/models/some/model") == 1


_HEAVY = ("vllm", "torch", "transformers", "matplotlib", "bokeh", "jinja2", "tqdm", "tokenizers")


def test_info_is_quick_because_it_imports_no_engine() -> None:
    code = (
        "import sys; from routestats.cli import main; "
        "assert main(['info', '--json']) == 0; "
        f"print([n for n in {_HEAVY} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts, imported = done.stdout.rsplit("\n", 2)[:2]
    assert imported == "[]"
    found = json.loads(facts)
    assert {"version", "isas", "cuda", "python", "numpy", "vllm"} <= set(found)
    # Whether capture binds is only said by who looked.
    assert found.get("capture", "no").split()[0] in ("entry", "no:", "no")


@pytest.mark.engine
def test_info_names_the_engine_alike_whether_it_imports_it_or_not() -> None:
    pytest.importorskip("vllm")
    quick = json.loads(run("info", "--json").stdout)
    checked = json.loads(run("info", "--check-capture", "--json").stdout)
    assert quick["vllm"] == checked["vllm"]
    assert {**quick, "capture": ""} == {**checked, "capture": ""}


def test_unwritable_outputs(tmp_path: Path) -> None:
    profile = ("profile", "tiny", "--data", "mathwords", "-o")
    assert "cannot be written" in fails(*profile, "/proc/none/run")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(*profile, str(tmp_path / "file" / "run"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    assert "is no run and not empty" in fails(*profile, str(tmp_path / "notes"))
    write_run(tmp_path / "run")
    assert "cannot write" in fails("report", str(tmp_path / "run"), "-o", "/proc/none/out")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "humanevil"], "argument --data: expected humaneval, gsm8k, mathwords or"),
        (["--data", "humanevil"], "or NAME=PATH[:FIELD] of your own, got 'humanevil'"),
        (["--data", "..=x.txt"], "argument --data: expected a new name before '=' that can be a"),
        *(
            (
                ["--data", "gsm8k", "--limit", wrong],
                "argument --limit: expected NAME=N, or N for every data set, with N at least 1, "
                f"got {wrong!r}",
            )
            for wrong in ("gsm8k=x", "gsm8k=0", "gsm8k", "gsm8k=", "=3", "0", "")
        ),
        (["--data", "mathwords", "--limit", "gsm8k=3"], "--limit gsm8k: expected one of"),
        (["--data", "mathwords", "--data", "mathwords"], "--data mathwords: given twice"),
        (["--data", "own=none.jsonl"], "own: none.jsonl: No such file or directory"),
        (["--data", "gsm8k", "--gsm8k-file", "none.jsonl"], "gsm8k: none.jsonl: No such file"),
        (["--data", "mathwords", "--engine-arg", "x"], "expected NAME=VALUE, got 'x'"),
        (["--data", "mathwords", "--max-tokens", "0"], "--max-tokens: expected at least 1"),
    ],
)
def test_wrong_data(tmp_path: Path, arguments: list[str], expected: str) -> None:
    line = fails("profile", "tiny", *arguments, "-o", str(tmp_path / "run"))
    assert expected in line
    assert list(tmp_path.iterdir()) == []


def test_limits_of_one_data_set_and_of_every_other() -> None:
    specs = [DataSpec("humaneval"), DataSpec("mathwords"), DataSpec("gsm8k")]
    limits = [(None, 5), ("gsm8k", 2)]
    assert [spec.limit for spec in limited(specs, limits)] == [5, 5, 2]
    assert [spec.limit for spec in limited(specs, limits[1:])] == [None, None, 2]


def test_usage_errors_are_one_line() -> None:
    assert "got 'nonsense' (see routestats --help)" in fails("nonsense")
    assert "required" in fails("profile", "tiny")


def test_options_that_contradict_each_other_are_errors_of_arguments(tmp_path: Path) -> None:
    line = fails(
        "profile", "tiny", "--data", "mathwords", "--torch-profiler", "-o", str(tmp_path / "run")
    )
    assert line == ("--torch-profiler: expected --timing beside it (see routestats profile --help)")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device", "x.parquet"), "x.parquet: No space left on device"),
        (ZeroDivisionError("by\nzero"), "unexpected ZeroDivisionError: by zero (test_cli.py:"),
    ],
)
def test_no_error_is_a_traceback_or_looks_like_a_failed_check(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    expected: str,
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(info, "run", run)
    assert main(["info"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"routestats: error: {expected}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(command)
    COMMANDS[command].add_arguments(parser)
    assert [action.dest for action in parser._actions if not action.help] == []
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    sentence = " ".join(capsys.readouterr().out.split())
    assert COMMANDS[command].HELP[1:30] in sentence


def test_the_table_of_segments_names_no_option_that_the_command_lacks(tmp_path: Path) -> None:
    write_run(tmp_path / "run", rows=10)
    assert fails("table", "srp", str(tmp_path / "run")) == (
        "table srp: expected a request of at least 16 consecutive positions, as long as the "
        "paper's segments; the longest run is 10"
    )


def test_verify_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    write_run(path)
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out.endswith("sound\n")
    assert main(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**info, "complete": False}))
    assert main(["verify", str(path)]) == 0
    assert "INCOMPLETE" in capsys.readouterr().out
    assert main(["verify", str(path), "--strict"]) == 1
    info["totals"]["dropped_rows"] = 1
    (path / "run.json").write_text(json.dumps(info))
    assert main(["verify", str(path)]) == 1
    assert "FAIL  no drops" in capsys.readouterr().out


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", requests=12, rows=30)
    assert main(["report", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "prediction of later layers" in printed
    page = Path(printed.splitlines()[-1])
    assert page == tmp_path / "run" / "report" / "report.html"
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_info_says_whether_cuda_was_built_and_why_not() -> None:
    build = _core.build_info()
    assert build["cuda"] == (build["cuda_reason"] == "")
    facts = json.loads(run("info", "--json").stdout)
    assert "cuda_reason" not in facts
    if build["cuda"]:
        assert facts["cuda"].startswith("built for ")
    else:
        assert facts["cuda"] == f"no kernels in this build: {build['cuda_reason']}"
