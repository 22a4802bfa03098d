from __future__ import annotations

import pytest
from support.databases import postgres_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/usage.db"
        return
    with postgres_schema() as url:
        yield url
