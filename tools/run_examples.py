"""Runs the examples of README and docs/, as a reader would: page by page, from top to bottom.

    python tools/run_examples.py                          # all pages
    python tools/run_examples.py README.md docs/tutorial.md

Each page has a folder of its own with the published trace in it, and its Python blocks share their
names. All engines of all pages are one, of the built-in model: what a page asks ``vllm.LLM`` or
transformers for is checked and set aside, so that a page may name a model that is large. A report
that several pages show is made once. Commands that set up, build or measure (``make``, ``pip``,
``bench/``) are not run here; the tests check their arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path
from typing import Any

from doc_blocks import ROOT, Block, blocks, pages, same_output

SERVES = {"dashboard": 5006, "metrics": 9400}
RUN_SCRIPTS = ("bench/naive_logger.py",)
SET_UP = ("make", "pip", "git", "cd", "cmake", "ctest", ".")
NEED_ENGINE = ("import vllm", "as rs, vllm", "from transformers", "routestats profile")
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no further process has to import vLLM
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "agg",
}

_reports: dict[tuple[str, ...], str] = {}
"""What reports printed, by their commands."""


class SharedEngine:
    """The one engine of all pages, made when one first asks for it."""

    def __init__(self) -> None:
        self._llm: Any = None

    def __call__(self, model: str = "", **settings: Any) -> Any:
        from vllm import EngineArgs

        from routestats.models import tiny_model

        known = {field.name for field in dataclasses.fields(EngineArgs)}
        if unknown := settings.keys() - known:
            raise TypeError(f"vllm.LLM takes no {', '.join(sorted(unknown))}")
        if self._llm is None:
            self._llm = self._class(
                model=str(tiny_model()),
                dtype="float32",
                served_model_name="tiny",
                seed=0,
                enforce_eager=True,
                enable_prefix_caching=False,
                max_num_seqs=64,
            )
        return self._llm

    def stand_in(self) -> None:
        """Take the place of ``vllm.LLM``, and of what loads a model from the hub."""
        import transformers
        import vllm

        from routestats.cli import profile
        from routestats.models import tiny_model

        self._class = vllm.LLM
        vllm.LLM = self
        vars(profile)["start_engine"] = lambda settings, **options: self(**settings)
        for name in ("AutoModelForCausalLM", "AutoTokenizer"):
            loader = getattr(transformers, name)
            load = loader.from_pretrained
            loader.from_pretrained = lambda hub_id, load=load, **options: load(
                str(tiny_model()), **options
            )

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()


def run_page(page: Path) -> int:
    """Run a page's examples in a folder of its own; the number of those that ran."""
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("study", "bench", "tools"):
            Path(name).symlink_to(ROOT / name)
        for block in blocks(page):
            if block.language not in ("python", "sh") or block.needs is not None:
                continue
            start = time.perf_counter()
            printed = _run(block, names)
            if block.output is not None and not same_output(block.output, printed):
                raise SystemExit(f"{block.where}: shows\n{block.output}\nbut prints\n{printed}")
            ran += 1
            print(f"{block.where:40s} {time.perf_counter() - start:6.1f} s", flush=True)
    return ran


def _run(block: Block, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                # Lines as in the page, so that a traceback names them.
                text = "\n" * block.line + block.text
                exec(compile(text, str(block.page), "exec"), names)
            else:
                for variables, words in block.commands():
                    _command(words, variables)
    except (Exception, SystemExit):
        traceback.print_exc()
        raise SystemExit(f"{block.where}: failed, after it printed\n{printed.getvalue()}") from None
    return printed.getvalue()


def _command(words: list[str], variables: dict[str, str]) -> None:
    from routestats.cli import main

    if words[0] == "routestats" and len(words) > 1 and words[1] in SERVES:
        _look_at([sys.executable, "-m", "routestats.cli", *words[1:]], SERVES[words[1]])
    elif words[0] == "routestats":
        if words[1] == "report" and tuple(words) in _reports:
            print(_reports[tuple(words)], end="")
            return
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(words[1:])
        print(printed.getvalue(), end="")
        if code != 0:
            raise SystemExit(f"{' '.join(words)}: exit code {code}")
        if words[1] == "report":
            _reports[tuple(words)] = printed.getvalue()
    elif words[0] == "python" and words[1] in RUN_SCRIPTS:
        environment = {**os.environ, **variables}
        done = subprocess.run(
            [sys.executable, *words[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        print(done.stdout, end="")
    elif words[0] not in (*SET_UP, "python"):
        raise SystemExit(f"{words[0]}: this command is not known here")


def _look_at(command: list[str], port: int) -> None:
    """Start a server, read its page, and end it."""
    path = "/metrics" if port == SERVES["metrics"] else "/"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                        assert answer.status == 200
                    return
                except OSError:
                    if server.poll() is not None or time.monotonic() > end:
                        raise
                    time.sleep(0.5)
        finally:
            server.terminate()


def main() -> int:
    wanted = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    os.environ.update(SETTINGS)
    import routestats as rs

    engine = SharedEngine()
    rs.enable()
    if any(word in page.read_text() for page in wanted for word in NEED_ENGINE):
        engine.stand_in()
    try:
        ran = sum(map(run_page, wanted))
    finally:
        engine.close()
    print(f"{ran} examples ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
