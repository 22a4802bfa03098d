from __future__ import annotations

import gc

import pytest
from support.books import Deaf
from support.upstream import Plan, Upstream


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def _upstreams():
    with Upstream() as obeying, Deaf() as deaf:
        yield obeying, deaf


@pytest.fixture
def upstream(_upstreams):
    """Obeys output caps, as providers do."""
    return _fresh(_upstreams[0])


@pytest.fixture
def deaf(_upstreams):
    """Ignores output caps, so that it is cut."""
    return _fresh(_upstreams[1])


def _fresh(upstream):
    upstream.calls.clear()
    upstream.default = Plan()
    return upstream


@pytest.fixture
def collected():
    """Garbage is collected before and after, so that what is dropped is dropped in the test."""
    gc.collect()
    yield gc.collect
    gc.collect()
