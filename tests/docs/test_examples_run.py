"""Every example of README and docs/ runs, in one process and with one engine."""

from __future__ import annotations

import json
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
        "import json, sys\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    parser.parse_args(arguments)\n"
        "try:\n"
        "    parser.parse_args([*arguments, '--no-such-option'])\n"
        "except SystemExit:\n"
        "    print('told apart')\n"
    )
    asked = json.dumps([["--model", *words[2:]] for words in commands])
    done = subprocess.run([sys.executable, "-c", code, asked], capture_output=True, text=True)
    assert "told apart" in done.stdout, done.stderr[-2000:]
