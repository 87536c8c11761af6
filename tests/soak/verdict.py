"""What is wrong with the outcome of a soak test, in sentences. Pure."""

from __future__ import annotations

from tests.soak.run import Outcome

_DESCRIPTORS = 40
"""By which descriptors may have grown: connections that idle, files that the pools of SQL and threads came to need."""
_THREADS = 16
_MEGABYTES = 96
_SHOWN = 20


def findings(outcome: Outcome) -> list[str]:
    """Empty if all is well."""
    begun, ended = outcome.begun, outcome.ended
    found = [f"wrong: {text}" for text in outcome.wrong[:_SHOWN]]
    found += [f"did not come back: {text}" for text in outcome.unwell[:_SHOWN]]
    found += [f"a surprise in the log: {text}" for text in outcome.log[:_SHOWN]]
    if outcome.tally["ok"] < outcome.plan.clients:
        found.append(f"hardly anything was asked: {dict(outcome.tally)}")
    if begun is None or ended is None:
        return [*found, "it did not come to an end"]
    if ended.descriptors > begun.descriptors + _DESCRIPTORS:
        found.append(f"descriptors: {begun.descriptors} at the beginning, {ended.descriptors} in the end")
    if ended.threads > begun.threads + _THREADS:
        found.append(f"threads: {begun.threads} at the beginning, {ended.threads} in the end")
    if ended.megabytes > begun.megabytes + _MEGABYTES:
        found.append(f"memory: {begun.megabytes} MiB at the beginning, {ended.megabytes} MiB in the end")
    if ended.processes != begun.processes:
        found.append(f"processes: {begun.processes} at the beginning, {ended.processes} in the end")
    return found
