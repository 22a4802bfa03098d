"""What is remembered of refused requests keeps none of them alive."""

from __future__ import annotations

import gc
import weakref

import pytest

from streamguard.core.oversized import fingerprint
from streamguard.errors import InputBudgetExceededError
from streamguard.guard.refusals import Refusals
from streamguard.identity import ANONYMOUS


class Request:
    pass


def test_a_remembered_refusal_lets_its_request_go():
    refusals, body = Refusals(), {"model": "m", "messages": []}

    def refuse(request):
        error = InputBudgetExceededError("too long", limit=5, requested=9, unit="tokens")
        error.limit_name = "a prompt"
        try:
            raise error
        except InputBudgetExceededError as raised:
            refusals.remember(body, raised, (), "m", ANONYMOUS)
            raise

    request = Request()
    gone = weakref.ref(request)
    with pytest.raises(InputBudgetExceededError):
        refuse(request)
    del request
    gc.collect()
    assert gone() is None
    first = refusals._oversized.recall(fingerprint(body, "m", "\0"), (), 0.0)
    assert (type(first), first.limit, first.requested) == (InputBudgetExceededError, 5, 9)
    assert (first.limit_name, first.message) == ("a prompt", "too long")
