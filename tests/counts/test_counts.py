"""RouteCounts by hand: known values, what is refused and how, files, threads."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from routestats import _core
from routestats.counts import RouteCounts, count, count_paths, recount
from routestats.counts.device.choice import choose_threads, why_no_cuda
from routestats.counts.device.counts import as_device_ids
from routestats.errors import (
    DeviceUnavailableError,
    InvalidTypeError,
    InvalidValueError,
    TraceError,
)
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape

SHAPE = RouteShape(3, 4, 2)
# Two tokens, three layers, top-2 of four experts.
IDS = np.array([[[0, 1], [2, 3], [1, 0]], [[0, 2], [2, 1], [3, 1]]], np.uint8)


class FakeTrace:
    """Chunks of ids with a shape, as `Trace` hands them to `count`."""

    def __init__(self, chunks: list[np.ndarray[Any, Any]], *, ordered: bool = True) -> None:
        self.shape, self.layer_ids, self.ordered = SHAPE, (1, 3, 5), ordered
        self._chunks = chunks

    def iter_experts(self, rows: int = 65_536) -> Iterator[np.ndarray[Any, Any]]:
        yield from self._chunks


# --- values ---


def test_known_counts_any() -> None:
    counts = count(IDS, num_experts=4)
    assert counts.shape == SHAPE
    assert counts.layer_ids == (0, 1, 2)
    assert counts.hops == (0, 1, 2)
    assert counts.tokens == 2
    assert counts.expert.tolist() == [[2, 1, 1, 0], [0, 1, 2, 1], [1, 2, 0, 1]]
    assert counts.pair(0, 1).tolist() == [[0, 1, 2, 1], [0, 0, 1, 1], [0, 1, 1, 0], [0] * 4]
    assert counts.pair(0, 0).tolist() == [[2, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0] * 4]


def test_known_counts_top1() -> None:
    counts = count(IDS, num_experts=4, pairing="top1", hops=[2, 1, 2])
    assert counts.hops == (1, 2)
    assert counts.expert.tolist() == [[2, 0, 0, 0], [0, 0, 2, 0], [0, 1, 0, 1]]
    assert counts.pair(0, 2).tolist() == [[0, 1, 0, 1], [0] * 4, [0] * 4, [0] * 4]


def test_repeated_experts_count_every_pair_of_slots() -> None:
    ids = np.zeros((5, 2, 3), np.uint8)
    counts = count(ids, num_experts=4)
    assert counts.pair(0, 1)[0, 0] == 5 * 9
    assert counts.expert[0, 0] == 5 * 3


def test_backward_pair_is_the_transpose() -> None:
    counts = count(IDS, num_experts=4)
    np.testing.assert_array_equal(counts.pair(2, 0), counts.pair(0, 2).T)
    assert counts.pair(2, 0).tolist() != counts.pair(0, 2).tolist()


def test_views_cannot_be_written() -> None:
    counts = count(IDS, num_experts=4)
    for view in (counts.expert, counts.pair(0, 1), counts.pair(1, 0)):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


def test_no_tokens() -> None:
    counts = count(np.zeros((0, 3, 2), np.uint8), num_experts=4)
    assert counts == RouteCounts.empty(SHAPE, hops="all", pairing="any")
    assert counts.tokens == 0


def test_identical_rows_beyond_narrow_cells() -> None:
    """More of one pair than 16 bits hold, in several blocks of each method."""
    ids = np.tile(np.array([[[1, 0], [0, 1]]], np.uint8), (200_000, 1, 1))
    for method in _core.PAIR_METHODS:
        expert, pairs = np.zeros((2, 2), np.uint64), np.full((1, 2, 2), 2**63, np.uint64)
        _core.count_pairs(
            ids,
            num_experts=2,
            counted_slots=2,
            layer_pairs=[(0, 1)],
            expert=expert,
            pairs=pairs,
            threads=2,
            method=method,
        )
        assert (pairs == 2**63 + 200_000).all()
        assert (expert == 200_000).all()


def test_the_method_that_a_shape_takes() -> None:
    """What benchmarks ask for, per instruction set and for the one that counting takes."""
    isas = _core.build_info()["isas"]
    shape = {"layers": 48, "experts": 128, "slots": 1, "pairs": 95}
    assert {_core.choose_pair_method(**shape, isa=isa) for isa in isas} == {"direct"}
    wide: dict[str, Any] = {"layers": 48, "experts": 128, "slots": 8, "pairs": 95}
    assert _core.choose_pair_method(**wide) == _core.choose_pair_method(**wide, isa=isas[-1])
    assert _core.choose_pair_method(**wide) == "block_lists"
    assert set(_core.PAIR_METHODS) == {"bitmap", "lists", "block_lists", "direct"}
    with pytest.raises(ValueError, match="isa: sse9 does not run here"):
        _core.choose_pair_method(**wide, isa="sse9")
    with pytest.raises(ValueError, match="layers, experts, slots, pairs: expected at least 1"):
        _core.choose_pair_method(layers=1, experts=1, slots=0, pairs=1)


# --- sources ---


def test_trace_in_chunks() -> None:
    counts = count(FakeTrace([IDS[:1], IDS[1:]]))
    expected = RouteCounts.empty(SHAPE, hops="all", pairing="any", layer_ids=(1, 3, 5))
    expected.update(IDS)
    assert counts == expected
    assert counts.layer_ids == (1, 3, 5)


def test_batch() -> None:
    rows = np.arange(2, dtype=np.int32)
    batch = RoutingBatch("d", ("r",), rows * 0, rows, rows, np.zeros(2, np.uint8), IDS)
    counts = RouteCounts.empty(SHAPE, hops="all", pairing="any")
    counts.update(batch)
    assert counts == count(IDS, num_experts=4) == count(batch, num_experts=4)


def test_nested_lists() -> None:
    assert count(IDS.tolist(), num_experts=4) == count(IDS, num_experts=4)


def test_update_adds_counts() -> None:
    first, second = count(IDS[:1], num_experts=4), count(IDS[1:], num_experts=4)
    second.update(first)
    assert second == count(IDS, num_experts=4)


def test_failed_update_adds_nothing() -> None:
    bad = IDS.copy()
    bad[1, 2, 1] = 4
    trace = FakeTrace([IDS, bad])
    for more, token in ((bad, 1), (trace, 3)):
        counts = RouteCounts.empty(SHAPE, hops="all", pairing="any", layer_ids=(1, 3, 5))
        counts.update(IDS)
        before = counts + RouteCounts.empty(SHAPE, hops="all", pairing="any", layer_ids=(1, 3, 5))
        with pytest.raises(InvalidValueError, match=rf"experts\[{token}, 2, 1\] = 4, "):
            counts.update(more)
        assert counts == before


# --- rows in another order ---


def test_recount_reads_each_layer_in_its_own_order() -> None:
    order = np.array([[1, 0], [0, 1], [0, 0]])
    counts = recount(IDS, order, num_experts=4, hops=1)
    expected = np.stack([IDS[order[layer], layer] for layer in range(3)], axis=1)
    assert counts == count(expected, num_experts=4, hops=1)
    assert counts != count(IDS, num_experts=4, hops=1)


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ([[0, 1], [0, 2], [0, 1]], InvalidValueError, r"row_order\[1, 1\] = 2, but there are 2"),
        ([[0, 1], [0, -1], [0, 1]], InvalidValueError, "row_order: expected rows 0 to .*, got -1"),
        ([[0, 1]], InvalidValueError, r"row_order: expected shape \[3, N\], got \[1, 2\]"),
        ([[0.0], [0.0], [0.0]], InvalidTypeError, "row_order: expected an integer array, got"),
    ],
)
def test_recount_refuses(order: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        recount(IDS, order, num_experts=4)


# --- refusals ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("pairing", ["any", "top1"])
def test_first_offender_is_named(dtype: type, pairing: str) -> None:
    ids: npt.NDArray[Any] = np.zeros((40_000, 5, 2), dtype)
    ids[30_017, 3, 1] = 9
    ids[30_017, 4, 0] = 77
    ids[39_999, 0, 0] = 8
    with pytest.raises(InvalidValueError) as caught:
        count(ids, num_experts=8, pairing=pairing)
    assert str(caught.value) == "experts[30017, 3, 1] = 9, but num_experts is 8"


@pytest.mark.parametrize(("dtype", "num_experts"), [(np.int8, 256), (np.int16, 65_536)])
def test_a_negative_id_is_no_large_one(dtype: type, num_experts: int) -> None:
    # As an unsigned number of its width -1 is the last expert.
    ids: npt.NDArray[Any] = np.zeros((3, 1, 1), dtype)
    ids[2] = -1
    message = rf"experts\[2, 0, 0\] = -1, but num_experts is {num_experts}"
    with pytest.raises(InvalidValueError, match=message):
        count_paths(ids, num_experts=num_experts)
    with pytest.raises(InvalidValueError, match=message):
        count(ids, num_experts=num_experts, hops=())


def test_negative_and_huge_ids_are_named_as_written() -> None:
    with pytest.raises(InvalidValueError, match=r"experts\[0, 0, 0\] = -1, but num_experts is 8"):
        count(np.full((1, 1, 1), -1, np.int8), num_experts=8)
    with pytest.raises(InvalidValueError, match=r"= 18446744073709551615, but"):
        count(np.full((1, 1, 1), 2**64 - 1, np.uint64), num_experts=8)


@pytest.mark.parametrize(
    "experts", [IDS.astype(np.float32), IDS.astype(bool), IDS.astype(object), IDS.astype("U1"), []]
)
def test_not_integers(experts: Any) -> None:
    with pytest.raises(InvalidTypeError, match="experts: expected an integer array, got"):
        count(experts, num_experts=4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pairing": "both"}, InvalidValueError, "pairing: expected one of"),
        ({"hops": 3}, InvalidValueError, "hops: expected 0 to 2, got 3"),
        ({"hops": [0, -1]}, InvalidValueError, "hops: expected 0 to 2, got -1"),
        ({"hops": "none"}, InvalidValueError, "hops: expected 'all'"),
        ({"hops": 1.0}, InvalidTypeError, "hops: expected integers, got 1.0"),
        ({"hops": True}, InvalidTypeError, "hops: expected integers, got True"),
        ({"num_experts": None}, InvalidTypeError, "num_experts: expected the number"),
        ({"num_experts": 1}, InvalidValueError, "top_k: expected 1 to num_experts"),
        ({"threads": 0}, InvalidValueError, "threads: expected at least 1, got 0"),
        ({"threads": 1.5}, InvalidTypeError, "threads: expected an integer"),
        ({"device": "tpu"}, InvalidValueError, "device: expected"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        count(IDS, **{"num_experts": 4, **arguments})


@pytest.mark.skipif(why_no_cuda() is None, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="device: 'cuda' was asked for, but th"):
        count(IDS, num_experts=4, device="cuda")
    assert count(IDS, num_experts=4, device="auto").device == "cpu"


def on_cuda(shape: tuple[int, ...], typestr: str, strides: Any = None) -> Any:
    return OnCuda(shape, typestr, strides)


class OnCuda:
    """What an array in a CUDA device's memory says of itself; there is no memory behind it."""

    def __init__(self, shape: tuple[int, ...], typestr: str, strides: Any = None) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (4096, True),
            "strides": strides,
            "version": 3,
        }


