"""Two runs beside each other: other weights, another precision, other prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from routestats.errors import InvalidValueError
from routestats.schema import PHASES
from routestats.stats import (
    Agreement,
    DomainDifference,
    Transfer,
    agreement,
    compare_domains,
    transfer,
)
from routestats.stats._result import Result
from routestats.trace import Trace, join


@dataclass(frozen=True, slots=True, eq=False)
class RunComparison(Result):
    """How differently two runs route; made by `compare_runs`.

    Attributes
    ----------
    names : tuple of two str
    differences : dict of str to DomainDifference
        By phase, for the phases that both runs have.
    agreement : Agreement or None
        Of the tokens that both hold after the same tokens.
    transfer : Transfer or None
        Prediction fitted on one run and measured on either.
    missing : dict of str to str
        Why a part is not there, by its name.
    """

    names: tuple[str, str]
    differences: dict[str, DomainDifference]
    agreement: Agreement | None
    transfer: Transfer | None
    missing: dict[str, str]

    def summary(self) -> str:
        """A paragraph per part, and a line for each that is missing."""
        parts = [difference.summary() for difference in self.differences.values()]
        parts += [part.summary() for part in (self.agreement, self.transfer) if part is not None]
        parts += [f"{name}: not computed: {why}" for name, why in self.missing.items()]
        return "\n\n".join(parts)


def compare_runs(
    first: Trace,
    second: Trace,
    *,
    names: tuple[str, str] | None = None,
    permutations: int = 999,
    bootstrap: int = 1000,
    seed: int = 0,
) -> RunComparison:
    """Compare two runs of one shape: loads and affinity, the same tokens, and prediction.

    Prompt groups are permuted between the runs as if they were unpaired. Where both runs hold the
    same prompts that is too careful: a small difference of all prompts alike may pass as chance,
    and `agreement` is what shows it.

    Parameters
    ----------
    first, second : Trace
    names : tuple of two str, optional
        By default the names of the run folders, or A and B.
    permutations, bootstrap, seed : int

    Returns
    -------
    RunComparison

    Raises
    ------
    InvalidValueError
        If the shapes or layers differ.
    """
    if names is None:
        names = _names(first.path, second.path)
    both = join(dict(zip(names, (first, second), strict=True)))
    differences: dict[str, DomainDifference] = {}
    missing: dict[str, str] = {}
    for phase in PHASES:
        try:
            differences[phase] = compare_domains(
                both, *names, phase=phase, permutations=permutations, seed=seed
            )
        except InvalidValueError as error:
            missing[phase] = str(error)
    same: Agreement | None = None
    moved: Transfer | None = None
    try:
        same = agreement(first, second, bootstrap=bootstrap, seed=seed)
    except InvalidValueError as error:
        missing["agreement"] = str(error)
    try:
        moved = transfer(both, *names, bootstrap=bootstrap, seed=seed)
    except InvalidValueError as error:
        missing["transfer"] = str(error)
    return RunComparison(names, differences, same, moved, missing)


def _names(first: Path | None, second: Path | None) -> tuple[str, str]:
    if first is None or second is None or first.resolve().name == second.resolve().name:
        return "A", "B"
    return first.resolve().name, second.resolve().name
