"""The group of a request: the prompt it samples."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt


def prompt_group(token_ids: npt.ArrayLike) -> str:
    """A name for a prompt: 16 hexadecimal digits of the BLAKE2b hash of its token ids.

    The ids are hashed as little-endian int32, so every engine gives a prompt the same name.
    """
    tokens = np.ascontiguousarray(token_ids, dtype="<i4")
    return blake2b(tokens.tobytes(), digest_size=8).hexdigest()