def test_arrays_on_a_device_are_taken_as_they_say() -> None:
    dense = as_device_ids(on_cuda((5, 3, 2), "<i4"))
    assert (dense.strides, dense.dtype, len(dense)) == ((24, 8, 4), np.dtype(np.int32), 5)
    strided = as_device_ids(on_cuda((5, 3, 2), "|u1", strides=(-12, 4, 1)))
    assert strided.strides == (-12, 4, 1)
    with pytest.raises(InvalidTypeError, match="experts: expected an integer array, got float32"):
        count(on_cuda((5, 3, 2), "<f4"), num_experts=4)
    with pytest.raises(InvalidTypeError, match="experts: expected an integer array, got >i4"):
        count(on_cuda((5, 3, 2), ">i4"), num_experts=4)
    with pytest.raises(InvalidValueError, match="expected 3 dimensions"):
        count(on_cuda((5, 3), "<i4"), num_experts=4)
    with pytest.raises(InvalidTypeError, match="expected an array in the host's memory"):
        count(on_cuda((5, 3, 2), "<i4"), num_experts=4, device="cpu")
    with pytest.raises(InvalidTypeError, match="expected an array in the host's memory"):
        count_paths(on_cuda((5, 3, 2), "<i4"), num_experts=4, device="cpu")
    for strides in ((24, 8, 3), (26, 8, 4)):
        with pytest.raises(InvalidValueError, match="expected items of int32 at multiples of 4"):
            count(on_cuda((5, 3, 2), "<i4", strides=strides), num_experts=4)


