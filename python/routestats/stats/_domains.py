"""Do two domains route differently, beyond what their prompts differ among themselves?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.schema import PHASES
from routestats.shape import RouteShape
from routestats.stats._intervals import Floats
from routestats.stats._result import Result
from routestats.stats._tables import divergence_bits
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Divergence(Result):
    """Observed divergences and what permuted prompts give.

    Attributes
    ----------
    bits : ndarray, shape [n]
        Jensen-Shannon divergence in bits.
    null_mean_bits : ndarray, shape [n]
        Mean under permutation of prompt groups between the domains.
    p_value : ndarray, shape [n]
        ``(1 + b) / (1 + B)``, b the permutations that reach the observed value.
    q_value : ndarray, shape [n]
        Benjamini and Hochberg's adjusted p over the n.
    """

    bits: Floats
    null_mean_bits: Floats
    p_value: Floats
    q_value: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DomainDifference(Result):
    """How differently two domains route within one phase; made by `compare_domains`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    domains : tuple of two str
    phase : str
        ``prefill`` or ``decode``.
    tokens, groups : tuple of two int
        Tokens and prompt groups of each domain.
    permutations, seed : int
    load_share : ndarray, shape [2, L, E]
        Share of assignments (over all K slots) in each domain.
    load : Divergence
        Of the load shares, per layer.
    affinity_pairs : ndarray of int, shape [P, 2]
        Source and target layer of each entry of `affinity`.
    affinity : Divergence
        Per layer pair, pairing ``any``: the divergences of the two domains' rows of affinity, each
        normalised to 1, averaged with the pooled load of the source expert as weight. Experts that
        one of the domains never chooses at the source have no row there and are left out.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    domains: tuple[str, str]
    phase: str
    tokens: tuple[int, int]
    groups: tuple[int, int]
    permutations: int
    seed: int
    load_share: Floats
    load: Divergence
    affinity_pairs: npt.NDArray[np.int64]
    affinity: Divergence

    def to_table(self) -> pa.Table:
        """One row per layer (kind ``load``) and per layer pair (kind ``affinity``)."""
        layers = np.arange(self.shape.num_layers)
        places = np.concatenate((np.stack((layers, layers), axis=1), self.affinity_pairs))
        kinds = ["load"] * len(layers) + ["affinity"] * len(self.affinity_pairs)
        columns = {"kind": kinds, "source": places[:, 0], "target": places[:, 1]}
        for name in ("bits", "null_mean_bits", "p_value", "q_value"):
            columns[name] = np.concatenate((getattr(self.load, name), getattr(self.affinity, name)))
        return pa.table(columns)

    def summary(self, level: float = 0.05) -> str:
        """Two lines: load and affinity."""
        first, second = self.domains
        lines = [
            f"{first} against {second}, {self.phase}: {self.tokens[0]:,} and {self.tokens[1]:,} "
            f"tokens of {self.groups[0]} and {self.groups[1]} prompt groups, "
            f"{self.permutations} permutations"
        ]
        for name, found in (("load", self.load), ("affinity", self.affinity)):
            if len(found.bits):
                lines.append(
                    f"  {name:9s} divergence {np.nanmean(found.bits):.4f} bits (permuted prompts "
                    f"{np.nanmean(found.null_mean_bits):.4f}), beyond chance in "
                    f"{int((found.q_value <= level).sum())} of {len(found.bits)} "
                    f"{'layers' if name == 'load' else 'layer pairs'} at q <= {level}"
                )
        return "\n".join(lines)


def compare_domains(
    trace: Trace,
    first: str | None = None,
    second: str | None = None,
    *,
    phase: str = "prefill",
    hops: Sequence[int] = (1,),
    permutations: int = 999,
    seed: int = 0,
) -> DomainDifference:
    """Compare the load and the affinity of two domains within a phase.

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory.
    first, second : str, optional
        Domains; by default the two that the trace has.
    phase : str
        ``prefill`` or ``decode``: what is read and what is written are routed differently in any
        domain, and domains differ in how much of either they have.
    hops : sequence of int
        Distances of the layer pairs whose affinity is compared; empty for load alone.
    permutations : int
        B, at least 1; DESIGN asks for 999 or more.
    seed : int

    Returns
    -------
    DomainDifference

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace.
    InvalidValueError
        If a domain is unknown or has fewer than two prompt groups in the phase, or another
        argument is out of range.

    Notes
    -----
    Prompt groups are permuted between the domains, not tokens and not requests of one prompt:
    tokens of a prompt are alike, so that a permutation of tokens would call any two sets of
    prompts different.
    """
    if not isinstance(trace, Trace):
        raise InvalidTypeError(f"trace: expected a Trace, got {type(trace).__name__}")
    if permutations < 1:
        raise InvalidValueError(f"permutations: expected at least 1, got {permutations}")
    if phase not in PHASES:
        raise InvalidValueError(f"phase: expected one of {', '.join(PHASES)}, got {phase!r}")
    names = _domains(trace, first, second)
    layers, experts = trace.shape.num_layers, trace.shape.num_experts
    for hop in hops:
        if not 1 <= hop < layers:
            raise InvalidValueError(f"hops: expected 1 to {layers - 1}, got {hop}")
    part = trace.filter(domain=names, phase=phase)
    groups, sides = _groups(part, names, phase)
    labels = _labels(sides, permutations, seed)

    ids = part.experts
    num_groups = len(sides)
    loads = np.stack(
        [_by_group(ids[:, layer], groups, num_groups, experts) for layer in range(layers)]
    )
    totals = loads.sum(axis=1)
    side_loads = [labels @ load for load in loads]
    observed_load = np.stack([side[0] for side in side_loads])
    load = _test(
        [
            divergence_bits(side, total - side)
            for side, total in zip(side_loads, totals, strict=True)
        ]
    )
    pairs = [(src, src + hop) for hop in hops for src in range(layers - hop)]
    affinity = _test([_affinity_divergence(ids, pair, groups, labels, experts) for pair in pairs])
    share = np.stack((observed_load, totals - observed_load))
    tokens = np.bincount(sides[groups], minlength=2)
    return DomainDifference(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        domains=names,
        phase=phase,
        tokens=(int(tokens[0]), int(tokens[1])),
        groups=(int((sides == 0).sum()), int((sides == 1).sum())),
        permutations=permutations,
        seed=seed,
        load_share=share / share.sum(axis=2, keepdims=True),
        load=load,
        affinity_pairs=np.array(pairs, np.int64).reshape(-1, 2),
        affinity=affinity,
    )


