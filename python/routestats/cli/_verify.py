"""``routestats verify``."""

from __future__ import annotations

import argparse
import json

from routestats.trace import verify


def run(args: argparse.Namespace) -> int:
    result = verify(args.run_dir)
    print(json.dumps(result.to_dict(), indent=1) if args.json else result.render())
    return 0 if result.ok and (result.complete or not args.strict) else 1
