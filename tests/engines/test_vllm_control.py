"""The handle of a capture in vLLM, as far as it needs no engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.control import VllmCapture
from routestats.errors import InvalidTypeError


def test_labels_of_a_vllm_capture_need_its_outputs(tmp_path: Path) -> None:
    capture = VllmCapture(object(), tmp_path / "run", "default", RecorderOptions())
    with pytest.raises(InvalidTypeError, match="outputs: expected what llm.generate returned"):
        capture.label(task_ids=["a"])
