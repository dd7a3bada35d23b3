"""Arrival traces: requests with their lengths, as in Azure's LLM inference traces.

CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens; a timestamp is `2023-11-16 18:15:46.6805900` or plain seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mec_platform.traces.lines import TraceError, read_lines


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: when it comes, and its tokens in and out."""

    at_s: float
    prompt_tokens: int
    answer_tokens: int


def read_arrival_trace(path: Path) -> tuple[Arrival, ...]:
    """The requests in order of time, the first at 0 s.

    Raises:
        TraceError: there is no such file, a line is malformed, or it holds no request.
    """
    rows = sorted(read_lines(path, _parse), key=lambda row: row.at_s)
    if not rows:
        raise TraceError(f"{path}: no requests; an arrival trace has columns TIMESTAMP,ContextTokens,GeneratedTokens")
    return tuple(replace(row, at_s=row.at_s - rows[0].at_s) for row in rows)


def _parse(line: str) -> Arrival | None:
    fields = line.strip().split(",")
    if not fields[0] or not fields[0][0].isdigit():
        return None
    prompt, answer = int(fields[1]), int(fields[2])
    if prompt < 1 or answer < 0:
        raise ValueError(f"a request of {prompt} prompt tokens and {answer} answer tokens")
    return Arrival(_seconds(fields[0]), prompt, answer)


def _seconds(text: str) -> float:
    if " " not in text and "T" not in text:
        return float(text)
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")
