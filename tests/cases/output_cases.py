"""Arrays that a binding may not write to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from routestats.errors import InvalidTypeError, InvalidValueError


def wrong_outputs(good: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """What `good` may not be: the word that the refusal must hold, and the array."""
    read_only = good.copy()
    read_only.flags.writeable = False
    gaps = np.zeros((*good.shape[:-1], 2 * good.shape[-1]), good.dtype)[..., ::2]
    odd = np.zeros(good.nbytes + 1, np.uint8)[1:].view(good.dtype).reshape(good.shape)
    return {
        "shape": np.zeros((*good.shape[:-1], good.shape[-1] + 1), good.dtype),
        "shape ": np.zeros((1, *good.shape), good.dtype),
        "C-contiguous": gaps,
        "aligned": odd,
        "writable": read_only,
        str(good.dtype): np.zeros(good.shape, np.float32),
        f"{good.dtype} ": good.astype(good.dtype.newbyteorder()),
    }


def refuse_wrong_outputs(call: Callable[..., Any], name: str, good: npt.NDArray[Any]) -> None:
    for word, wrong in wrong_outputs(good).items():
        kind = InvalidTypeError if word.strip() == str(good.dtype) else InvalidValueError
        before = wrong.copy()
        with pytest.raises(kind, match=rf"^{name}: expected .*{word.strip()}"):
            call(**{name: wrong})
        np.testing.assert_array_equal(wrong, before)