def _domains(trace: Trace, first: str | None, second: str | None) -> tuple[str, str]:
    known = trace.domains
    if first is None and second is None:
        if len(known) != 2:
            raise InvalidValueError(
                f"first, second: expected the names of two domains of {', '.join(known)}"
            )
        return known[0], known[1]
    for name, value in (("first", first), ("second", second)):
        if value not in known:
            raise InvalidValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if first == second:
        raise InvalidValueError(f"second: expected another domain than {first!r}")
    return str(first), str(second)


def _groups(
    part: Trace, names: tuple[str, str], phase: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Group 0..G-1 of each row, and the side (0 or 1) of each group.

    A prompt that both domains hold counts as a group in each.
    """
    side = np.asarray([names.index(d) for d in part.domains])[part.row_domains()]
    keys = part.row_groups().astype(np.int64) * 2 + side
    unique, groups = np.unique(keys, return_inverse=True)
    sides = (unique % 2).astype(np.intp)
    for i, name in enumerate(names):
        if (sides == i).sum() < 2:
            raise InvalidValueError(
                f"{name}: expected at least 2 prompt groups in {phase}, got {(sides == i).sum()}"
            )
    return groups, sides


def _labels(sides: npt.NDArray[np.intp], permutations: int, seed: int) -> Floats:
    """[1 + B, G]: 1 where a group is on the first side; the observed sides first."""
    observed = (sides == 0).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(observed, (permutations, 1)), axis=1)
    return np.vstack((observed, drawn))


def _by_group(
    ids: npt.NDArray[np.integer], groups: npt.NDArray[np.intp], num_groups: int, width: int
) -> Floats:
    """Counts [G, width] of the values `ids` [T, k] in each group."""
    codes = groups[:, None] * width + ids
    counts = np.bincount(codes.ravel(), minlength=num_groups * width)
    return counts.reshape(num_groups, width).astype(np.float64)


def _affinity_divergence(
    ids: npt.NDArray[np.integer],
    pair: tuple[int, int],
    groups: npt.NDArray[np.intp],
    labels: Floats,
    experts: int,
) -> Floats:
    """Divergence [1 + B] of the affinity of one layer pair between the sides of each labelling."""
    from scipy.sparse import coo_array

    source, target = (ids[:, layer].astype(np.int64) for layer in pair)
    cells = (source[:, :, None] * experts + target[:, None, :]).reshape(len(ids), -1)
    where = (np.repeat(groups, cells.shape[1]), cells.ravel())
    by_group = coo_array(
        (np.ones(cells.size), where), shape=(labels.shape[1], experts**2)
    ).tocsr()  # adds up duplicates
    total = by_group.sum(axis=0).reshape(experts, experts)
    weight = total.sum(axis=1)
    found = []
    # Blocks of labellings, so that memory does not grow with E * E * B.
    step = max(1, (1 << 24) // experts**2)
    for begin in range(0, len(labels), step):
        first = (by_group.T @ labels[begin : begin + step].T).T.reshape(-1, experts, experts)
        rows = divergence_bits(first, total - first)
        known = np.where(np.isfinite(rows), weight, 0.0)
        with np.errstate(invalid="ignore"):
            found.append((np.nan_to_num(rows) * known).sum(axis=1) / known.sum(axis=1))
    return np.concatenate(found)


def _test(divergences: list[Floats]) -> Divergence:
    """Observed value (index 0) against the permuted ones, for each of n questions."""
    if not divergences:
        none = np.empty(0)
        return Divergence(none, none, none, none)
    from scipy.stats import false_discovery_control

    values = np.stack(divergences)
    observed, null = values[:, 0], values[:, 1:]
    # Equal sums in another order differ in the last digits: these reach the observed value too.
    reach = (null >= observed[:, None] - 1e-12).sum(axis=1)
    p = (1 + reach) / (1 + null.shape[1])
    return Divergence(observed, null.mean(axis=1), p, false_discovery_control(p, method="bh"))
