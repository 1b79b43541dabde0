"""Do two domains route differently, beyond what their prompts differ among themselves?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts._plan import layer_pairs
from routestats.counts.device.choice import choose_threads
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.schema import PHASES
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    MOST,
    check_choice,
    check_integer,
    check_integers,
    check_pairs,
    check_trace,
    checked_experts,
)
from routestats.stats._base.contingency import divergence_bits
from routestats.stats._base.estimate import Floats
from routestats.stats._base.units import Units
from routestats.stats._compare_domains.divergence import (
    DIVERGENCE_COLUMNS,
    Divergence,
    tested,
)
from routestats.stats._compare_domains.expert_difference import (
    ExpertDifference,
    adjusted,
    permuted_differences,
)
from routestats.trace import Trace

# Cells of one table by group: 64 MB.
BLOCK_CELLS = 1 << 23
# Cells whose divergences are computed at once: 1 MB, which stays in the cache.
CACHED_CELLS = 1 << 17
MAX_THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class DomainDifference(Result):
    """How differently two domains route within one phase; made by `compare_domains`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    domains : tuple of two str
    pairing : str
        ``any``: load and affinity are over all K slots.
    phase : str
        ``prefill`` or ``decode``.
    tokens, groups : tuple of two int
        Tokens and prompt groups of each domain.
    permutations, seed : int
    load_share : ndarray, shape [2, L, E]
        Share of assignments (over all K slots) in each domain.
    load : Divergence
        Of the load shares, per layer.
    experts : ExpertDifference
        Of the load shares, per layer and expert.
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
    pairing: str
    phase: str
    tokens: tuple[int, int]
    groups: tuple[int, int]
    permutations: int
    seed: int
    load_share: Floats
    load: Divergence
    experts: ExpertDifference
    affinity_pairs: npt.NDArray[np.int64]
    affinity: Divergence

    def to_table(self) -> pa.Table:
        """One row per layer (kind ``load``), layer pair (``affinity``) and expert (``expert``).

        An expert has no divergence, layers and pairs have no expert and no difference: null.
        """
        layers = np.arange(self.shape.num_layers)
        places = np.concatenate((np.stack((layers, layers), axis=1), self.affinity_pairs))
        kinds = ["load"] * len(layers) + ["affinity"] * len(self.affinity_pairs)
        columns = {"kind": kinds, "source": places[:, 0], "target": places[:, 1]}
        for name in DIVERGENCE_COLUMNS:
            columns[name] = np.concatenate((getattr(self.load, name), getattr(self.affinity, name)))
        experts = self.experts.to_table().rename_columns({"layer": "source"})
        experts = experts.append_column("target", experts["source"])
        experts = experts.append_column("kind", [["expert"] * len(experts)])
        return pa.concat_tables([pa.table(columns), experts], promote_options="default")

    def summary(self, level: float = 0.05) -> str:
        """A line each: load, experts and affinity."""
        first, second = self.domains
        lines = [
            f"{first} against {second} ({self.pairing}), {self.phase}: {self.tokens[0]:,} and "
            f"{self.tokens[1]:,} tokens of {self.groups[0]} and {self.groups[1]} prompt groups, "
            f"{self.permutations} permutations (seed {self.seed})"
        ]
        for name, found, places in (
            ("load", self.load, "layers"),
            ("affinity", self.affinity, self._places()),
        ):
            if len(found.bits):
                lines.append(f"  {name:9s} {found.summary(level, places)}")
            if name == "load":
                lines.append(f"  {'experts':9s} {self.experts.summary(level)}")
        return "\n".join(lines)

    def _places(self) -> str:
        """Layer pairs, named where they are a few chosen ones."""
        if len(self.affinity_pairs) >= self.shape.num_layers - 1:
            return "layer pairs"
        ids = self.layer_ids
        return f"layer pairs ({', '.join(f'{ids[a]} → {ids[b]}' for a, b in self.affinity_pairs)})"


