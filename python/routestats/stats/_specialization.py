"""Specialization: which experts serve a domain, or a token id, more than others?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    Ids,
    check_confidence,
    check_integer,
    check_trace,
    checked_experts,
)
from routestats.stats._base.estimate import Estimate, Floats, resampling_weights
from routestats.stats._base.units import Units, share_estimate, stack_estimates
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Specialization(Result):
    """Shares of a domain's, and of a token id's, tokens that chose each expert.

    Made by `specialization`. All over sets of K experts (pairing ``any``), so that the experts of
    a layer sum to K.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
    domains : tuple of str, length D
    domain_tokens, domain_groups : tuple of int, length D
    share : Estimate of shape [D, L, E]
        Tokens of the domain that chose the expert, over the tokens of the domain.
    overall : ndarray of float64, shape [L, E]
        The same over the whole trace.
    uniform : float
        K / E.
    token_ids, id_tokens : ndarray of int64, shape [X]
        Token ids with at least `min_tokens` tokens, the most frequent first (ties: the lowest id),
        and their tokens. Empty where token ids are not known.
    id_share : ndarray of float64, shape [X, L, E]
        Tokens of the id that chose the expert, over the tokens of the id.
    ids_left_out : int
        Ids with `min_tokens` tokens beyond the `max_ids` most frequent.
    most_specialised : ndarray of int64, shape [N, 3]
        (token id, layer, expert) whose share exceeds `overall` most.
    most_specialised_share, most_specialised_overall : ndarray of float64, shape [N]
    min_tokens : int
    confidence : float
    bootstrap, seed : int
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    domains: tuple[str, ...]
    domain_tokens: tuple[int, ...]
    domain_groups: tuple[int, ...]
    share: Estimate
    overall: Floats
    uniform: float
    token_ids: npt.NDArray[np.int64]
    id_tokens: npt.NDArray[np.int64]
    id_share: Floats
    ids_left_out: int
    most_specialised: npt.NDArray[np.int64]
    most_specialised_share: Floats
    most_specialised_overall: Floats
    min_tokens: int
    confidence: float
    bootstrap: int
    seed: int

    def to_table(self) -> pa.Table:
        """One row per domain, layer and expert."""
        domain, layer, expert = (axis.ravel() for axis in np.indices(self.share.value.shape))
        return pa.table(
            {
                "domain": pa.array([self.domains[d] for d in domain], pa.string()),
                "layer": layer,
                "layer_id": np.array(self.layer_ids)[layer],
                "expert": expert,
                "share": self.share.value.ravel(),
                "low": self.share.low.ravel(),
                "high": self.share.high.ravel(),
                "overall": self.overall[layer, expert],
            }
        )

    def to_id_table(self) -> pa.Table:
        """One row per token id, layer and expert that its tokens chose."""
        place, layer, expert = np.nonzero(self.id_share)
        return pa.table(
            {
                "token_id": self.token_ids[place],
                "tokens": self.id_tokens[place],
                "layer": layer,
                "layer_id": np.array(self.layer_ids)[layer],
                "expert": expert,
                "share": self.id_share[place, layer, expert],
                "overall": self.overall[layer, expert],
            }
        )

    def summary(self) -> str:
        """The most used expert of each domain, and the most specialised token ids."""
        lines = [
            f"specialization ({self.pairing}), {self.shape}: share of tokens that chose an expert, "
            f"uniform {self.uniform:.1%}; {self.confidence:.0%} intervals (bootstrap "
            f"{self.bootstrap}, seed {self.seed})"
        ]
        for d, domain in enumerate(self.domains):
            layer, expert = np.unravel_index(self.share.value[d].argmax(), self.overall.shape)
            lines.append(
                f"  {domain:12s} {self.domain_tokens[d]:,} tokens: most at layer "
                f"{self.layer_ids[layer]} expert {expert}, "
                f"{self.share.text((d, layer, expert))} "
                f"(all domains {self.overall[layer, expert]:.1%})"
            )
        if not len(self.token_ids):
            lines.append(f"  no token id has {self.min_tokens} tokens or more")
        for (token, layer, expert), share, overall in zip(
            self.most_specialised[:3],
            self.most_specialised_share,
            self.most_specialised_overall,
            strict=False,
        ):
            lines.append(
                f"  token id {token}: {share:.1%} at layer {self.layer_ids[layer]} expert {expert} "
                f"(all tokens {overall:.1%})"
            )
        return "\n".join(lines)


