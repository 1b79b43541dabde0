"""Examples of README and docs/ that are not run, too, are right in syntax, options and names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from doc_blocks import LANGUAGES, ROOT, Block, blocks, pages, same_output
from routestats.cli._main import make_parser

ALL = [block for page in pages() for block in blocks(page)]


def of_language(language: str) -> list[object]:
    return [pytest.param(b, id=b.where) for b in ALL if b.language == language]


def test_blocks_are_found_in_every_kind_of_page() -> None:
    with_code = {block.page.name for block in ALL}
    assert {"README.md", "CONTRIBUTING.md", "tutorial.md", "capture.md", "live.md"} <= with_code
    assert sum(block.language == "python" for block in ALL) >= 40
    assert sum(block.output is not None for block in ALL) >= 15


def test_every_block_has_a_known_language() -> None:
    assert [block.where for block in ALL if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", of_language("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize("block", of_language("sh"))
def test_commands_take_their_arguments(block: Block) -> None:
    for _, words in block.commands():
        program = words[0].removeprefix(".venv/bin/")
        assert program in CHECKS, f"{block.where}: {program}"
        CHECKS[program](words[1:])


def routestats(arguments: list[str]) -> None:
    if arguments:
        make_parser().parse_args(arguments)


def make(arguments: list[str]) -> None:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {name for rule in rules for name in rule.split()}
    for word in arguments:
        assert "=" in word or word in targets, f"make {word}: no such target"


def pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"\[(.*)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= known.keys()


def python(arguments: list[str]) -> None:
    """A script of ours, and options that stand in its text or in that of what it imports."""
    if arguments[:1] == ["-m"]:
        assert arguments[1] in ("pytest",)
        return
    script = ROOT / arguments[0]
    text = script.read_text()
    for name in re.findall(r"^from (_?\w+) import", text, re.MULTILINE):
        beside = script.with_name(f"{name}.py")
        text += beside.read_text() if beside.exists() else ""
    for word in arguments[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in text, f"{arguments[0]} {word}: no such option"


def vllm(arguments: list[str]) -> None:
    assert arguments[0] == "serve"  # its options: test_examples_run.py


def anything(arguments: list[str]) -> None:
    """What is not ours."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "routestats": routestats,
    "make": make,
    "pip": pip,
    "python": python,
    "vllm": vllm,
    **dict.fromkeys(("cmake", "ctest", "git", "cd", "curl", "."), anything),
}


def test_a_wrong_option_target_extra_or_script_is_found() -> None:
    wrong: list[tuple[Callable[[list[str]], None], list[str]]] = [
        (routestats, ["report", "run", "--no-such-option"]),
        (make, ["no-such-target"]),
        (pip, ["install", ".[no-such-extra]"]),
        (python, ["bench/paths.py", "--no-such-option"]),
        (python, ["bench/no_such_script.py"]),
    ]
    for check, arguments in wrong:
        with pytest.raises((AssertionError, SystemExit, OSError)):
            check(arguments)


def test_outputs_are_compared_line_by_line() -> None:
    assert same_output("a\n...\nd", "a\nb\nc\nd")
    assert same_output("a  \nb", "a\nb\n")
    assert not same_output("a\nb", "a\nc")
    assert not same_output("a\n...", "b\na")
    assert not same_output("a", "a\nb")


def test_readme_is_short() -> None:
    words = len((ROOT / "README.md").read_text().split())
    assert words < 900, words


def test_links_of_readme_and_contributing_lead_somewhere() -> None:
    """MkDocs checks those of docs/."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "study" / "README.md"):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if link.startswith(("http:", "https:")):
                continue
            target, _, anchor = link.partition("#")
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
