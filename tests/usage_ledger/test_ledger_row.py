from __future__ import annotations

import dataclasses
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import refused, settled

from streamguard.identity import Identity
from streamguard.sinks.ledger_row import COLUMNS, UsageRow, decode, encode, row_of
from streamguard.sinks.ledger_table import USAGE
from streamguard.usage import Usage, UsageEvent

INTS = st.none() | st.integers(0, 2**63 - 1)
USAGES = st.builds(Usage, INTS, INTS, INTS, INTS, INTS)
TEXTS = st.none() | st.text(max_size=300)


def test_the_table_has_the_rows_columns():
    assert tuple(USAGE.c.keys()) == COLUMNS


def test_a_settled_call_keeps_all_its_figures():
    event = settled(
        7,
        counted=Usage(1, 2, 3, 4),
        reported=Usage(5, 6, 7, 8, 13),
        charged=Usage(9, 10, 11, 12, 14),
        components={"user": 1},
        within="sg-0",
        output_limit=500,
        attempt=2,
        detail="x",
    )
    row = row_of(event)
    assert row == UsageRow(
        at=1_790_000_007_000_000,
        request_id="sg-7",
        event="settled",
        outcome="completed",
        tenant="acme",
        user_id="ann",
        feature="chat",
        model="gpt-4o",
        endpoint="/v1/chat/completions",
        conversation="c1",
        within="sg-0",
        method="exact",
        counted_input=1,
        counted_output=2,
        counted_reasoning=3,
        counted_cached=4,
        reported_input=5,
        reported_output=6,
        reported_reasoning=7,
        reported_cached=8,
        reported_cache_write=13,
        charged_cache_write=14,
        charged_input=9,
        charged_output=10,
        charged_reasoning=11,
        charged_cached=12,
        total_tokens=19,
        cost_nano_usd=120_000,
        context_window=128_000,
        output_limit=500,
        duration=1.5,
        first_token=0.25,
        status=200,
        attempt=2,
        components='{"user":1}',
        detail="x",
    )


def test_a_refused_call_keeps_the_limit_and_its_size():
    row = row_of(refused(1))
    assert (row.limit_name, row.limit_amount, row.limit_used, row.limit_requested) == (
        "day",
        1_000,
        800,
        900,
    )
    assert (row.total_tokens, row.charged_input, row.cost_nano_usd) == (900, None, None)


@pytest.mark.parametrize(
    ("counted", "charged", "size"),
    [
        (Usage(), None, None),
        (Usage(10), None, 10),
        (Usage(None, 5), None, 5),
        (Usage(10, 5), Usage(0, 0), 15),
        (Usage(10, 5), Usage(11, None), 15),
        (Usage(10, 5), Usage(11, 6), 17),
    ],
)
def test_the_size_of_a_call(counted, charged, size):
    assert row_of(settled(counted=counted, charged=charged)).total_tokens == size


@given(TEXTS, TEXTS, USAGES, st.none() | USAGES, st.none() | st.floats(0, 1e6))
def test_any_event_is_one_line_that_reads_back(text, other, counted, charged, number):
    event = UsageEvent(
        "settled",
        text or "",
        1.5,
        Identity(text, other, text),
        model=other,
        endpoint=text,
        counted=counted,
        charged=charged,
        duration=number,
        code=other,
        detail=text,
    )
    line = encode(event)
    assert b"\n" not in line
    assert "\\u0000" not in line.decode()
    assert decode(line) == row_of(event)
    assert json.loads(line)["at"] == 1_500_000


def test_what_no_database_takes_is_tamed():
    event = dataclasses.replace(
        settled(), cost_nano_usd=2**70, requested=-(2**70), method="\ud800", duration=0.5
    )
    row = decode(encode(event))
    assert (row.cost_nano_usd, row.limit_requested) == (2**63 - 1, -(2**63 - 1))
    assert (row.method, row.duration) == ("?", 0.5)


@pytest.mark.parametrize("line", [b"", b"{", b'{"at":1}', b'{"at":"x","request_id":"","event":""}'])
def test_a_torn_line_is_no_row(line):
    with pytest.raises(msgspec.DecodeError):
        decode(line)