def specialization(
    trace: Trace,
    *,
    min_tokens: int = 100,
    max_ids: int = 1000,
    top: int = 20,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Specialization:
    """Shares of each domain's and each token id's tokens that chose each expert.

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory.
    min_tokens : int
        Tokens that a token id must have to be listed.
    max_ids : int
        Most ids that are listed, the most frequent first.
    top : int
        Length of the list of the most specialised.
    bootstrap : int
        Resamples of prompt groups, within each domain; 0 for no intervals.
    seed : int
    confidence : float

    Returns
    -------
    Specialization

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or a number no integer.
    InvalidValueError
        If a domain has no tokens, a number is out of range, an id is not below E, or a token names
        an expert twice at a layer.

    Notes
    -----
    Domain and vocabulary specialization of OLMoE (arXiv 2409.02060): N(e, D) / N(D), and the same
    with the tokens of an input token id in place of a domain's.
    """
    trace = check_trace(trace)
    for name, number in (("min_tokens", min_tokens), ("max_ids", max_ids), ("top", top)):
        check_integer(name, number, 1)
    confidence = check_confidence(confidence)
    shape = trace.shape
    domains = trace.domains
    units = Units.of(trace)
    unit_tokens = np.bincount(units.of_row, minlength=len(units))
    tokens = np.bincount(units.domain, unit_tokens, len(domains)).astype(np.int64)
    for domain, number in zip(domains, tokens, strict=True):
        if number == 0:
            raise InvalidValueError(f"domain {domain!r}: expected at least 1 token, got 0")
    experts = checked_experts(trace, distinct=True)
    weights = resampling_weights(units.domain, resamples=bootstrap, seed=seed)

    # Layer by layer: units, layers and experts at once would not fit for wide models.
    overall, by_layer = [], []
    for layer in range(shape.num_layers):
        counts = _tally(experts[:, layer], units.of_row, len(units), shape.num_experts)
        overall.append(counts.sum(axis=0) / len(trace))
        estimates = []
        for d in range(len(domains)):
            mine = units.domain == d
            drawn = None if weights is None else weights[:, mine]
            estimates.append(share_estimate(counts[mine], unit_tokens[mine], drawn, confidence))
        by_layer.append(stack_estimates(estimates))
    whole = np.stack(overall)

    ids, id_tokens, left_out, id_share = _by_id(trace, experts, min_tokens, max_ids)
    most = _most_specialised(id_share, whole, top)
    return Specialization(
        shape=shape,
        layer_ids=tuple(trace.layer_ids),
        pairing="any",
        domains=domains,
        domain_tokens=tuple(int(n) for n in tokens),
        domain_groups=tuple(int(n) for n in np.bincount(units.domain, minlength=len(domains))),
        share=Estimate(*(part.swapaxes(0, 1) for part in stack_estimates(by_layer))),
        overall=whole,
        uniform=shape.top_k / shape.num_experts,
        token_ids=ids,
        id_tokens=id_tokens,
        id_share=id_share,
        ids_left_out=left_out,
        most_specialised=np.stack((ids[most[0]], most[1], most[2]), axis=1),
        most_specialised_share=id_share[most],
        most_specialised_overall=whole[most[1:]],
        min_tokens=int(min_tokens),
        confidence=confidence,
        bootstrap=int(bootstrap),
        seed=int(seed),
    )


def _tally(
    chosen: Ids, codes: npt.NDArray[np.integer], number: int, num_experts: int
) -> npt.NDArray[np.int64]:
    """Choices [number, E] of the rows `chosen` [t, K] of each code."""
    cells = codes[:, None].astype(np.int64) * num_experts + chosen
    counts = np.bincount(cells.ravel(), minlength=number * num_experts)
    return counts.reshape(number, num_experts)


def _by_id(
    trace: Trace, experts: Ids, min_tokens: int, max_ids: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, Floats]:
    """Listed token ids, their tokens, how many more there are, and their shares [X, L, E]."""
    token_ids = trace.rows["token_id"].to_numpy()
    unique, code, tokens = np.unique(token_ids, return_inverse=True, return_counts=True)
    enough = np.flatnonzero((tokens >= min_tokens) & (unique >= 0))  # -1 is "not known"
    listed = enough[np.argsort(-tokens[enough], kind="stable")][:max_ids]
    place = np.full(len(unique), -1)
    place[listed] = np.arange(len(listed))
    rows = np.flatnonzero(place[code] >= 0)
    shares = np.empty((len(listed), trace.shape.num_layers, trace.shape.num_experts))
    for layer in range(trace.shape.num_layers):
        counts = _tally(
            experts[rows, layer], place[code[rows]], len(listed), trace.shape.num_experts
        )
        shares[:, layer] = counts / tokens[listed, None]
    return (
        unique[listed].astype(np.int64),
        tokens[listed].astype(np.int64),
        len(enough) - len(listed),
        shares,
    )


def _most_specialised(
    id_share: Floats, overall: Floats, top: int
) -> tuple[npt.NDArray[np.intp], ...]:
    """Indices (id, layer, expert) of the largest excess over `overall`, largest first."""
    excess = (id_share - overall).ravel()
    top = min(top, len(excess))
    # Only those that reach the last place are sorted; equals stay in order of id, layer, expert.
    limit = np.partition(excess, len(excess) - top)[len(excess) - top] if top else 0.0
    among = np.flatnonzero(excess >= limit)
    order = among[np.argsort(-excess[among], kind="stable")][:top]
    return np.unravel_index(order, id_share.shape)
