"""Office hours across days, holidays and changes of the clock."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.config import Hours
from gateway.config.hours import parse_opening, show_week

LISBON = ZoneInfo("Europe/Lisbon")
OFFICE = Hours.model_validate(
    {
        "timezone": "Europe/Lisbon",
        "open": ["mon-thu 09:00-13:00, 14:00-18:00", "Friday 22:00–02:00"],
        "holidays": ["2026-11-25"],
    }
)

MOMENTS = {
    "mon 08:59": (datetime(2026, 11, 23, 8, 59), False),
    "mon 09:00": (datetime(2026, 11, 23, 9, 0), True),
    "mon lunch": (datetime(2026, 11, 23, 13, 0), False),
    "mon 17:59": (datetime(2026, 11, 23, 17, 59, 59), True),
    "mon 18:00": (datetime(2026, 11, 23, 18, 0), False),
    "holiday": (datetime(2026, 11, 25, 10, 0), False),
    "fri night": (datetime(2026, 11, 27, 23, 0), True),
    "fri morning": (datetime(2026, 11, 27, 1, 0), False),
    "night after fri": (datetime(2026, 11, 28, 1, 59), True),
    "sat 02:00": (datetime(2026, 11, 28, 2, 0), False),
}


@pytest.mark.parametrize(("at", "is_open"), MOMENTS.values(), ids=MOMENTS.keys())
def test_it_is_open_from_the_first_minute_and_until_before_the_last(at: datetime, is_open: bool) -> None:
    assert OFFICE.is_open(at.replace(tzinfo=LISBON)) is is_open


def test_a_night_that_begins_on_a_holiday_is_closed_also_on_the_next_day() -> None:
    hours = Hours.model_validate({"open": ["mon-sun 22:00-02:00"], "holidays": ["2026-11-25"]})
    utc = ZoneInfo("UTC")
    assert not hours.is_open(datetime(2026, 11, 26, 1, 0, tzinfo=utc))
    assert hours.is_open(datetime(2026, 11, 25, 1, 0, tzinfo=utc))


def test_the_zone_decides_and_not_the_clock_of_the_caller() -> None:
    at = datetime(2026, 7, 6, 8, 30, tzinfo=ZoneInfo("UTC"))  # Monday, 9:30 in Lisbon
    assert OFFICE.is_open(at)
    assert not Hours.model_validate({"timezone": "UTC", "open": ["mon 09:00-10:00"]}).is_open(at)


DAYS = {
    "mon-fri 09:00-18:00": {0, 1, 2, 3, 4},
    "sat,sun 09:00-18:00": {5, 6},
    "fri-mon 09:00-18:00": {4, 5, 6, 0},
    "MON - WED, sunday 09:00-18:00": {0, 1, 2, 6},
    "tue 9:00-10:00 11:00-12:00": {1},
}


@pytest.mark.parametrize(("text", "days"), DAYS.items(), ids=DAYS.keys())
def test_days_may_be_a_range_or_a_list(text: str, days: set[int]) -> None:
    assert parse_opening(text).weekdays == days


@pytest.mark.parametrize(
    "text",
    [
        *("", "mon", "09:00-18:00", "mon 9-18", "mon 09:00-25:00", "mon 24:00-02:00", "mon 09:60-10:00"),
        *("mon 09:00-09:00", "mon 09:00-10:00 x", "mon-fri-sat 09:00-10:00", "someday 09:00-10:00"),
        *("mon 00:00-24:30", 5),
    ],
)
def test_what_is_no_opening_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_opening(text)


def test_the_whole_day_can_be_written() -> None:
    assert parse_opening("mon 00:00-24:00").spans == ((0, 1440),)
    assert show_week([parse_opening("mon 00:00-24:00")], [], date(2026, 11, 23)).startswith(
        "Mon 2026-11-23 00:00-24:00, "
    )
