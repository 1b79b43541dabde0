"""Of many cells of a row, those that a table lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.intp]


def foremost(values: npt.NDArray[np.float64], most: int) -> tuple[Places, Places]:
    """Rows and columns of the `most` largest values of each row, in ascending order of both.

    Parameters
    ----------
    values : ndarray of float64, shape [N, M]
        A NaN is less than 0, and -inf is never listed; among equals the lowest columns are.
    most : int

    Returns
    -------
    tuple of two ndarray of intp, shape [at most N * most]
    """
    ranked = np.argsort(-np.nan_to_num(values, nan=-1.0, neginf=-np.inf), axis=1, kind="stable")
    columns = np.sort(ranked[:, :most], axis=1)
    rows = np.broadcast_to(np.arange(len(values))[:, None], columns.shape)
    listed = ~np.isneginf(np.take_along_axis(values, columns, axis=1))
    return rows[listed], columns[listed]