def compare_domains(
    trace: Trace,
    first: str | None = None,
    second: str | None = None,
    *,
    phase: str = "prefill",
    hops: Sequence[int] = (1,),
    pairs: Iterable[tuple[int, int]] | None = None,
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
    pairs : iterable of (int, int), optional
        Layer pairs, source before target, to compare in place of those of `hops`. Every
        permutation costs a pass over E x E cells for each of them, so that with many experts
        (E >= 64) some pairs are the wiser choice.
    permutations : int
        B. Take 999 or more: the smallest p is ``1 / (1 + B)``, so fewer cannot reach a small q
        at one of many layer pairs. Less is for trying out. Where few of many experts differ, it
        takes more: with fewer than ``20 L E / (1 + B)`` of them, none can reach q = 0.05.
    seed : int
        Of the permutations.

    Returns
    -------
    DomainDifference

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or a number no integer.
    InvalidValueError
        If a domain is unknown or has fewer than two prompt groups in the phase, or another
        argument is out of range.

    Notes
    -----
    Prompt groups are permuted between the domains, not tokens and not requests of one prompt:
    tokens of a prompt are alike, so that a permutation of tokens would call any two sets of
    prompts different.
    """
    trace = check_trace(trace)
    permutations = check_integer("permutations", permutations, 1, MOST)
    seed = check_integer("seed", seed, 0)
    check_choice("phase", phase, PHASES)
    names = two_domains(trace, first, second)
    layers, experts = trace.shape.num_layers, trace.shape.num_experts
    chosen = _pairs_of(hops, layers) if pairs is None else _checked_pairs(pairs, layers)
    part = trace.filter(domain=names, phase=phase)
    groups, sides = _groups(part, names, phase)
    labels = _labels(sides, permutations, seed)

    # One layer after the other in memory: each is read for several pairs.
    columns = np.ascontiguousarray(checked_experts(part).transpose(1, 0, 2))
    share = np.empty((2, layers, experts))
    divergences, differences = [], []
    for layer, column in enumerate(columns):
        by_group = _by_group(column, groups, len(sides), experts)
        first_side, total = labels @ by_group, by_group.sum(axis=0)
        share[:, layer] = first_side[0], total - first_side[0]
        divergences.append(divergence_bits(first_side, total - first_side))
        differences.append(permuted_differences(first_side, total))
    difference, null_mean_abs, p_value = (
        np.stack(parts) for parts in zip(*differences, strict=True)
    )
    with ThreadPoolExecutor(min(MAX_THREADS, choose_threads(None))) as pool:
        affinity = tested(
            [_affinity_divergence(columns, pair, groups, labels, experts, pool) for pair in chosen]
        )
    tokens = np.bincount(sides[groups], minlength=2)
    return DomainDifference(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        domains=names,
        pairing="any",
        phase=phase,
        tokens=(int(tokens[0]), int(tokens[1])),
        groups=(int((sides == 0).sum()), int((sides == 1).sum())),
        permutations=permutations,
        seed=seed,
        load_share=share / share.sum(axis=2, keepdims=True),
        load=tested(divergences),
        experts=ExpertDifference(
            tuple(trace.layer_ids),
            difference,
            null_mean_abs,
            p_value,
            adjusted(p_value),
            permutations,
        ),
        affinity_pairs=np.array(chosen, np.int64).reshape(-1, 2),
        affinity=affinity,
    )


def two_domains(trace: Trace, first: str | None, second: str | None) -> tuple[str, str]:
    """The domains of these names, or the two that the trace has."""
    known = trace.domains
    if first is None and second is None:
        if len(known) != 2:
            raise InvalidValueError(
                f"first, second: expected the names of two of the trace's {len(known)} domains "
                f"({', '.join(known)})"
            )
        return known[0], known[1]
    for name, value in (("first", first), ("second", second)):
        check_choice(name, value, known)
    if first == second:
        raise InvalidValueError(f"second: expected another domain than {first!r}")
    return str(first), str(second)


def _pairs_of(hops: Sequence[int], layers: int) -> list[tuple[int, int]]:
    checked = check_integers("hops", hops, 1)
    for hop in checked:
        if hop >= layers:
            raise InvalidValueError(f"hops: expected 1 to {layers - 1}, got {hop}")
    return list(layer_pairs(layers, checked))


def _checked_pairs(pairs: Iterable[tuple[int, int]], layers: int) -> list[tuple[int, int]]:
    chosen = check_pairs("pairs", pairs)
    for source, target in chosen:
        if not 0 <= source < target < layers:
            raise InvalidValueError(
                f"pairs: expected layers 0 to {layers - 1}, the source before the target, got "
                f"({source}, {target})"
            )
    return chosen


def _groups(
    part: Trace, names: tuple[str, str], phase: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Group 0..G-1 of each row, and the side (0 or 1) of each group: see `Units.of`."""
    units = Units.of(part)
    side_of = np.array([names.index(domain) for domain in part.domains])
    sides = side_of[units.domain]
    for i, name in enumerate(names):
        if (sides == i).sum() < 2:
            raise InvalidValueError(
                f"{name}: expected at least 2 prompt groups in {phase}, got {(sides == i).sum()}"
            )
    return units.of_row, sides


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
    columns: npt.NDArray[np.integer],
    pair: tuple[int, int],
    groups: npt.NDArray[np.intp],
    labels: Floats,
    experts: int,
    pool: ThreadPoolExecutor,
) -> Floats:
    """Divergence [1 + B] of the affinity of one layer pair between the sides of each labelling.

    `columns` [L, T, K] are the ids, layer by layer.
    """
    num_groups = labels.shape[1]
    source, target = (columns[layer].astype(np.int64) for layer in pair)
    weighted, weight = np.zeros(len(labels)), np.zeros(len(labels))
    # Some source experts at a time, so that the table by group stays small.
    step = max(1, BLOCK_CELLS // (num_groups * experts))
    for begin in range(0, experts, step):
        width = min(step, experts - begin)
        token, slot = np.nonzero((source >= begin) & (source < begin + width))
        rows = groups[token] * width + source[token, slot] - begin
        cells = (rows[:, None] * experts + target[token]).ravel()
        table = np.bincount(cells, minlength=num_groups * width * experts)
        by_group = table.reshape(num_groups, width * experts).astype(np.float64)
        parts = _row_divergences(by_group, labels, experts, pool)
        weighted += parts[0]
        weight += parts[1]
    with np.errstate(invalid="ignore"):
        return weighted / weight


def _row_divergences(
    by_group: Floats, labels: Floats, experts: int, pool: ThreadPoolExecutor
) -> tuple[Floats, Floats]:
    """Per labelling [1 + B]: divergences of rows weighed by pooled load, and the weights, summed.

    `by_group` [G, rows * E] are pair counts. A row that one side never chose has no weight.
    """
    total = by_group.sum(axis=0).reshape(-1, experts)
    load = total.sum(axis=1)
    weighted, weight = np.empty(len(labels)), np.empty(len(labels))
    step = max(1, BLOCK_CELLS // (4 * total.size))
    for begin in range(0, len(labels), step):
        some = slice(begin, begin + step)
        # The product has its own threads (BLAS), so the pool's threads wait meanwhile.
        first = (labels[some] @ by_group).reshape(-1, *total.shape)
        few = max(1, CACHED_CELLS // total.size)
        parts = [first[i : i + few] for i in range(0, len(first), few)]
        rows = np.concatenate(
            list(pool.map(lambda part: divergence_bits(part, total - part), parts))
        )
        known = np.isfinite(rows)
        weighted[some] = np.where(known, rows, 0.0) @ load
        weight[some] = known @ load
    return weighted, weight
