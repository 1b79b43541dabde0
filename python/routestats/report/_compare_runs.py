"""Two runs beside each other: other weights, another precision, other prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError, NoCommonTokensError
from routestats.report._limits import affinity_pairs
from routestats.result import Result
from routestats.schema import PHASES
from routestats.stats import (
    Agreement,
    DomainDifference,
    Transfer,
    agreement,
    compare_domains,
    transfer,
)
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
        Why a part is not there, by its name: ``prefill``, ``decode``, ``agreement``, ``transfer``.
    """

    names: tuple[str, str]
    differences: dict[str, DomainDifference]
    agreement: Agreement | None
    transfer: Transfer | None
    missing: dict[str, str]

    @property
    def parts(self) -> dict[str, Result]:
        """What was computed, by name: the phases, ``agreement``, ``transfer``."""
        others = {"agreement": self.agreement, "transfer": self.transfer}
        there = {name: part for name, part in others.items() if part is not None}
        return {**self.differences, **there}

    def to_table(self) -> pa.Table:
        """The rows of every part's table, with its name in the column ``part``; else null."""
        tables = []
        for name, part in self.parts.items():
            table = part.to_table()
            tables.append(table.add_column(0, "part", [[name] * table.num_rows]))
        return pa.concat_tables(tables, promote_options="permissive")

    def summary(self) -> str:
        """A paragraph per part, and a line for each that is missing."""
        shown = [part.summary() for part in self.parts.values()]
        shown += [f"{name}: not computed: {why}" for name, why in self.missing.items()]
        return "\n\n".join(shown)


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
    InvalidTypeError
        If `first` or `second` is no trace.
    InvalidValueError
        If the shapes or layers differ, the names are not two, or no part can be computed.

    Notes
    -----
    With many experts affinity is compared at a few adjacent layer pairs only.

    A part is left out, and `missing` says why, under these conditions only; whatever else stands
    in the way of one is an error. A phase: a run has fewer than two prompts with tokens of it.
    Agreement: token ids are unknown, or no token of one run is in the other after the same tokens.
    Transfer: one MoE layer, or a run with fewer than two prompts.
    """
    for side, trace in (("first", first), ("second", second)):
        if not isinstance(trace, Trace):
            raise InvalidTypeError(f"{side}: expected a Trace, got {type(trace).__name__}")
    if names is None:
        names = _names(first.path, second.path)
    if not isinstance(names, tuple) or len(names) != 2 or names[0] == names[1]:
        raise InvalidValueError(f"names: expected two different names, got {names!r}")
    both = join(dict(zip(names, (first, second), strict=True)))
    missing = _missing(first, second, names)
    adjacent = affinity_pairs(both.shape)
    differences = {
        phase: compare_domains(
            both,
            *names,
            phase=phase,
            pairs=adjacent,
            permutations=permutations,
            seed=seed,
        )
        for phase in PHASES
        if phase not in missing
    }
    same: Agreement | None = None
    if "agreement" not in missing:
        try:
            same = agreement(first, second, bootstrap=bootstrap, seed=seed)
        except NoCommonTokensError:
            missing["agreement"] = (
                f"{names[1]} holds no token of {names[0]} after the same tokens (prompts are "
                "matched by their group)"
            )
    moved: Transfer | None = None
    if "transfer" not in missing:
        phase = "prefill" if "prefill" not in missing else None
        moved = transfer(
            both, *names, phase=phase, top1=both.ordered, bootstrap=bootstrap, seed=seed
        )
    if not differences and same is None and moved is None:
        raise InvalidValueError(
            f"{names[0]}, {names[1]}: nothing can be compared: "
            + "; ".join(f"{name}: {why}" for name, why in missing.items())
        )
    return RunComparison(names, differences, same, moved, missing)


def _missing(first: Trace, second: Trace, names: tuple[str, str]) -> dict[str, str]:
    """Parts that the two runs cannot give, and why."""
    missing: dict[str, str] = {}
    runs = dict(zip(names, (first, second), strict=True))
    for part, phase in (*((phase, phase) for phase in PHASES), ("transfer", None)):
        for name, trace in runs.items():
            side = trace if phase is None else trace.filter(phase=phase)
            prompts = len(np.unique(side.row_groups()))
            if prompts < 2:
                of = "" if phase is None else f" with {phase} tokens"
                missing.setdefault(part, f"{name} has {prompts} prompts{of}; two are needed")
    if first.shape.num_layers < 2:
        missing["transfer"] = "one MoE layer: there is no later layer to predict"
    for name, trace in runs.items():
        if (trace.rows["token_id"].to_numpy() < 0).any():
            missing.setdefault("agreement", f"token ids of {name} are not known")
    return missing


def _names(first: Path | None, second: Path | None) -> tuple[str, str]:
    if first is None or second is None or first.resolve().name == second.resolve().name:
        return "A", "B"
    return first.resolve().name, second.resolve().name
