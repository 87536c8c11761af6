"""A summary as text for people, or as JSON for programs. Pure but for the console it prints to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mirror.fetch.result import CacheResult
from mirror.report.reader import BadLines
from mirror.report.summary import OTHERS, Summary, Total, Totals

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_CACHE_WORDS = {
    CacheResult.HIT: "hit (from the store)",
    CacheResult.STALE: "stale (last known answer)",
    CacheResult.JOINED: "joined (a fetch under way)",
    CacheResult.MISS: "miss (fetched upstream)",
    CacheResult.REDIRECTED: "redirected (sent to a replica)",
}
_PIPE_WIDTH = 160


def as_document(summary: Summary, bad: BadLines, top: int) -> dict[str, Any]:
    """The summary as JSON types; times in ISO 8601, shares from 0 to 1, sizes in bytes."""
    return {
        "from": _iso(summary.first),
        "to": _iso(summary.last),
        "pulls": summary.all.pulls,
        "pulls_of_published_images": summary.published_pulls,
        "requests": summary.all.requests,
        "bytes": summary.all.size,
        "statuses": {f"{group}xx": count for group, count in sorted(summary.by_status.items())},
        "cache": {result.value: _total(total) for result, total in summary.by_cache.items()},
        "served_from_cache": {"requests": summary.cached_requests, "bytes": summary.cached_bytes},
        "images": _rows(summary.by_image, top),
        "users": _rows(summary.by_user, top),
        "days": [{"name": name, **_total(total)} for name, total in sorted(summary.by_day.items())],
        "bad_lines": bad.count,
    }


def print_summary(summary: Summary, bad: BadLines, top: int, console: Console) -> None:
    """Print tables: the whole, the cache, days, images, users."""
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    if summary.first is None or summary.last is None:
        console.print("No request for a manifest or a blob in this log.")
    else:
        console.print(f"{_minute(summary.first)} to {_minute(summary.last)} UTC")
        console.print(
            f"{_plural(summary.all.pulls, 'pull')}, {summary.published_pulls} of them of images that are in /cvmfs; "
            f"{_plural(summary.all.requests, 'request')} for content, {human_size(summary.all.size)} sent."
        )
        errors = {group: count for group, count in sorted(summary.by_status.items()) if group >= 4}
        if errors:
            console.print("Errors: " + ", ".join(f"{count} answers {group}xx" for group, count in errors.items()) + ".")
        console.print(
            f"Served from cache: {_percent(summary.cached_requests)} of requests, {_percent(summary.cached_bytes)} of bytes."
        )
        console.print()
        for table in (
            _cache_table(summary),
            _table("Day (UTC)", sorted(summary.by_day.items())[-top:], summary.by_day, top),
            _table("Image", summary.by_image.top(top), summary.by_image, top),
            _table("User or address", summary.by_user.top(top), summary.by_user, top),
        ):
            console.print(table)
            console.print()
        console.print("A pull is a manifest answered to a GET; an index and the image that it leads to are one.")
    if bad.count:
        console.print(f"{_plural(bad.count, 'line')} could not be read:")
        for complaint in bad.first:
            console.print(Text("  " + printable(complaint)))


def human_size(size: int) -> str:
    """Bytes in decimal units with three digits, such as `1.23 GB`."""
    amount = float(size)
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            return f"{size} B" if unit == "B" else f"{amount:#.3g}".rstrip(".") + f" {unit}"
        amount /= 1000
    raise AssertionError(size)


def printable(text: str) -> str:
    """Without characters that could steer a terminal or make a line look like another one."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _table(heading: str, rows: list[tuple[str, Total]], totals: Totals[str], top: int) -> Table:
    table = _columns(heading, "pulls", "requests", "sent")
    for name, total in rows:
        table.add_row(Text(printable(name)), str(total.pulls), str(total.requests), human_size(total.size))
    if totals.others.requests:
        others = totals.others
        table.add_row(OTHERS, str(others.pulls), str(others.requests), human_size(others.size))
    if len(totals) > top:
        table.caption = f"{len(rows)} of {len(totals)}; --top shows more"
    return table


def _cache_table(summary: Summary) -> Table:
    table = _columns("Cache", "requests", "share", "sent", "share")
    counted = {result: summary.by_cache[result] for result in _CACHE_WORDS}
    requests, size = sum(total.requests for total in counted.values()), sum(total.size for total in counted.values())
    for result, total in counted.items():
        table.add_row(
            _CACHE_WORDS[result],
            str(total.requests),
            _percent(total.requests / requests if requests else None),
            human_size(total.size),
            _percent(total.size / size if size else None),
        )
    return table


def _columns(heading: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", padding=(0, 2, 0, 0))
    table.add_column(heading, overflow="fold", no_wrap=False)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _rows(totals: Totals[str], top: int) -> list[dict[str, Any]]:
    rows = [{"name": name, **_total(total)} for name, total in totals.top(top)]
    return [*rows, {"name": OTHERS, **_total(totals.others)}] if totals.others.requests else rows


def _total(total: Total) -> dict[str, int]:
    return {"pulls": total.pulls, "requests": total.requests, "bytes": total.size}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _iso(time: float | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")


def _minute(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
