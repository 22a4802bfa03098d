"""After random faults on both sides nothing is held, and what was sent is charged."""

from __future__ import annotations

import pytest
from support.books import Deaf
from support.fault_load import Load

pytestmark = pytest.mark.anyio


async def test_after_random_faults_the_books_are_right(collected):
    with Deaf() as upstream:
        result = await Load(upstream, requests=150, seed=7).run()
    assert result.wrong == []
    assert result.held == 0
    assert result.charged + result.unseen == result.sent
    assert len(result.outcomes) >= 5
    assert result.calls <= 150
