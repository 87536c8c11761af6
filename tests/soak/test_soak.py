"""The soak test, short: each misfortune once."""

from __future__ import annotations

from pathlib import Path

from tests.soak.run import Plan, soak
from tests.soak.verdict import findings


async def test_every_answer_is_right_or_a_clear_error_whatever_happens_and_nothing_leaks(tmp_path: Path) -> None:
    lines: list[str] = []
    outcome = await soak(Plan(), tmp_path, lines.append)
    assert findings(outcome) == [], "\n".join(lines)
    assert outcome.ended is not None
    assert outcome.ended.parts == 0
    assert {"ok", "refused", "cut"} <= set(outcome.tally)
