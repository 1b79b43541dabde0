"""The docs' picture of the live view: vLLM runs the built-in model, the dashboard looks on.

python tools/live_screenshot.py [docs/images/live.png] [--gsm8k-file FILE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headless import chromium
from routestats.live import DashboardServer

SIZE = {"width": 1440, "height": 1000}
LIMIT_S = 180


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", nargs="?", type=Path, default=Path("docs/images/live.png"))
    parser.add_argument("--gsm8k-file", type=Path)
    parser.add_argument("--seconds", type=float, default=40, help="of the run that are shown")
    arguments = parser.parse_args()
    data = ["--data", "humaneval", "--data", "gsm8k", "--limit", "gsm8k=500"]
    data += ["--gsm8k-file", str(arguments.gsm8k_file)] if arguments.gsm8k_file else []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        run = Path(folder) / "run"
        engine = subprocess.Popen(
            [
                *(sys.executable, "-m", "routestats.cli", "profile", "tiny", *data),
                *("--or-mathwords", "--max-tokens", "128", "-o", str(run)),
            ],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
        )
        try:
            wait_for(run / "run.json", engine)
            with DashboardServer(run, port=0) as server:
                page = browser.new_page(viewport=SIZE)
                page.goto(server.url)
                page.wait_for_timeout(arguments.seconds * 1000)
                if engine.poll() is not None:
                    raise SystemExit("the run ended before the picture; ask for fewer --seconds")
                page.screenshot(path=arguments.picture)
        finally:
            engine.terminate()
            engine.wait()
    return 0


def wait_for(path: Path, engine: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        if engine.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{path.name}: expected within {LIMIT_S} s, the run wrote none")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
