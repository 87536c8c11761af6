"""Does a mirror survive everything, for minutes, and leak nothing?

    python -m tests.soak [--minutes 10] [--clients 24] [--workers 1] [--seed 1] [--disk 1024] [--phases 'disk full,calm']

Clients pull, read parts, leave and dawdle while the hub fails in every way, the disk fills up and the mirror is killed. Each
answer has to be right by digest, or a clear error, or visibly cut. Prints what came of each phase and what the mirror holds; the
exit code is 1 if anything was wrong, did not come back, or leaked. All is on loopback; the disk is a tmpfs (root, or sudo).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import Outcome, Plan, soak
from tests.soak.verdict import findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--disk", type=int, default=1024, help="MiB")
    parser.add_argument("--phase-seconds", type=float, default=6.0)
    parser.add_argument("--phases", default="")
    given = parser.parse_args()
    plan = Plan(
        seconds=given.minutes * 60,
        clients=given.clients,
        workers=given.workers,
        seed=given.seed,
        disk=given.disk << 20,
        phase_seconds=given.phase_seconds,
        phases=tuple(name.strip() for name in given.phases.split(",") if name.strip()),
    )
    print(plan, flush=True)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # The hub's, which is in this process.
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        outcome = asyncio.run(soak(plan, Path(directory), lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)))
    _print(outcome)
    found = findings(outcome)
    print("\n".join(found) if found else "nothing wrong, nothing leaked")
    return 1 if found else 0


def _print(outcome: Outcome) -> None:
    for key in sorted(outcome.tally):
        print(f"{outcome.tally[key]:8d} {key}")
    print(f"kills {outcome.kills}; begun {outcome.begun}; ended {outcome.ended}")


if __name__ == "__main__":
    sys.exit(main())
