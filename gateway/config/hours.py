"""Office hours: "mon-fri 09:00-18:00" in a time zone, with holidays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import PlainValidator

from gateway.config.values import suggest

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = dict(
    zip(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), DAYS, strict=True)
)
_RANGE = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*[-–]\s*([0-9]{1,2}):([0-9]{2})")
_MIDNIGHT = 24 * 60


@dataclass(frozen=True, slots=True)
class Opening:
    """One entry of `open`. `weekdays`: 0 is Monday. `spans`: minutes after midnight, from and until; an end beyond
    24 hours lies on the next day and belongs to the day on which it began, holiday or not.
    """

    weekdays: frozenset[int]
    spans: tuple[tuple[int, int], ...]


def parse_opening(value: object) -> Opening:
    """Return what "mon-fri 09:00-12:30, 14:00-18:00" or "sat,sun 10:00-12:00" means."""
    if isinstance(value, Opening):
        return value
    if not isinstance(value, str):
        raise ValueError('needs text such as "mon-fri 09:00-18:00"')
    first_range = _RANGE.search(value)
    if not first_range:
        raise ValueError(f'"{value}" has no times; write for example "mon-fri 09:00-18:00"')
    weekdays = _parse_days(value[: first_range.start()], value)
    rest = _RANGE.sub("", value[first_range.start() :])
    if rest.strip(" ,"):
        raise ValueError(f'"{value}": "{rest.strip(" ,")}" is not understood; write "mon-fri 09:00-12:00, 13:00-18:00"')
    spans = tuple(_parse_span(found) for found in _RANGE.finditer(value))
    return Opening(weekdays, spans)


def _parse_days(text: str, whole: str) -> frozenset[int]:
    weekdays: set[int] = set()
    for part in re.split(r"[,\s]+", re.sub(r"\s*[-–]\s*", "-", text.strip().lower())):
        first, _, last = part.partition("-")
        begin, end = _day(first, whole), _day(last or first, whole)
        weekdays.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))  # fri-mon goes round
    return frozenset(weekdays)


def _day(word: str, whole: str) -> int:
    short = _LONG_DAYS.get(word, word)
    if short not in DAYS:
        if not word:
            raise ValueError(f'"{whole}" names no days; write for example "mon-fri 09:00-18:00"')
        raise ValueError(f'"{whole}": unknown day "{word}"{suggest(word, DAYS)}')
    return DAYS.index(short)


def _parse_span(found: re.Match[str]) -> tuple[int, int]:
    first_hour, first_minute, last_hour, last_minute = map(int, found.groups())
    begin, end = first_hour * 60 + first_minute, last_hour * 60 + last_minute
    if first_hour > 23 or last_hour > 24 or max(first_minute, last_minute) > 59 or end > _MIDNIGHT:
        raise ValueError(f'"{found[0]}" is not a time of day; they go from 00:00 to 24:00')
    if begin == end:
        raise ValueError(f'"{found[0]}" lasts no time; for the whole day write 00:00-24:00')
    return begin, end if end > begin else end + _MIDNIGHT


def parse_holiday(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) and len(value) == 10 else "")
    except ValueError:
        raise ValueError(f'"{value}" is not a day; write for example "2026-12-25"') from None


OpeningText = Annotated[Opening, PlainValidator(parse_opening)]
Holiday = Annotated[date, PlainValidator(parse_holiday)]


def is_open(openings: Sequence[Opening], holidays: Sequence[date], timezone: ZoneInfo, at: datetime) -> bool:
    """Return whether it is open at the aware time `at`."""
    local = at.astimezone(timezone)
    minute = local.hour * 60 + local.minute
    return any(
        begin <= minute + days_ago * _MIDNIGHT < end
        for days_ago in (0, 1)
        for begin, end in _spans_of(openings, holidays, local.date() - timedelta(days=days_ago))
    )


def show_week(openings: Sequence[Opening], holidays: Sequence[date], first: date) -> str:
    """Return the seven days from `first` in one line: "Mon 23 Nov 09:00-18:00, … Fri 25 Dec closed (holiday)"."""
    shown = []
    for step in range(7):
        day = first + timedelta(days=step)
        spans = _spans_of(openings, holidays, day)
        times = " and ".join(f"{_clock(begin)}-{_clock(end)}" for begin, end in spans)
        closed = "closed (holiday)" if day in holidays else "closed"
        shown.append(f"{DAYS[day.weekday()].title()} {day.isoformat()} {times or closed}")
    return ", ".join(shown)


def _spans_of(openings: Sequence[Opening], holidays: Sequence[date], day: date) -> list[tuple[int, int]]:
    if day in holidays:
        return []
    return sorted({span for opening in openings if day.weekday() in opening.weekdays for span in opening.spans})


def _clock(minute: int) -> str:
    if minute == _MIDNIGHT:
        return "24:00"
    return f"{minute // 60 % 24:02}:{minute % 60:02}"
