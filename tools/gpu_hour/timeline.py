"""What an nsys timeline says of a capturing engine: which threads wait, where copies run.

    python tools/gpu_hour/timeline.py FILE.sqlite

The thread that launches the engine's kernels should not wait because of capture, and the copies of
captured rows should run on a stream of their own. Prints both as JSON, for a person to judge: an
engine waits for its own sake, too.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from typing import Any

_WAITS = """
SELECT api.globalTid AS thread, name.value AS call, COUNT(*) AS calls,
       SUM(api.end - api.start) AS ns
FROM CUPTI_ACTIVITY_KIND_RUNTIME AS api JOIN StringIds AS name ON name.id = api.nameId
WHERE name.value LIKE '%Synchronize%'
GROUP BY thread, call ORDER BY ns DESC
"""
_LAUNCHES = """
SELECT api.globalTid, COUNT(*) FROM CUPTI_ACTIVITY_KIND_RUNTIME AS api
JOIN StringIds AS name ON name.id = api.nameId
WHERE name.value LIKE '%Launch%' GROUP BY api.globalTid
"""
_NAMES = """
SELECT thread.globalTid, name.value FROM ThreadNames AS thread
JOIN StringIds AS name ON name.id = thread.nameId
"""
_COPIES = """
SELECT streamId, copyKind, COUNT(*), SUM(bytes), SUM(end - start)
FROM CUPTI_ACTIVITY_KIND_MEMCPY GROUP BY streamId, copyKind ORDER BY SUM(bytes) DESC LIMIT 12
"""


def summary(connection: sqlite3.Connection) -> dict[str, Any]:
    """Waits and launches by thread, copies by stream and kind (2 is device to host)."""
    names = dict(connection.execute(_NAMES)) if _has(connection, "ThreadNames") else {}
    launches = dict(connection.execute(_LAUNCHES))
    waits = [
        {
            "thread": names.get(thread, str(thread)),
            "kernel_launches": launches.get(thread, 0),
            "call": call,
            "calls": calls,
            "ms": round(ns / 1e6, 3),
        }
        for thread, call, calls, ns in connection.execute(_WAITS)
    ]
    copies = [
        {"stream": stream, "kind": kind, "copies": count, "bytes": size, "ms": round(ns / 1e6, 3)}
        for stream, kind, count, size, ns in connection.execute(_COPIES)
    ]
    return {"waits": waits, "copies": copies}


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,))
    return found.fetchone() is not None


def main() -> int:
    with sqlite3.connect(sys.argv[1]) as connection:
        print(json.dumps(summary(connection)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
