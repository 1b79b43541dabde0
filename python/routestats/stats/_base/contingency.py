"""Contingency tables of two layers' experts, and what is computed from them.

Everything takes stacks of tables ``[..., E, E]`` of counts and gives arrays ``[...]``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOOKED_UP = 1 << 20  # counts below have their n log2 n held, in 8 MB at most


def xlog2x(values: npt.NDArray[np.number]) -> Floats:
    """``x * log2(x)``, and 0 at 0."""
    x = values.astype(np.float64, copy=False)
    product: Floats = np.where(x > 0, x, 1.0)
    np.log2(product, out=product)
    product *= x
    return product


def xlog2x_sums(tables: Iterable[npt.NDArray[np.uint64]]) -> Floats:
    """Sum of ``n * log2(n)`` over the cells of each table of counts, one after the other.

    Equal to ``xlog2x(table).sum()`` in every bit, but looked up where counts are small: a table of
    many experts has few counts that are not, and a logarithm costs several loads.
    """
    known, sums = np.zeros(1), []
    for table in tables:
        limit = int(table.max(initial=0))
        if limit >= LOOKED_UP:
            sums.append(xlog2x(table).sum())
            continue
        if limit >= len(known):
            known = xlog2x(np.arange(min(2 * limit + 1, LOOKED_UP)))
        sums.append(known.take(table.view(np.int64)).sum())
    return np.array(sums)


def entropy_bits(counts: npt.NDArray[np.number], axis: int = -1) -> Floats:
    """Plug-in entropy in bits of the distributions along `axis`; NaN where all counts are 0."""
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=axis, keepdims=True, dtype=np.float64)
    # Rounding alone takes it below zero.
    entropy: Floats = np.maximum(-xlog2x(shares).sum(axis=axis), 0.0)
    return entropy


def information_bits(joint: Floats, margins: Floats, total: Floats) -> Floats:
    """Plug-in mutual information in bits from sums of ``n log2 n``; NaN where `total` is 0.

    Parameters
    ----------
    joint, margins : ndarray
        Sums over the cells of a table, and over its rows' and columns' totals together.
    total : ndarray
        Sum of the table.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        information = (joint - margins) / total + np.log2(total)
    # Rounding alone takes it below zero.
    positive: Floats = np.maximum(information, 0.0)
    return positive


def mutual_information_bits(tables: npt.NDArray[np.number]) -> Floats:
    """Plug-in mutual information in bits of rows and columns; NaN for an empty table."""
    total = tables.sum(axis=(-2, -1), dtype=np.float64)
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    joint = xlog2x(tables).sum(axis=(-2, -1))
    margins = xlog2x(rows).sum(axis=-1) + xlog2x(columns).sum(axis=-1)
    return information_bits(joint, margins, total)


def miller_madow_bits(tables: npt.NDArray[np.number]) -> Floats:
    """Mutual information with Miller and Madow's first-order correction of its upward bias.

    Adds ``(m_rows + m_columns - m_cells - 1) / (2 N ln 2)`` bits, with m the number of occupied
    rows, columns and cells (Miller, 1955; Paninski, 2003, eq. 4).
    """
    total = tables.sum(axis=(-2, -1), dtype=np.float64)
    rows = np.count_nonzero(tables.sum(axis=-1), axis=-1)
    columns = np.count_nonzero(tables.sum(axis=-2), axis=-1)
    cells = np.count_nonzero(tables, axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        correction = (rows + columns - cells - 1) / (2 * total * np.log(2))
    corrected: Floats = mutual_information_bits(tables) + correction
    return corrected


def chi_square(tables: npt.NDArray[np.number]) -> Floats:
    """Pearson's chi-square statistic of independence of rows and columns; NaN for no counts."""
    tables = tables.astype(np.float64)
    total = tables.sum(axis=(-2, -1))
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = rows[..., :, None] * columns[..., None, :] / total[..., None, None]
        part = np.where(expected > 0, (tables - expected) ** 2 / expected, 0.0)
    statistic: Floats = np.where(total > 0, part.sum(axis=(-2, -1)), np.nan)
    return statistic


def cramers_v(tables: npt.NDArray[np.number], *, corrected: bool = True) -> Floats:
    """Cramer's V, over occupied rows and columns; NaN where fewer than two of either are.

    Parameters
    ----------
    tables : array of counts, shape [..., E, E]
    corrected : bool
        With Bergsma's correction of its upward bias (2013), or as SciPy's
        ``contingency.association`` has it.
    """
    total = tables.sum(axis=(-2, -1), dtype=np.float64)
    r = np.count_nonzero(tables.sum(axis=-1), axis=-1).astype(np.float64)
    k = np.count_nonzero(tables.sum(axis=-2), axis=-1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        phi2 = chi_square(tables) / total
        if corrected:
            phi2 = np.maximum(0.0, phi2 - (r - 1) * (k - 1) / (total - 1))
            r = r - (r - 1) ** 2 / (total - 1)
            k = k - (k - 1) ** 2 / (total - 1)
        smaller = np.minimum(r, k) - 1
        v: Floats = np.sqrt(np.where(smaller > 0, phi2 / smaller, np.nan))
    return v


def divergence_bits(first: npt.NDArray[np.number], second: npt.NDArray[np.number]) -> Floats:
    """Jensen-Shannon divergence in bits between distributions along the last axis, as counts.

    Both weigh one half. It is SciPy's ``jensenshannon(..., base=2) ** 2``. NaN where either side
    has no counts.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = first / first.sum(axis=-1, keepdims=True, dtype=np.float64)
        q = second / second.sum(axis=-1, keepdims=True, dtype=np.float64)
    parts = xlog2x(p)
    parts += xlog2x(q)
    p += q
    p /= 2
    divergence = parts.sum(axis=-1) / 2 - xlog2x(p).sum(axis=-1)
    positive: Floats = np.maximum(divergence, 0.0)
    return positive
