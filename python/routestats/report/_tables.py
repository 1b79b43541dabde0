"""All results of an analysis as tables, and as CSV files."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv

from routestats.report._analysis import Analysis
from routestats.report._comparison import Compared
from routestats.report._limits import partners_listed


def tables(analysis: Analysis) -> dict[str, pa.Table]:
    """Tables by name: the numbers behind every figure and sentence of the report."""
    found = {"expert_load": analysis.load.to_table()}
    for domain, load in analysis.load_by_domain.items():
        found[f"expert_load_{domain}"] = load.to_table()
    experts = analysis.trace.shape.num_experts
    partners = partners_listed(analysis.trace.shape)
    if analysis.trace.shape.num_layers > 1:
        found["affinity_adjacent"] = _foremost(
            _adjacent(analysis), "probability", experts, partners
        )
    named = {
        "prediction_first_choices": analysis.first_choices,
        "prediction": analysis.accuracy,
        "information": analysis.information,
        "transfer": analysis.transfer,
        "repetition": analysis.repetition,
        "segment_routing": analysis.segments,
        "correlation": analysis.correlation,
        "coactivation": analysis.coactivation,
        "specialization": analysis.specialization,
        "timing": analysis.timing,
        "lookahead": analysis.lookahead,
        "confidence": analysis.confidence,
        "speculation": analysis.speculation,
    }
    found |= {name: result.to_table() for name, result in named.items() if result is not None}
    if "coactivation" in found and partners < experts:
        found["coactivation"] = _foremost(found["coactivation"], "share", experts - 1, partners)
    if analysis.specialization is not None and len(analysis.specialization.token_ids):
        found["specialization_token_ids"] = analysis.specialization.to_id_table()
    for kind, paths in analysis.paths.items():
        found[f"paths_{kind}"] = paths.to_table()
    for difference in analysis.differences:
        first, second = difference.domains
        found[f"difference_{first}_{second}_{difference.phase}"] = difference.to_table()
    return found


def comparison_tables(compared: Compared) -> dict[str, pa.Table]:
    """Tables by name of a second run beside the first."""
    found = compared.comparison
    sheets = {f"compare_{phase}": part.to_table() for phase, part in found.differences.items()}
    if found.agreement is not None:
        sheets["compare_agreement"] = found.agreement.to_table()
    if found.transfer is not None:
        sheets["compare_transfer"] = found.transfer.to_table()
    if compared.accuracy is not None:
        sheets["compare_prediction"] = compared.accuracy.to_table()
    return sheets


def to_csv(table: pa.Table) -> bytes:
    """`table` as CSV; lists are written as numbers with spaces between them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            texts = [None if v is None else _flat(v) for v in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _flat(value: list[object]) -> str:
    return " ".join(_flat(v) if isinstance(v, list) else str(v) for v in value)


def _foremost(table: pa.Table, by: str, width: int, most: int) -> pa.Table:
    """Of every `width` rows the `most` with the largest value, in the order of `table`."""
    if most >= width:
        return table
    values = table.column(by).to_numpy().reshape(-1, width)
    ranked = np.argsort(-np.nan_to_num(values, nan=-1.0), axis=1, kind="stable")
    kept = np.sort(ranked[:, :most], axis=1) + np.arange(len(values))[:, None] * width
    return table.take(kept.ravel())


def _adjacent(analysis: Analysis) -> pa.Table:
    """Conditional probabilities of adjacent layers: one row per layer pair and pair of experts."""
    counts = analysis.counts
    pairs = np.stack([counts.pair(i, i + 1) for i in range(counts.shape.num_layers - 1)])
    layer, source, target = (axis.ravel() for axis in np.indices(pairs.shape))
    load = counts.expert[:-1].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = pairs / load[:, :, None]
    ids = np.array(counts.layer_ids)
    return pa.table(
        {
            "pairing": pa.array([counts.pairing] * pairs.size, pa.string()),
            "source_layer": ids[layer],
            "target_layer": ids[layer + 1],
            "source_expert": source,
            "target_expert": target,
            "source_tokens": counts.expert[layer, source],
            "tokens": pairs.ravel(),
            "probability": share.ravel(),
            "target_share": counts.expert[layer + 1, target] / counts.tokens,
        }
    )
