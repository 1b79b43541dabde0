"""The sections of the report, from results to HTML."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from routestats.report import _html as html
from routestats.report._analysis import PAIRING, SPLIT_SEED, TEST_SHARE, Analysis
from routestats.report._readings import verdict, with_interval
from routestats.schema import PHASES

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
    model = info.get("model")
    if isinstance(model, dict) and model.get("note"):
        parts.append(str(model["note"]))
    return " · ".join(parts)


def banners(analysis: Analysis) -> list[str]:
    """What a reader must know before believing a number."""
    info, found = analysis.trace.info, []
    label = json.dumps([info.get("model"), info.get("settings")], default=str).lower()
    if "untrained" in label or "random weights" in label:
        found.append(
            html.banner(
                "Untrained model with random weights: these figures show that the tools work. They "
                "say nothing about any trained model."
            )
        )
    if "mathwords" in analysis.trace.domains:
        found.append(
            html.banner(
                "The domain “mathwords” is a built-in set of generated arithmetic problems. It is "
                "not GSM8K."
            )
        )
    if not analysis.trace.complete:
        found.append(
            html.banner(
                "Incomplete run: capture did not end as it should. The figures cover what was "
                "written until then.",
                bad=True,
            )
        )
    if not analysis.verification.ok:
        names = ", ".join(c.name for c in analysis.verification.checks if not c.ok)
        found.append(
            html.banner(
                f"Verification failed ({names}): the data are not sound, and no figure here should "
                "be relied on. See “Verification”.",
                bad=True,
            )
        )
    return found


def key_figures(analysis: Analysis) -> list[str]:
    """The numbers that most readers come for."""
    trace, load = analysis.trace, analysis.load
    requests = trace.requests
    phases = trace.rows.column("phase").combine_chunks().to_pylist()
    by_phase = ", ".join(f"{phases.count(p):,} {p}" for p in PHASES if p in set(phases))
    groups = len(np.unique(trace.row_groups()))
    even = load.shape.num_experts
    rows = [
        ("Tokens", f"{len(trace):,}", by_phase),
        ("Requests", f"{requests.num_rows:,}", f"{groups:,} different prompts"),
        ("Domains", f"{len(trace.domains)}", ", ".join(trace.domains)),
        (
            "Imbalance (max / mean load), mean over layers",
            f"{load.imbalance.mean():.2f}",
            f"even: 1; worst layer {load.imbalance.max():.2f}",
        ),
        (
            "Effective experts, mean over layers",
            f"{load.effective_experts.mean():.2f}",
            f"of {even}; lowest layer {load.effective_experts.min():.2f}",
        ),
    ]
    parts = [
        html.heading(2, "Key figures"),
        html.table(("Figure", "Value", "Remark"), rows, text_columns=(0, 2)),
        html.heading(3, "Predicting the next layer’s experts, on held-out prompts"),
    ]
    result = analysis.accuracy
    if result is None:
        return [*parts, html.paragraph(analysis.missing.get("prediction", ""))]
    body = [
        (
            measure.label,
            with_interval(measure, "hop"),
            with_interval(measure, "marginal"),
            f"{measure.uniform:.1%}",
            with_interval(measure, "gain"),
        )
        for measure in result.measures
    ]
    parts.append(
        html.table(
            ("Measure", "Single hop", "Marginal", "Uniform", "Gain over marginal"),
            body,
            caption=f"Mean over adjacent layers, with {result.confidence:.0%} intervals; "
            f"{result.test_tokens:,} tokens of {result.test_groups:,} held-out prompts, fitted on "
            f"{result.train_tokens:,} tokens; pairing {result.pairing}.",
        )
    )
    first = verdict(result.main)
    parts.append(html.paragraph(f"{result.main.label.capitalize()}: {first}."))
    return parts


def domain_table(analysis: Analysis) -> str:
    """Load and prediction of each domain."""
    trace = analysis.trace
    per_request = trace.requests.column("domain").to_pylist()
    main = analysis.accuracy.main.name if analysis.accuracy is not None else ""
    headers = ["Domain", "Tokens", "Requests", "Imbalance", "Effective experts"]
    if analysis.accuracy_by_domain and analysis.accuracy is not None:
        label = analysis.accuracy.main.label
        headers += [f"Next layer: {label}", "Marginal", "Gain over marginal"]
    rows = []
    for domain, load in analysis.load_by_domain.items():
        row = [
            domain,
            f"{load.tokens:,}",
            f"{per_request.count(domain):,}",
            f"{load.imbalance.mean():.2f}",
            f"{load.effective_experts.mean():.2f}",
        ]
        if len(headers) > len(row):
            result = analysis.accuracy_by_domain.get(domain)
            row += (
                ["–"] * 3
                if result is None
                else [with_interval(result[main], which) for which in ("hop", "marginal", "gain")]
            )
        rows.append(row)
    return html.table(
        headers,
        rows,
        caption="Means over layers, and over adjacent layers. Predictions are fitted on all "
        "domains and measured on the held-out prompts of one.",
    )


def layer_table(analysis: Analysis) -> str:
    """Load of each layer."""
    load = analysis.load
    rows = [
        (
            str(layer),
            f"{load.imbalance[i]:.2f}",
            f"{load.effective_experts[i]:.2f}",
            f"{load.entropy_bits[i]:.3f}",
            f"{int(load.load[i].argmax())}",
            f"{load.share[i].max():.1%}",
            f"{int(load.load[i].argmin())}",
            f"{load.share[i].min():.1%}",
        )
        for i, layer in enumerate(load.layer_ids)
    ]
    headers = (
        "Layer",
        "Imbalance",
        "Effective experts",
        "Entropy (bits)",
        "Busiest expert",
        "its share",
        "Idlest expert",
        "its share",
    )
    return html.details("Load of each layer, in numbers", html.table(headers, rows))


def verification(analysis: Analysis) -> list[str]:
    """What was checked about the data, with the outcome."""
    result = analysis.verification
    outcome = "The run passes all checks." if result.ok else "The run FAILS at least one check."
    if not result.complete:
        outcome += " It is incomplete."
    rows = [(c.name, "ok" if c.ok else "FAILED", c.detail) for c in result.checks]
    return [
        html.heading(2, "Verification"),
        html.paragraph(outcome),
        html.table(("Check", "Outcome", "Detail"), rows, text_columns=range(3), bad="FAILED"),
    ]


def provenance(analysis: Analysis) -> list[str]:
    """Where the numbers come from: everything that run.json says, and what made the report."""
    rows = [
        ("report made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("routestats", _version("routestats")),
        ("Python, NumPy", f"{platform.python_version()}, {np.__version__}"),
        *_flatten(analysis.trace.info),
    ]
    return [
        html.heading(2, "Provenance"),
        html.table(("Item", "Value"), rows, text_columns=range(2)),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


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
