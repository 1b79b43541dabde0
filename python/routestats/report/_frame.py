"""What stands around the results: title, warnings, what was run, what is missing, definitions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from routestats.report import _blocks as page
from routestats.report._analysis import PAIRING, SPLIT_SEED, TEST_SHARE, Analysis
from routestats.report._blocks import number
from routestats.report._made_by import MadeBy
from routestats.trace import Trace

DEFINITIONS = (
    (
        "Pairing",
        "“any”: all K experts of a token count; “top1”: only its first choice. Every number here "
        f"is of pairing “{PAIRING}” unless it says otherwise.",
    ),
    (
        "Load, share",
        "Tokens that chose an expert; its share is that over the sum of the layer. Even use is "
        "1 / E.",
    ),
    (
        "Imbalance",
        "The largest load of a layer over the mean of all its experts, unused ones included; 1 is "
        "even.",
    ),
    (
        "Effective experts",
        "2 to the entropy (in bits) of the shares: how many evenly used experts would have the "
        "same entropy.",
    ),
    (
        "Affinity",
        "Of the tokens that chose expert e at one layer, the share that chose expert f at the "
        "other. Rows sum to K.",
    ),
    (
        "Single-hop prediction",
        "The score of an expert at the target layer is the sum of its affinities to the token's K "
        "experts at the source layer; ties go to the lowest id. Top-1 accuracy: the best score is "
        "the target's first choice. Recall@M: the part of the token's K experts among the best M "
        "scores. Exact set: the best K are the token's K.",
    ),
    (
        "Baselines",
        "Uniform: a guess drawn evenly. Marginal: always the experts used most at the target "
        "layer in training, whatever the token.",
    ),
    (
        "Other predictors",
        "Token id: the experts used most after the token's id in training. Previous token: the "
        "experts that the token before chose at the target layer. History: the experts used most "
        "after the same experts at the last m layers, m as long as training has seen (longest), or "
        "m and its least number of tokens chosen on a part of training (selected).",
    ),
    (
        "Information",
        "Mutual information of the experts of two layers, in bits. What is left when tokens are "
        "permuted is what the request or the token's id alone gives.",
    ),
    (
        "Repetition, SRP, SCH",
        "Consecutive tokens with the same first choice, or an expert in common. SRP: how well "
        "fixed experts serve all tokens of a segment (F1). SCH: hits of a cache that knows the "
        "segment ahead. Both beside the same with tokens permuted.",
    ),
    (
        "Beyond chance",
        "Prompts are permuted between the two sides; q is the p-value after Benjamini and "
        "Hochberg's correction over the layers.",
    ),
    (
        "Paired at random",
        "Two runs: how often a token of one and any token of the other agree, which is what the "
        "loads alone give.",
    ),
    (
        "Held out",
        f"Prompts, not tokens, are split: {TEST_SHARE:.0%} of the prompts of each domain are "
        f"measured on (seed {SPLIT_SEED}), and the affinities are fitted on the others. All "
        "requests with the same prompt are on the same side.",
    ),
    (
        "Intervals",
        "95% percentile bootstrap, conditional on the fit: whole prompts of the held-out side are "
        "drawn anew within each domain. Differences from a baseline are drawn together with it.",
    ),
)


def model_name(info: dict[str, Any]) -> str:
    """The model as run.json names it."""
    model = info.get("model", "unnamed model")
    return str(model.get("name", "unnamed model") if isinstance(model, dict) else model)


def subtitle(analysis: Analysis) -> str:
    """Shape, engine and version in one line."""
    info, parts = analysis.trace.info, [str(analysis.trace.shape)]
    engine = info.get("engine") or {}
    if isinstance(engine, dict) and engine.get("name"):
        parts.append(f"{engine['name']} {engine.get('version', '')}".strip())
    if _note(info):
        parts.append(_note(info))
    return " · ".join(parts)


def banners(analysis: Analysis) -> list[page.Banner]:
    """What a reader must know before believing a number."""
    info, found = analysis.trace.info, []
    label = json.dumps([info.get("model"), info.get("settings")], default=str).lower()
    if "untrained" in label or "random weights" in label:
        found.append(
            page.Banner(
                "Untrained model with random weights: these figures show that the tools work. They "
                "say nothing about any trained model."
            )
        )
    if "mathwords" in analysis.trace.domains:
        found.append(
            page.Banner(
                "The domain “mathwords” is a built-in set of generated arithmetic problems. It is "
                "not GSM8K."
            )
        )
    if not analysis.trace.complete:
        found.append(
            page.Banner(
                "Incomplete run: capture did not end as it should. The figures cover what was "
                "written until then.",
                bad=True,
            )
        )
    if not analysis.verification.ok:
        names = ", ".join(c.name for c in analysis.verification.checks if not c.ok)
        found.append(
            page.Banner(
                f"Verification failed ({names}): the data are not sound, and no figure here should "
                "be relied on. See “Is the capture sound?”.",
                bad=True,
            )
        )
    return found


def run_blocks(analysis: Analysis, made: MadeBy) -> list[page.Block]:
    """What was run, and what made this report."""
    trace = analysis.trace
    info = trace.info
    engine = info.get("engine") or {}
    settings = info.get("settings") or {}
    facts = [
        ("Model", " · ".join(filter(None, (model_name(info), _note(info))))),
        ("Shape", str(trace.shape)),
        ("Engine", _pairs(engine) if isinstance(engine, dict) else str(engine)),
        ("Capture", _pairs(settings) if isinstance(settings, dict) else str(settings)),
        ("Captured", f"{info.get('created', 'unknown')} to {info.get('finished', 'unknown')}"),
    ]
    return [
        page.Table("run", ("Item", "Value"), facts, text_columns=range(2)),
        page.Table(
            "tokens",
            ("Domain", "Tokens read (prefill)", "Tokens written (decode)", "Requests", "Prompts"),
            _tokens(trace),
            caption="One token is one row: computed once, routed at every layer.",
        ),
        page.Paragraph("This report was made by"),
        page.Preformatted(made.command),
        page.Table("versions", ("Of", "Version"), made.versions, text_columns=range(2)),
    ]


def _tokens(trace: Trace) -> list[page.Row]:
    """Tokens of either phase, requests and prompts of each domain."""
    requests = trace.requests.column("domain").to_pylist()
    domain_of, groups = trace.row_domains(), trace.row_groups()
    phase_of = trace.rows["phase"].combine_chunks()
    decode = phase_of.to_numpy(zero_copy_only=False) == "decode"
    rows: list[page.Row] = []
    for place, domain in enumerate(trace.domains):
        own = domain_of == place
        rows.append(
            [
                domain,
                number(int((own & ~decode).sum())),
                number(int((own & decode).sum())),
                number(requests.count(domain)),
                number(len(np.unique(groups[own]))),
            ]
        )
    return rows


def _note(info: dict[str, Any]) -> str:
    model = info.get("model")
    return str(model.get("note") or "") if isinstance(model, dict) else ""


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "unknown"


def missing_blocks(analysis: Analysis) -> list[page.Block]:
    """What could not be computed, and why."""
    if not analysis.missing:
        return []
    missing = list(analysis.missing.items())
    return [page.Table("missing", ("Part", "Reason"), missing, text_columns=range(2))]


def definition_blocks(analysis: Analysis) -> list[page.Block]:
    """Definitions, and everything that run.json says."""
    facts = page.Table(
        "run-json", ("Item", "Value"), _flatten(analysis.trace.info), text_columns=range(2)
    )
    return [
        page.Definitions(DEFINITIONS),
        page.Details("Everything that run.json says", facts),
    ]


def _flatten(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, part in value.items():
        if isinstance(part, dict):
            rows += _flatten(part, f"{prefix}{name}.")
        elif isinstance(part, list):
            rows.append((f"{prefix}{name}", ", ".join(str(item) for item in part)))
        else:
            rows.append((f"{prefix}{name}", str(part)))
    return rows
