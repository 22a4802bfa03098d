"""What users import: few names, all there, all documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import streamguard
from streamguard import errors
from streamguard.guard.options import Options
from streamguard.guard.settings import Settings

MAX_NAMES = 30
PROMISED = {
    "Guard", "Limit", "StreamGuardMiddleware", "Identity", "retry_policy", "OutputCounter",
    "count_request", "Usage", "UsageEvent", "PromptCount", "StreamGuardError",
    "ConfigurationError", "BudgetExceededError", "InputBudgetExceededError",
    "OutputBudgetExceededError", "WindowBudgetExceededError", "ContextWindowExceededError",
    "OversizedRetryError", "StoreUnavailableError", "ProtocolError",
}  # fmt: skip


def test_the_public_names_are_few_and_the_promised_ones_are_there():
    names = streamguard.__all__
    assert len(names) == len(set(names)) <= MAX_NAMES
    assert set(names) >= PROMISED
    assert set(names) <= set(dir(streamguard))


@pytest.mark.parametrize("name", streamguard.__all__)
def test_a_public_name_can_be_imported_and_has_a_docstring(name):
    value = getattr(streamguard, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("streamguard.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'streamguard' has no attribute 'Gaurd'"):
        streamguard.Gaurd  # noqa: B018


def test_every_error_is_a_streamguard_error_with_a_status_and_a_code():
    kinds = [kind for _name, kind in inspect.getmembers(errors, inspect.isclass)]
    raised = [kind for kind in kinds if issubclass(kind, Exception)]
    assert len(raised) >= 10
    for kind in raised:
        assert issubclass(kind, errors.StreamGuardError)
        assert 400 <= kind.status <= 504
        assert kind.code.isidentifier()
        assert kind.__name__ in errors.__doc__ or kind.__base__ is errors.ProtocolError


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("openai", "tiktoken", "toktok", "genai_prices", "pydantic", "rich", "uvicorn", "redis")
    code = f"import sys, streamguard; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_type_checkers_know_every_setting():
    settings = dict(Settings.__annotations__)
    del settings["limits"]
    options = dict(Options.__annotations__)
    assert options.keys() == settings.keys()
    looser = {"fit", "queue", "cache"}
    for name in settings.keys() - looser:
        assert str(options[name].__forward_arg__) == settings[name], name
