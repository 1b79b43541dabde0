"""Execute a notebook and keep its outputs in it; check what a committed notebook has to be.

    python tools/run_notebook.py notebooks/routing_predictability.ipynb

The notebook runs in the folder that is given (the checkout's root), in a kernel of this Python. A
hash of the code that was executed is kept with the outputs, so that code which was edited later and
not run is found.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "routing_predictability.ipynb"
MAX_BYTES = 5_000_000
# Folders of one machine. Those of the documentation (runs/, study/) are relative.
_ABSOLUTE = re.compile(r"(?<![\w./:])/(?:home|root|tmp|work|usr|Users|var|opt|mnt|private)/[\w.-]+")
_WARNING = re.compile(r"\b\w*Warning:")


def execute(path: Path, *, cwd: Path, timeout_s: int = 600) -> tuple[Any, float]:
    """The notebook with the outputs of a fresh run from top to bottom, and the seconds it took.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": str(cwd)}},
        record_timing=False,
    )
    begin = time.monotonic()
    client.execute()
    seconds = time.monotonic() - begin
    notebook.metadata["routestats"] = {"executed_sha256": code_hash(notebook)}
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook, seconds


def code_cells(notebook: Any) -> list[Any]:
    """Its code cells that are not empty."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def code_hash(notebook: Any) -> str:
    """Of the source of all code cells."""
    sources = json.dumps([cell.source for cell in code_cells(notebook)])
    return hashlib.sha256(sources.encode()).hexdigest()


def faults(notebook: Any) -> list[str]:
    """What is wrong with an executed notebook, one line each."""
    found = []
    if notebook.metadata.get("routestats", {}).get("executed_sha256") != code_hash(notebook):
        found.append("the code is not what was executed")
    for number, cell in enumerate(code_cells(notebook), 1):
        name = f"code cell {number} ({cell.source.strip().splitlines()[0][:50]})"
        if cell.execution_count != number:
            found.append(f"{name}: executed as {cell.execution_count}, expected {number}")
        if not cell.outputs and not _only_defines(cell.source):
            found.append(f"{name}: no output")
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{name}: {output.output_type} {output.get('text', '')[:200]}")
            text = _text(output)
            for pattern in (_ABSOLUTE, _WARNING):
                found += [f"{name}: {match.group()}" for match in pattern.finditer(text)]
    return found


def _only_defines(source: str) -> bool:
    """Whether a cell says so itself, by its first line."""
    return source.lstrip().startswith("# No output:")


def _text(output: Any) -> str:
    """All text of an output; BokehJS itself, which is not ours, left out."""
    values = [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join([output.get("text", ""), *(v for v in values if len(v) < 1_000_000)])


def as_page(notebook: Any) -> str:
    """A plain web page of the text and the outputs, in order, as a viewer would show them."""
    body = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            body.append(f"<pre style='white-space: pre-wrap'>{html.escape(cell.source)}</pre>")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                body.append(f"<img src='data:image/png;base64,{data['image/png']}'>")
            elif "text/html" in data:
                body.append(data["text/html"])
            else:
                text = data.get("text/markdown", data.get("text/plain", output.get("text", "")))
                body.append(f"<pre style='white-space: pre-wrap'>{html.escape(text)}</pre>")
    return "<!DOCTYPE html>\n<meta charset='utf-8'>\n" + "\n".join(body)


def main(words: list[str] | None = None) -> int:
    import nbformat

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path, nargs="?", default=NOTEBOOK)
    parser.add_argument("--cwd", type=Path, default=ROOT, help="folder to run in")
    args = parser.parse_args(words)
    notebook, seconds = execute(args.notebook, cwd=args.cwd)
    wrong = faults(notebook)
    nbformat.write(notebook, args.notebook)
    size = args.notebook.stat().st_size
    if size > MAX_BYTES:
        wrong.append(f"{size:,} bytes, expected at most {MAX_BYTES:,}")
    print(f"{args.notebook}: {len(code_cells(notebook))} cells, {seconds:.0f} s, {size:,} bytes")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
