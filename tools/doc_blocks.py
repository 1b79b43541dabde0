"""The examples of README and docs/: code blocks, what they print, and what they need.

A ``text`` block right below a ``python`` or ``sh`` block is what it prints; a line ``...`` in it
stands for any lines. An example that cannot run where the tests run says so in its first line,
``# needs a GPU``: then only its syntax and its arguments are checked.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
LANGUAGES = ("python", "sh", "text", "json", "yaml", "promql")
NEEDS = re.compile(r"# needs (a GPU|a server|the hub|Prometheus)\b")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `output` is None where the page does not show any."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> str | None:
        """What it needs that the tests do not have."""
        found = NEEDS.match(self.text)
        return found[1] if found else None

    def commands(self) -> Iterator[tuple[dict[str, str], list[str]]]:
        """Variables that are set for it, and the words of each command of a ``sh`` block."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            variables = {}
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, value = words.pop(0).partition("=")
                variables[name] = value
            if words:
                yield variables, words


def pages() -> list[Path]:
    """Every page that has examples."""
    beside = ("README.md", "CONTRIBUTING.md", "study/README.md")
    return [*(ROOT / name for name in beside), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order; the outputs of others are not among them."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    found: list[Block] = []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type != "fence" or token.map is None:
            continue
        language = token.info.split(" ")[0]
        before = found[-1] if found else None
        if language == "text" and before is not None and before.output == token.content:
            continue
        output = None
        if language in ("python", "sh") and after is not None and after.type == "fence":
            output = after.content if after.info == "text" else None
        found.append(Block(page, token.map[0] + 1, language, token.content, output))
    return found


def same_output(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; ``...`` alone on a line stands for any lines."""
    lines = [line.rstrip() for line in shown.strip().splitlines()]
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in lines)
    text = "".join(f"{line.rstrip()}\n" for line in printed.strip().splitlines())
    return re.fullmatch(pattern, text) is not None
