"""Prompts: named data sets, files of the user's own, and the problems we make."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from routestats.data import datasets, mathwords
from routestats.errors import DataError
from routestats.schema import is_domain


def load(
    text: str, *, limit: int | None = None, gsm8k_file: Path | None = None
) -> list[datasets.Prompt]:
    return datasets.load(replace(datasets.DataSpec.parse(text), limit=limit), gsm8k_file)


def test_humaneval_is_whole() -> None:
    prompts = load("humaneval")
    assert len(prompts) == 164
    assert prompts[0].task_id == "HumanEval/0"
    assert prompts[0].text.startswith("from typing import List")
    assert len(load("humaneval", limit=7)) == 7


def test_gsm8k_from_a_file() -> None:
    folder = os.environ.get("ROUTESTATS_TEST_DATA")
    if not folder:
        pytest.skip("ROUTESTATS_TEST_DATA is not set")
    prompts = load("gsm8k", limit=500, gsm8k_file=Path(folder) / "gsm8k_test.jsonl")
    assert len(prompts) == 500
    assert prompts[0].text.startswith("Question: Janet")
    assert prompts[499].task_id == "gsm8k/499"


def test_gsm8k_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(hub.HfApi, "repo_info", unreachable)
    with pytest.raises(DataError, match="no route to host.*give --gsm8k-file PATH.*mathwords"):
        load("gsm8k")


def test_files_of_ones_own(tmp_path: Path) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("one\n\ntwo\n")
    assert [p.text for p in load(f"own={lines}")] == ["one", "two"]
    items = tmp_path / "b.jsonl"
    items.write_text('{"q": "x", "task_id": "t9"}\n{"q": "y"}\n')
    assert load(f"own={items}:q") == [
        datasets.Prompt("x", "t9"),
        datasets.Prompt("y", "own/1"),
    ]
    with pytest.raises(DataError, match=r"b.jsonl:1: expected a text field 'prompt', got q, task"):
        load(f"own={items}")
    items.write_text('{"q": "x"}\n{oops\n')
    with pytest.raises(DataError, match=r"b.jsonl:2: expected JSON, got '\{oops'"):
        load(f"own={items}:q")
    items.write_text("\n")
    with pytest.raises(DataError, match="holds no prompts"):
        load(f"own={items}")
    (tmp_path / "c.csv").write_text("x")
    with pytest.raises(DataError, match=r"expected a \.jsonl or \.txt file"):
        load(f"own={tmp_path / 'c.csv'}")
    for name in ("gsm8k", "a b", "../x"):
        with pytest.raises(DataError, match="expected a new name"):
            load(f"{name}={lines}")


@pytest.mark.parametrize("name", ["", "..", "a b", "a/b", "größe", "x" * 101, "my-code", "v1.2_"])
def test_a_data_set_can_have_every_name_that_a_domain_can_have(tmp_path: Path, name: str) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("one")
    if is_domain(name):
        assert load(f"{name}={lines}") == [datasets.Prompt("one", f"{name}/0")]
    else:
        with pytest.raises(DataError, match="can be a domain: expected up to 100 letters"):
            load(f"{name}={lines}")


def test_mathwords_is_large_varied_and_reproducible() -> None:
    problems = mathwords.problems()
    assert len(problems) >= 200
    assert problems == mathwords.problems()
    assert problems != mathwords.problems(seed=1)
    assert len({problem.question for problem in problems}) == len(problems)
    # No template makes more than its share.
    shapes = {re.sub(r"\d+|[A-Z]\w+", "", p.question)[:40] for p in problems}
    assert len(shapes) >= 8


def _answer(question: str) -> int:
    """Solve a problem from its text, without the code that made it."""
    n = [int(x) for x in re.findall(r"\d+", question)]
    if "takes $" in question:
        return n[0] * n[1] - n[2]
    if "keep whatever" in question:
        return n[0] % n[1]
    if "by bicycle" in question:
        return n[0] * n[1] + n[2] * n[3]
    if "years old" in question:
        return n[0] * n[1] + n[2]
    if "savings account" in question:
        return n[0] * n[1] - n[2]
    if "boxes" in question:
        return n[0] * n[1] - n[0] * n[2]
    if "fence" in question:
        return (n[0] + n[1]) * 2 * n[2]
    assert "gave half" in question
    return 2 * (n[0] + n[1])


def test_the_answers_of_mathwords_are_right() -> None:
    for problem in mathwords.problems():
        assert _answer(problem.question) == problem.answer, problem
        assert problem.answer >= 0


def test_mathwords_goes_by_its_own_name() -> None:
    assert {p.task_id.split("/")[0] for p in load("mathwords")} == {"mathwords"}
    assert json.dumps([p.text for p in load("mathwords")]).count("gsm8k") == 0
