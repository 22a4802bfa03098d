"""Windows: which usage counts at a moment."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import limits
from streamguard.core.accounts import Window, account_key, account_limit, account_tag
from streamguard.core.windows import BUCKETS, FOREVER, Calendar, Sliding, Smooth, ruler
from streamguard.errors import ConfigurationError

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Pacific/Apia",
    "America/St_Johns",
]
SPANS = [60, 900, 1200, 3600, 7200, 21_600, 43_200, 86_400, 604_800, 0]
MOMENTS = st.integers(min_value=1_100_000_000_000, max_value=2_000_000_000_000)


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def shown(moment: int, zone: str) -> str:
    return datetime.fromtimestamp(moment / 1000, ZoneInfo(zone)).isoformat()


@given(seconds=st.integers(1, 100 * 86_400), used=MOMENTS, later=st.integers(0, 10**10))
def test_sliding_counts_whole_window_and_a_bucket_more_at_most(seconds, used, later):
    sliding = Sliding(seconds)
    bucket = sliding.place(used)[1]
    first, current = sliding.place(used + later)
    if later <= seconds * 1000:
        assert first <= bucket <= current
    if later > seconds * 1000 + sliding.width:
        assert bucket < first
    assert sliding.width <= seconds * 1000 / BUCKETS + 1
    assert sliding.place(sliding.release(bucket) - 1)[0] <= bucket
    assert sliding.place(sliding.release(bucket))[0] == bucket + 1


@given(moment=MOMENTS, seconds=st.sampled_from(SPANS), zone=st.sampled_from(ZONES))
def test_calendar_periods_tile_time(moment, seconds, zone):
    calendar = Calendar(seconds, ZoneInfo(zone))
    start, end = calendar.period(moment)
    assert start <= moment < end
    assert calendar.period(start) == calendar.period(end - 1) == (start, end)
    assert calendar.period(end)[0] == end
    assert calendar.place(moment) == (start, start)
    assert calendar.release(start) == end


@given(moment=MOMENTS, seconds=st.sampled_from(SPANS), zone=st.sampled_from(ZONES))
def test_calendar_starts_surround_the_moment(moment, seconds, zone):
    calendar = Calendar(seconds, ZoneInfo(zone))
    starts = calendar.starts(moment, 2)
    assert len(starts) == 6
    assert starts[2] == calendar.period(moment)[0]
    assert all(calendar.period(a) == (a, b) for a, b in pairwise(starts))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("seconds", [60, 1200, 1800, 3600, 7200, 86_400])
def test_calendar_tiles_through_every_change_of_the_clock(zone, seconds):
    calendar = Calendar(seconds, ZoneInfo(zone))
    for change in _changes(zone):
        moment = change - 8 * 3_600_000
        start, end = calendar.period(moment)
        while end < change + 8 * 3_600_000:
            following = calendar.period(end)
            assert following[0] == end
            assert calendar.period(following[1] - 1) == following
            start, end = following
        assert start < end


def _changes(zone: str) -> list[int]:
    """The offset changes of a zone in 2011 and 2018, to the hour."""
    info = ZoneInfo(zone)
    found = []
    for year in (2011, 2018):
        hour = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        before = datetime.fromtimestamp(hour, info).utcoffset()
        for moment in range(hour, hour + 366 * 86_400, 3600):
            now = datetime.fromtimestamp(moment, info).utcoffset()
            if now != before:
                found.append(moment * 1000)
            before = now
    return found


@given(
    window=st.builds(
        Window,
        st.sampled_from([1, 7, 60, 3600, 86_400, None]),
        st.booleans(),
        st.sampled_from(ZONES),
    ).filter(lambda window: not (window.calendar and window.seconds in {7, None})),
    moment=MOMENTS,
    part=st.floats(0, 1, exclude_max=True),
)
def test_place_stays_the_same_until_it_says(window, moment, part):
    rule = ruler(window)
    until = rule.until(moment)
    assert moment < until
    assert rule.place(moment) == rule.place(moment + int((until - moment) * part))
    if window.seconds is not None:
        assert rule.place(until) != rule.place(moment)


def test_day_of_a_clock_change_has_23_or_25_hours():
    day = ruler(Window(86_400, calendar=True, timezone="Europe/Berlin"))
    spring, autumn = (
        at("2026-03-29T12:00", "Europe/Berlin"),
        at("2026-10-25T12:00", "Europe/Berlin"),
    )
    for moment, hours in ((spring, 23), (autumn, 25)):
        start = day.place(moment)[1]
        assert shown(start, "Europe/Berlin").split("T")[1].startswith("00:00:00")
        assert day.release(start) - start == hours * 3_600_000


def test_weeks_start_on_monday_and_months_on_the_first():
    moment = at("2026-02-18T10:00", "America/New_York")
    week = ruler(Window(604_800, calendar=True, timezone="America/New_York"))
    month = ruler(Window(0, calendar=True, timezone="America/New_York"))
    assert shown(week.place(moment)[1], "America/New_York") == "2026-02-16T00:00:00-05:00"
    assert shown(month.place(moment)[1], "America/New_York") == "2026-02-01T00:00:00-05:00"
    start = month.place(moment)[1]
    assert shown(month.release(start), "America/New_York") == "2026-03-01T00:00:00-05:00"


def test_half_hour_change_begins_the_hour_anew():
    hour = Calendar(3600, ZoneInfo("Australia/Lord_Howe"))
    change = at("2018-10-07T02:30", "Australia/Lord_Howe")
    assert hour.period(change)[0] == change
    assert hour.period(change - 1)[1] == change


def test_release_of_an_older_period_is_its_own_end():
    day = Calendar(86_400, UTC)
    today = at("2026-01-02T12:00")
    day.place(today)
    assert day.release(at("2026-01-01T00:00")) == at("2026-01-02T00:00")


def test_seconds_zero_is_a_month_even_without_calendar():
    assert isinstance(ruler(Window(0)), Calendar)


def test_no_window_has_one_bucket():
    unaged = ruler(Window(None))
    assert unaged.place(123) == (0, 0)
    assert unaged.release(0) == 0


@pytest.mark.parametrize("seconds", [172_800, 5400, 50_000, 2_592_000])
def test_unnatural_calendar_is_refused(seconds):
    with pytest.raises(ConfigurationError, match=f"no calendar window of {seconds} seconds"):
        ruler(Window(seconds, calendar=True))


def test_negative_window_is_refused():
    with pytest.raises(ConfigurationError, match="-5 seconds"):
        ruler(Window(-5))


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_unknown_zone_is_refused_with_what_to_do(name):
    with pytest.raises(ConfigurationError, match="IANA name"):
        limits.zone(name)


def test_utc_needs_no_zone_data(monkeypatch):
    monkeypatch.setattr(limits, "ZoneInfo", None)
    assert limits.zone("UTC") is UTC


def test_account_keys_hide_values_and_share_the_tenants_tag():
    minute = Window(60)
    key = account_key("tpm", {"tenant": "acme", "user": "ann"}, minute)
    other = account_key("cost", {"tenant": "acme"}, minute)
    assert "acme" not in key
    assert "ann" not in key
    assert account_tag(key) == account_tag(other)
    assert account_limit(key) != account_limit(other)
    assert account_limit(key) == account_limit(account_key("tpm", {"tenant": "b"}, minute))


@pytest.mark.parametrize(
    ("scope", "same"),
    [
        ({"tenant": "a", "user": "b"}, {"user": "b", "tenant": "a"}),
        ({}, {}),
        ({"user": "x"}, {"user": "x"}),
    ],
)
def test_account_key_ignores_the_order_of_the_scope(scope, same):
    assert account_key("l", scope, Window(1)) == account_key("l", same, Window(1))


@pytest.mark.parametrize(
    ("scope", "window"),
    [
        ({"tenant": None}, Window(60)),
        ({"tenant": "None"}, Window(60)),
        ({"tenant": "\ud800"}, Window(60)),
        ({"tenant": ""}, Window(60)),
        ({"user": "a"}, Window(60)),
        ({"tenant": "a"}, Window(61)),
        ({"tenant": "a"}, Window(60, calendar=True)),
        ({}, Window(60)),
    ],
)
def test_account_keys_keep_apart_what_differs(scope, window):
    assert account_key("l", scope, window) != account_key("l", {"tenant": "a"}, Window(60))


LEAKS = st.builds(Smooth, st.integers(1, 2**53), st.integers(1, 86_400))


@given(rule=LEAKS, steps=st.lists(st.integers(0, 10**6), max_size=20))
def test_smooth_loses_nothing_however_often_it_is_looked_at(rule, steps):
    gone, part = 0, 0
    for step in steps:
        flowed, part = rule.flow(step, part)
        gone += flowed
    assert (gone, part) == rule.flow(sum(steps), 0)
    assert gone * rule.period + part == sum(steps) * rule.units


@given(rule=LEAKS, units=st.integers(1, 10**9), waited=st.integers(0, 10**6))
def test_smooth_tells_the_first_moment_at_which_enough_has_flowed(rule, units, waited):
    _, part = rule.flow(waited, 0)
    time = rule.time(units, part)
    assert rule.flow(time, part)[0] >= units or time == FOREVER
    assert time <= 0 or rule.flow(time - 1, part)[0] < units


def test_smooth_has_one_bucket_the_present_moment():
    rule = ruler(Window(60, leak=60_000))
    assert (rule.units, rule.period) == (1, 1)
    assert rule.place(77) == (77, 77)
    assert (rule.until(77), rule.release(77)) == (78, 77)
    other = Window(60, leak=59_000)
    assert account_limit(account_key("n", {}, other)) != account_limit(
        account_key("n", {}, Window(60))
    )
