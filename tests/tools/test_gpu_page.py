"""docs/gpu.md names tests, benchmarks and items that there are."""

from __future__ import annotations

import re
from pathlib import Path

from gpu_hour.items import ITEMS, PIECES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gpu.md").read_text()


def test_named_tests_are_there() -> None:
    named = re.findall(r"`((?:tests|bench)/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) >= 25
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_the_table_of_items_is_that_of_the_hour() -> None:
    for number, title in ITEMS.items():
        piece = next(piece for piece, items in PIECES.items() if number in items)
        row = rf"^\| {number} {re.escape(title)} \| .* \| {piece} \|$"
        assert re.search(row, PAGE, re.MULTILINE), title
