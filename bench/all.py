"""Every benchmark of counting, one after the other, and their rows in one file.

python bench/all.py --quick
python bench/all.py --json bench/results/all.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _compare import parser

QUICK_TOKENS = 5_000  # so that all scripts together take less than a minute
SCRIPTS = ("pair_counts.py", "paths.py", "prediction.py")


def main() -> int:
    options = parser(__doc__.splitlines()[0])
    args = options.parse_args()
    tokens = min(args.tokens, QUICK_TOKENS) if args.quick else args.tokens
    handed_on = ["--shape", args.shape, "--tokens", str(tokens), "--rounds", str(args.rounds)]
    start = time.perf_counter()
    rows: list[object] = []
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in SCRIPTS:
            out = Path(scratch) / "rows.json"
            out.unlink(missing_ok=True)
            script = str(Path(__file__).with_name(name))
            command = [sys.executable, script, *handed_on, "--json", str(out)]
            if subprocess.run([*command, "--quick"] if args.quick else command).returncode:
                failed.append(name)
            if out.exists():
                rows += json.loads(out.read_text())
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"all: {time.perf_counter() - start:.0f} s")
    if failed:
        print(f"all: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
