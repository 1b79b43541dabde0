"""Both ways from a router into the ring give the same rows, and both notice what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from routestats._core import CaptureRing
from routestats.errors import CaptureError
from routestats.shape import RouteShape

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from routestats.engines.vllm.taps import HostTap, StagedTap  # noqa: E402

SHAPE = RouteShape(3, 8, 2)


def taps():
    return [HostTap(), StagedTap(SHAPE, 16, torch.device("cpu"))]


def ring() -> CaptureRing:
    return CaptureRing(layers=3, experts=8, top_k=2, capacity=64, weights=True, block=True)


def routing(rows: int, seed: int, dtype: torch.dtype = torch.float32):
    draw = torch.Generator().manual_seed(seed)
    weights, ids = torch.rand(3, rows, 8, generator=draw).topk(2, dim=-1, sorted=False)
    return ids.to(torch.int32), weights.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_taps_give_the_same_rows(dtype: torch.dtype) -> None:
    drained = []
    for tap in taps():
        target = ring()
        warm_up = routing(16, 99, dtype)
        for layer in range(3):
            tap.observe(layer, warm_up[0][layer], warm_up[1][layer])
        for seed in range(4):
            ids, weights = routing(7, seed, dtype)  # five real rows and two of padding
            target.begin_step(5)
            tap.open(target)
            for layer in range(3):
                tap.observe(layer, ids[layer], weights[layer])
            tap.close(5)
            target.commit_step()
        drained.append(target.drain(max_rows=64, wait_rows=1, seconds=0.0))
    assert drained[0][0] == drained[1][0] == [(i, 5) for i in range(4)]
    np.testing.assert_array_equal(drained[0][1], drained[1][1])
    np.testing.assert_array_equal(drained[0][2], drained[1][2])


def test_both_taps_notice_a_layer_that_did_not_fire() -> None:
    for tap in taps():
        target = ring()
        for fires in ((0, 1, 2), (0, 2)):  # the stamp of the first step must not count
            ids, weights = routing(5, 0)
            target.begin_step(5)
            tap.open(target)
            for layer in fires:
                tap.observe(layer, ids[layer], weights[layer])
            tap.close(5)
            if len(fires) == 3:
                target.commit_step()
            else:
                with pytest.raises(CaptureError, match="MoE layer 1 was not written"):
                    target.commit_step()


def test_another_number_of_experts_is_named() -> None:
    tap, target = HostTap(), ring()
    target.begin_step(5)
    tap.open(target)
    with pytest.raises(CaptureError, match="expected 2 experts per token, got 3"):
        tap.observe(0, torch.zeros(5, 3, dtype=torch.int32), torch.zeros(5, 3))
    tap.abandon()
    target.abandon_step()


def test_a_compiled_model_keeps_its_writes() -> None:
    tap = HostTap()

    def model(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        for layer in range(3):
            weights, ids = (x + layer).topk(2, dim=-1)
            tap.observe(layer, ids, weights)
            total = total + weights.sum() * ids.sum()  # as experts do
        return total

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    target, x = ring(), torch.rand(5, 8)
    compiled(x)  # traced outside a step
    target.begin_step(5)
    tap.open(target)
    compiled(x)
    tap.close(5)
    target.commit_step()
    _, ids, _ = target.drain(max_rows=64, wait_rows=1, seconds=0.0)
    np.testing.assert_array_equal(ids[:, 0], x.topk(2, dim=-1).indices.numpy())
