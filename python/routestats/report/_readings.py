"""Sentences that say what a figure shows, no more than the numbers carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from routestats.counts import RouteCounts
from routestats.report._cells import percent, points
from routestats.stats import (
    DomainDifference,
    ExpertLoad,
    HopAccuracy,
    HopMeasure,
    Paths,
    affinity,
)

EVEN_ENOUGH = 1.25
MIN_TOKENS = 100


def read_load(load: ExpertLoad) -> str:
    """How even the load is, and where it is least so."""
    experts = load.shape.num_experts
    worst = int(load.imbalance.argmax())
    busiest = int(load.load[worst].argmax())
    uneven = int((load.imbalance >= EVEN_ENOUGH).sum())
    verdict = f"uneven at {uneven} of {len(load.layer_ids)} layers" if uneven else "close to even"
    text = (
        f"Load is {verdict}: the busiest expert of a layer gets {load.imbalance.mean():.2f} times "
        f"the mean load on average, at most {load.imbalance[worst]:.2f} times (expert {busiest} of "
        f"layer {load.layer_ids[worst]}). By entropy, {load.effective_experts.mean():.1f} of "
        f"{experts} experts are in use on average over the layers, "
        f"{load.effective_experts.min():.1f} at least."
    )
    unused = int((load.load == 0).sum())
    if unused:
        text += f" {unused:,} of {load.load.size:,} experts were never used in this run."
    return text


def read_domains(loads: dict[str, ExpertLoad]) -> str:
    """Where two domains differ most; no claim that the difference is more than chance."""
    names = list(loads)
    if len(names) != 2:
        return "Compare the panels: the same scale holds for all."
    points = (loads[names[0]].share - loads[names[1]].share) * 100
    layer, expert = (int(i) for i in np.unravel_index(np.abs(points).argmax(), points.shape))
    shares = [loads[name].share[layer, expert] for name in names]
    return (
        f"The largest difference is at expert {expert} of layer "
        f"{loads[names[0]].layer_ids[layer]}: {shares[0]:.1%} of the load in {names[0]}, "
        f"{shares[1]:.1%} in {names[1]}. Averaged over all experts and layers the shares differ by "
        f"{np.abs(points).mean():.2f} points."
    )


class Link(NamedTuple):
    """Expert `source` of layer `layer` and `target` of the next; tokens, P(target | source), P."""

    layer: int
    source: int
    target: int
    tokens: int
    probability: float
    overall: float


def strongest_link(counts: RouteCounts) -> Link | None:
    """The largest rise of a probability between adjacent layers; None where tokens are too few."""
    best: Link | None = None
    for layer in range(counts.shape.num_layers - 1):
        result = affinity(counts, layer, layer + 1)
        load = counts.expert[layer + 1] / counts.tokens
        lift = np.where(result.source_tokens[:, None] >= MIN_TOKENS, result.matrix, np.nan) - load
        if np.isnan(lift).all():
            continue
        source, target = (int(i) for i in np.unravel_index(np.nanargmax(lift), lift.shape))
        if best is None or lift[source, target] > best.probability - best.overall:
            best = Link(
                layer,
                source,
                target,
                int(result.source_tokens[source]),
                float(result.matrix[source, target]),
                float(load[target]),
            )
    return best


def read_affinity(counts: RouteCounts) -> str:
    """The strongest link between adjacent layers, beside what the target's load alone gives."""
    best = strongest_link(counts)
    if best is None:
        return f"No expert was chosen by {MIN_TOKENS} tokens: too few to name a link."
    ids = counts.layer_ids[best.layer], counts.layer_ids[best.layer + 1]
    return (
        f"The strongest link: of the {best.tokens:,} tokens that chose expert {best.source} at "
        f"layer {ids[0]}, {best.probability:.1%} chose expert {best.target} at layer {ids[1]}, "
        f"against {best.overall:.1%} of all tokens. It is the largest of many and from the same "
        "tokens; the held-out accuracy above says what such links are worth."
    )


