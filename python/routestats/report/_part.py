"""What a part of the report is: one statistic, and all that the report shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import pyarrow as pa

from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Block
from routestats.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = TypeVar("Found")


class Drawing(NamedTuple):
    """A figure to draw: its file's name, its alternative text, and what it shows in words."""

    name: str
    draw: Callable[[], Figure]
    alt: str
    reading: str = ""


class Finding(NamedTuple):
    """A question, the answer in a few words, what stands beside it, and whether it is alarming."""

    question: str
    answer: str
    beside: str
    bad: bool = False


class Restriction(NamedTuple):
    """A sentence on what is left out; `many_experts`: said only where experts are many."""

    text: str
    many_experts: bool = False


class Part(Generic[Found]):
    """A statistic of the report: a subclass says in one place all that is shown of it.

    `name` is its name in the text, the JSON and among what is missing. Each method gives nothing
    where the part has nothing of that kind; all but `compute`, `findings` and `sections` are asked
    only where something was found. A new part stands in `routestats.report._registry.PARTS`.
    """

    name: str

    def compute(self, work: Work) -> Found | None:
        """The result, or None where there is none; `Work.attempt` notes why."""
        raise NotImplementedError(f"{type(self).__name__} computes nothing")

    def of(self, analysis: Analysis) -> Found | None:
        """What was found."""
        found: Found | None = analysis.results.get(self.name)
        return found

    def results(self, found: Found) -> dict[str, Result]:
        """Results by name, for the JSON and the text."""
        return {self.name: found} if isinstance(found, Result) else {}

    def texts(self, found: Found, analysis: Analysis) -> list[str]:
        """Paragraphs for a terminal."""
        return [result.summary() for result in self.results(found).values()]

    def tables(self, found: Found, analysis: Analysis) -> dict[str, pa.Table]:
        """Tables by file name: the numbers behind every figure and sentence."""
        results = self.results(found)
        return {name.replace(" ", "_"): result.to_table() for name, result in results.items()}

    def figures(self, found: Found, analysis: Analysis) -> Iterable[Drawing]:
        """Figures."""
        return ()

    def restrictions(self, found: Found, analysis: Analysis) -> Iterable[Restriction]:
        """What this part leaves out of what it could show."""
        return ()

    def findings(self, analysis: Analysis) -> Iterable[Finding]:
        """Questions that a reader has first, with the answers."""
        return ()

    def sections(self, analysis: Analysis) -> dict[str, list[Block]]:
        """Blocks by the name of their section, one of `routestats.report._registry.SECTIONS`."""
        return {}


AnyPart = Part[Any]


def note(analysis: Analysis) -> str:
    """What the captions of figures say of the run."""
    return f"{analysis.trace.requests.num_rows:,} requests"