@pytest.mark.skipif(why_no_cuda() is None, reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_data_on_a_device_are_not_counted_without_it(device: str) -> None:
    for counting in (count, count_paths):
        with pytest.raises(DeviceUnavailableError, match="device: 'cuda' was asked for, but th"):
            counting(on_cuda((5, 3, 2), "<i4"), num_experts=4, device=device)


def test_wrong_shapes() -> None:
    with pytest.raises(InvalidValueError, match="expected 3 dimensions"):
        count(IDS[0], num_experts=4)
    counts = RouteCounts.empty(SHAPE, hops="all", pairing="any")
    with pytest.raises(InvalidValueError, match="shape: expected 3 layers"):
        counts.update(IDS[:, :2])
    with pytest.raises(InvalidValueError, match="layer_ids: expected"):
        counts.update(FakeTrace([IDS]))
    with pytest.raises(InvalidValueError, match="num_experts: the trace has 4, got 8"):
        count(FakeTrace([IDS]), num_experts=8)
    with pytest.raises(InvalidValueError, match="layer_ids: expected 3 numbers, got 1"):
        RouteCounts.empty(SHAPE, hops=0, pairing="any", layer_ids=[7])


def test_top1_needs_a_known_order() -> None:
    trace = FakeTrace([IDS], ordered=False)
    with pytest.raises(InvalidValueError, match="descending order of weight"):
        count(trace, pairing="top1")
    assert count(trace, pairing="any").tokens == 2


def test_pairs_that_are_not_there() -> None:
    counts = count(IDS, num_experts=4, hops=1)
    with pytest.raises(InvalidValueError, match="hop 2 was not counted"):
        counts.pair(0, 2)
    with pytest.raises(InvalidValueError, match="dst: expected a layer from 0 to 2, got 3"):
        counts.pair(2, 3)
    with pytest.raises(InvalidTypeError, match="src: expected a layer number"):
        counts.pair(0.0, 1)  # type: ignore[arg-type]


def test_different_counts_do_not_add() -> None:
    base = count(IDS, num_experts=4)
    for other in (
        count(IDS, num_experts=5),
        count(IDS, num_experts=4, hops=0),
        count(IDS, num_experts=4, pairing="top1"),
        count(FakeTrace([IDS])),
    ):
        assert base != other
        with pytest.raises(InvalidValueError, match=r"expected .* as in the sum, got"):
            base + other


# --- devices and threads ---


def test_device_is_said() -> None:
    assert count(IDS, num_experts=4, device="auto").device == "cpu"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_threads_follow_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert choose_threads(None) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert choose_threads(None) == len(before)


def test_other_threads_run_meanwhile() -> None:
    """With the GIL held, the main thread could wake at most twice while the other counts."""
    ids = np.random.default_rng(0).integers(0, 128, (20_000, 24, 8)).astype(np.uint8)
    inside = threading.Event()
    done = threading.Event()

    def work() -> None:
        inside.set()
        count(ids, num_experts=128, threads=1)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    wakes = 0
    while not done.is_set():
        wakes += 1
        time.sleep(0.001)
    worker.join()
    assert wakes > 10


# --- files ---


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "counts.npz"
    count(IDS, num_experts=4).save(path)
    return path


def rewrite(path: Path, **changes: Any) -> None:
    """Change the header, or replace arrays, of a saved file."""
    with np.load(path) as arrays:
        parts = dict(arrays)
    header = json.loads(str(parts["header"][()]))
    for name, value in changes.items():
        if name in parts:
            parts[name] = value
        else:
            header[name] = value
    np.savez(path, **{**parts, "header": np.array(json.dumps(header))})


def test_saving_replaces_the_old_file(saved: Path) -> None:
    more = count(np.concatenate([IDS, IDS]), num_experts=4, hops=[0, 2], pairing="top1")
    more.save(saved)
    assert RouteCounts.load(saved) == more
    assert saved.stat().st_mode & 0o444


def test_the_name_is_kept_as_given(tmp_path: Path) -> None:
    counts = count(IDS, num_experts=4)
    counts.save(tmp_path / "no-suffix")
    assert RouteCounts.load(str(tmp_path / "no-suffix")) == counts


def test_every_truncation_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in itertools.chain(range(0, len(whole), 97), [len(whole) - 1]):
        saved.write_bytes(whole[:size])
        with pytest.raises(TraceError, match=r"counts\.npz"):
            RouteCounts.load(saved)


def test_damage_is_refused(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    whole[whole.index(b"NUMPY", 1000) + 200] ^= 0x40
    saved.write_bytes(whole)
    with pytest.raises(TraceError, match="damaged"):
        RouteCounts.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "expected format version 1, got 2"),
        ({"format": "other"}, "no file of routestats counts"),
        ({"pairing": "both"}, "pairing"),
        ({"hops": [0, 1]}, "pairs: expected shape"),
        ({"tokens": 3}, "expected to sum to 6, got 4"),
        ({"expert": np.zeros((3, 4))}, "expert: expected uint64, got float64"),
        ({"pairs": np.zeros((6, 4, 4), np.uint64)}, "pairs: expected to sum to 8, got 0"),
        ({"layer_ids": [0]}, "layer_ids: expected 3, got 1"),
    ],
)
def test_inconsistent_files_are_refused(saved: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(TraceError, match=message):
        RouteCounts.load(saved)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = {name: tmp_path / name for name in ("a.txt", "b.npy", "c.npz", "d.npz", "e.zip")}
    foreign["a.txt"].write_text("not counts")
    np.save(foreign["b.npy"], np.zeros(3))
    np.savez(foreign["c.npz"], something=np.zeros(3))
    np.savez(foreign["d.npz"], header=np.array({"format": "routestats.counts"}, dtype=object))
    with zipfile.ZipFile(foreign["e.zip"], "w") as archive:
        archive.writestr("header.txt", "{}")
    for path in (*foreign.values(), tmp_path / "absent.npz", tmp_path):
        with pytest.raises(TraceError, match=path.name):
            RouteCounts.load(path)


def test_a_failed_save_leaves_nothing(tmp_path: Path, saved: Path) -> None:
    counts = count(IDS, num_experts=4)
    with pytest.raises(TraceError, match="cannot be written"):
        counts.save(tmp_path / "absent" / "counts.npz")
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(TraceError, match="cannot be written"):
        counts.save(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counts.npz", "folder"]