def read_accuracy(result: HopAccuracy) -> str:
    """Accuracy over adjacent layers, and whether it beats the marginal."""
    measure = result.main
    text = (
        f"From one layer to the next, {measure.label} on held-out prompts is "
        f"{with_interval(measure, 'hop')}, against {measure.marginal_by_distance.value[0]:.1%} "
        f"for the marginal and {measure.uniform:.1%} for a uniform guess: {verdict(measure)}."
    )
    gain = measure.gain_by_distance.value * 100
    if len(gain) > 1:
        text += (
            f" The gain over the marginal is {gain[0]:+.1f} points one layer ahead and "
            f"{gain[-1]:+.1f} points {len(gain)} layers ahead."
        )
    return text


def read_prediction(result: HopAccuracy) -> str:
    """The best predictor one layer and many layers ahead, beside the marginal."""
    measure = result.main
    known = [p for p in measure.predictions if p.name not in ("uniform", "marginal")]
    texts = []
    for hop in dict.fromkeys((1, len(measure.hop_by_distance.value))):
        best = max(known, key=lambda p: float(p.by_hop.value[hop - 1]))
        texts.append(
            f"{hop} layer{'s' if hop > 1 else ''} ahead the best is {best.label} with "
            f"{best.by_hop.value[hop - 1]:.1%}, against "
            f"{measure.marginal_by_distance.value[hop - 1]:.1%} for the marginal"
        )
    text = "; ".join(texts)
    return text[0].upper() + text[1:] + "."


def read_paths(found: dict[str, Paths]) -> str:
    """How many paths there are, and what the most frequent carry, beside the nulls."""
    texts = []
    for result in found.values():
        part = result.windows[0]
        most = len(result.top) - 1
        kind = "first choices" if result.kind == "top1" else "whole sets"
        texts.append(
            f"By {kind}, {part.tokens:,} tokens take {part.observed.distinct:,.0f} different paths "
            f"through all layers; the {result.top[most]:,} most frequent carry "
            f"{part.observed.coverage[most]:.1%} of the tokens, against "
            f"{part.markov.coverage[most]:.1%} if each layer knew only the one before it, and "
            f"{part.independent.coverage[most]:.1%} if none knew another."
        )
    return " ".join(texts)


def read_differences(found: Sequence[DomainDifference]) -> str:
    """Where the loads of two domains differ beyond chance."""
    texts = []
    for result in found:
        beyond = int((result.load.q_value <= 0.05).sum())
        worst = int(np.nanargmax(result.load.bits))
        several = result.experts.beyond()
        texts.append(
            f"{result.phase.capitalize()}: the loads differ beyond chance at {beyond} of "
            f"{len(result.layer_ids)} layers, most at layer {result.layer_ids[worst]} "
            f"({result.load.bits[worst]:.4f} bits, permuted prompts "
            f"{result.load.null_mean_bits[worst]:.4f}); so do those of {several.sum():,} of "
            f"{several.size:,} experts."
        )
    return " ".join(texts)


def verdict(measure: HopMeasure) -> str:
    """What the interval of the gain over adjacent layers allows to be said."""
    value, low, high = (float(part[0]) * 100 for part in measure.gain_by_distance)
    if np.isnan(low):
        return (
            f"a difference of {value:+.1f} points, for which no interval can be given (fewer than "
            "two held-out prompts in a domain)"
        )
    interval = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if low > 0:
        return f"a gain over the marginal of {interval}"
    if high < 0:
        return f"worse than the marginal, by {interval}"
    return f"no gain over the marginal is shown ({interval} includes 0)"


def with_interval(measure: HopMeasure, which: str) -> str:
    """Mean over adjacent layers with its interval; `which` is hop, marginal or gain."""
    estimate = getattr(measure, f"{which}_by_distance")
    return (points if which == "gain" else percent)(estimate, 0).text
