"""Every example of README and docs/ runs, in one process and with one engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from engine_process import run_engine

from doc_blocks import ROOT, blocks, pages


@pytest.mark.engine
@pytest.mark.slow
def test_every_example_runs_and_prints_what_its_page_shows() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTESTATS_")}
    command = [sys.executable, str(ROOT / "tools" / "run_examples.py")]
    done = run_engine(command, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    ran = sum(
        block.language in ("python", "sh") and block.needs is None
        for page in pages()
        for block in blocks(page)
    )
    assert f"{ran} examples ran" in done.stdout


@pytest.mark.slow
def test_servers_take_the_options_that_they_are_shown_with() -> None:
    commands = [
        words
        for page in pages()
        for block in blocks(page)
        if block.language == "sh"
        for _, words in block.commands()
        if words[0] == "vllm"
    ]
    assert commands
    code = (
        "import sys\n"
        "from vllm.entrypoints.openai.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])\n"
    )
    for words in commands:
        for more, wanted in (([], 0), (["--no-such-option"], 2)):
            arguments = [sys.executable, "-c", code, "--model", *words[2:], *more]
            done = subprocess.run(arguments, capture_output=True, text=True)
            assert done.returncode == wanted, done.stderr[-2000:]
