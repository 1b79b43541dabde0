"""Where the lines of `path_flow` run: rows of experts, places within a row, curves between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

FLAT = 0.2  # of a column on either side of a layer, where lines are level
CURVE_POINTS = 14


def rows_by_straightness(experts: Ids, tokens: npt.NDArray[np.uint64]) -> Floats:
    """Row of each path at each layer, [N, length], such that wide lines move little.

    Paths on the same expert share a row. At the first layer experts are in the order of their
    tokens; at each further one they are assigned to rows at the least sum, over the paths, of
    tokens times rows moved.
    """
    from scipy.optimize import linear_sum_assignment

    number, length = experts.shape
    weight = tokens.astype(np.float64)
    num_rows = max(len(np.unique(experts[:, layer])) for layer in range(length))
    rows = np.empty((number, length))
    for layer in range(length):
        ids, which = np.unique(experts[:, layer], return_inverse=True)
        if layer == 0:
            load = np.bincount(which, weight)
            place = np.argsort(np.argsort(-load, kind="stable"), kind="stable")
        else:
            moved = np.abs(rows[:, layer - 1, None] - np.arange(num_rows)) * weight[:, None]
            cost = np.zeros((len(ids), num_rows))
            np.add.at(cost, which, moved)
            place = linear_sum_assignment(cost)[1]
        rows[:, layer] = place[which]
    return rows


def stack(experts: Ids, rows: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """Widths [N] and offsets from the middle of the row [N, length] of paths that share experts.

    The expert with the most tokens on these paths, at any layer, is 1 row wide. Within a row, paths
    lie in the order in which they come and go, so that few cross there.
    """
    number, length = experts.shape
    most = max(np.bincount(experts[:, layer], tokens).max() for layer in range(length))
    widths = tokens / most
    offsets = np.zeros((number, length))
    neighbours = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    for layer in range(length):
        order = np.argsort(neighbours[:, layer] + neighbours[:, layer + 2], kind="stable")
        for expert in np.unique(experts[:, layer]):
            mine = order[experts[order, layer] == expert]
            ends = np.cumsum(widths[mine])
            offsets[mine, layer] = ends - widths[mine] / 2 - ends[-1] / 2
    return widths, offsets


def ribbon(centre: Floats, width: float, aspect: float) -> tuple[Floats, Floats]:
    """Outline [points, 2] and middle line [points, 2] of a line `width` rows wide.

    The middle goes through `centre` [length] at x = 0, 1, ...: level there, smooth between.
    `aspect` is the height of a row over the width of a column, as they are seen: with it the line
    is equally wide wherever it runs, and not thin where it is steep.
    """
    part = np.linspace(0.0, 1.0, CURVE_POINTS)
    smooth = part * part * (3 - 2 * part)
    x, y = [np.array([-FLAT])], [centre[:1]]
    for column in range(len(centre) - 1):
        x.append(column + FLAT + part * (1 - 2 * FLAT))
        y.append(centre[column] + smooth * (centre[column + 1] - centre[column]))
    x.append(np.array([len(centre) - 1 + FLAT]))
    y.append(centre[-1:])
    middle = np.stack((np.concatenate(x), np.concatenate(y)), axis=1)
    along = np.gradient(middle, axis=0) * (1.0, aspect)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack((-along[:, 1] * aspect, along[:, 0]), axis=1) * width / 2
    return np.concatenate((middle + across, (middle - across)[::-1])), middle
