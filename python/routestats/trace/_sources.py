"""Where a trace's rows lie: in Parquet files, or in arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import TraceError
from routestats.schema import PHASES, LookaheadLayout, RoutingBatch, request_schema
from routestats.shape import RouteShape
from routestats.trace import _files

LIGHT_COLUMNS = ("request_id", "position", "token_id", "phase")


class Source(Protocol):
    """Rows in one fixed order: by domain, file and place in the file."""

    @property
    def shape(self) -> RouteShape: ...

    @property
    def layer_ids(self) -> tuple[int, ...]: ...

    @property
    def domains(self) -> tuple[str, ...]: ...

    @property
    def has_weights(self) -> bool: ...

    @property
    def lookahead(self) -> LookaheadLayout | None: ...

    def batches(
        self, rows: int, domains: tuple[str, ...], *, light: bool, lookahead: bool = False
    ) -> Iterator[RoutingBatch]:
        """Chunks of at most `rows` rows; `light` ones have no experts ([T, 0, 0]).

        What later gates would have chosen is only read where `lookahead` asks for it.
        """

    def num_rows(self, domains: tuple[str, ...]) -> int: ...

    def requests(self) -> pa.Table: ...


class FileSource:
    """The files of a run folder, or one of them alone."""

    def __init__(self, path: Path) -> None:
        if path.is_file():
            self.run_dir = None
            self._files = {_files.domain_of_file(path): [path]}
            meta = _files.file_metadata(_files.open_parquet(path))
            if "num_layers" not in meta:
                raise TraceError(f"{path}: holds requests; expected a file of tokens")
            self.info: dict[str, Any] = {"complete": True}
        else:
            self.run_dir = path
            self.info = meta = _files.read_run_file(path)
            meta = {
                **meta["shape"],
                "layer_ids": meta["layer_ids"],
                "lookahead": meta.get("lookahead"),
            }
            self._files = {
                folder.name.removeprefix("domain="): _files.parts(folder)
                for folder in sorted((path / "tokens").glob("domain=*"))
            }
            self._files = {domain: files for domain, files in self._files.items() if files}
        self.shape = RouteShape(meta["num_layers"], meta["num_experts"], meta["top_k"])
        self.layer_ids = tuple(meta["layer_ids"])
        self.lookahead = LookaheadLayout.from_dict(meta.get("lookahead"))
        self.domains = tuple(self._files)
        first = next((file for files in self._files.values() for file in files), None)
        self.has_weights = (
            bool(self.info.get("weights"))
            if first is None
            else "weights" in _files.open_parquet(first).schema_arrow.names
        )

    def files(self) -> Iterator[tuple[str, Path]]:
        for domain, files in self._files.items():
            for path in files:
                yield domain, path

    def num_rows(self, domains: tuple[str, ...]) -> int:
        return sum(
            _files.open_parquet(path).metadata.num_rows
            for domain in domains
            for path in self._files.get(domain, ())
        )

    def batches(
        self, rows: int, domains: tuple[str, ...], *, light: bool, lookahead: bool = False
    ) -> Iterator[RoutingBatch]:
        columns = [*LIGHT_COLUMNS]
        if not light:
            columns += ["experts", "weights"] if self.has_weights else ["experts"]
        if lookahead and self.lookahead is not None:
            columns.append("lookahead")
        for domain in domains:
            for path in self._files.get(domain, ()):
                file = _files.open_parquet(path)
                self._check_schema(path, file.schema_arrow, columns)
                with _files.reading(path):
                    for batch in file.iter_batches(batch_size=rows, columns=columns):
                        yield self._decode(path, domain, batch, light=light)

    def _check_schema(self, path: Path, schema: pa.Schema, columns: list[str]) -> None:
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise TraceError(f"{path}: expected a column {missing[0]!r}, which it lacks")
        experts = schema.field("experts").type
        expected = pa.list_(pa.from_numpy_dtype(self.shape.id_dtype), self.shape.row_width)
        if experts != expected:
            raise TraceError(f"{path}: experts: expected {expected}, got {experts}")
        if "lookahead" in columns and self.lookahead is not None:
            width = self.lookahead.width(self.shape.num_layers)
            expected = pa.list_(pa.from_numpy_dtype(self.shape.id_dtype), width)
            if (got := schema.field("lookahead").type) != expected:
                raise TraceError(f"{path}: lookahead: expected {expected}, got {got}")

    def _decode(
        self, path: Path, domain: str, batch: pa.RecordBatch, *, light: bool
    ) -> RoutingBatch:
        for name in batch.schema.names:
            if batch[name].null_count:
                raise TraceError(f"{path}: {name}: {batch[name].null_count} rows are null")
        request, phase = _dictionary(batch["request_id"]), _dictionary(batch["phase"])
        phase_codes = np.array([PHASES.index(name) for name in phase[1]], np.uint8)
        return RoutingBatch(
            domain=domain,
            request_ids=tuple(request[1]),
            request_index=request[0],
            positions=batch["position"].to_numpy(zero_copy_only=False),
            token_ids=batch["token_id"].to_numpy(zero_copy_only=False),
            phase=phase_codes[phase[0]],
            experts=self._matrix(batch, "experts", light),
            weights=self._matrix(batch, "weights", light) if self.has_weights else None,
            lookahead=self._ahead(batch),
        )

    def _ahead(self, batch: pa.RecordBatch) -> npt.NDArray[Any] | None:
        if self.lookahead is None or "lookahead" not in batch.schema.names:
            return None
        flat: npt.NDArray[Any] = batch["lookahead"].flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(batch), *self.lookahead.extents(self.shape.num_layers))

    def _matrix(self, batch: pa.RecordBatch, name: str, light: bool) -> npt.NDArray[Any]:
        if light:
            dtype = self.shape.id_dtype if name == "experts" else np.dtype(np.float16)
            return np.empty((len(batch), 0, 0), dtype)
        flat: npt.NDArray[Any] = batch[name].flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(batch), self.shape.num_layers, self.shape.top_k)

    def requests(self) -> pa.Table:
        if self.run_dir is None:
            return request_schema().empty_table()
        tables = []
        for path in _files.parts(self.run_dir / "requests"):
            file = _files.open_parquet(path)
            with _files.reading(path):
                tables.append(file.read())
        if not tables:
            return request_schema().empty_table()
        return pa.concat_tables(tables).cast(request_schema())


def _dictionary(column: pa.Array) -> tuple[npt.NDArray[np.int32], list[str]]:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, encoded.dictionary.to_pylist()


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Rows in memory, one batch per domain."""

    shape: RouteShape
    layer_ids: tuple[int, ...]
    parts: tuple[RoutingBatch, ...]
    table: pa.Table
    lookahead: LookaheadLayout | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(part.domain for part in self.parts)

    @property
    def has_weights(self) -> bool:
        return bool(self.parts) and self.parts[0].weights is not None

    def num_rows(self, domains: tuple[str, ...]) -> int:
        return sum(len(part) for part in self.parts if part.domain in domains)

    def batches(
        self, rows: int, domains: tuple[str, ...], *, light: bool, lookahead: bool = False
    ) -> Iterator[RoutingBatch]:
        for part in self.parts:
            if part.domain in domains:
                for start in range(0, len(part), rows):
                    yield take_rows(part, slice(start, start + rows))

    def requests(self) -> pa.Table:
        return self.table


def take_rows(batch: RoutingBatch, rows: Any) -> RoutingBatch:
    """The rows of `batch` that a slice, mask or index array names."""
    return RoutingBatch(
        batch.domain,
        batch.request_ids,
        batch.request_index[rows],
        batch.positions[rows],
        batch.token_ids[rows],
        batch.phase[rows],
        batch.experts[rows],
        None if batch.weights is None else batch.weights[rows],
        None if batch.lookahead is None else batch.lookahead[rows],
    )
