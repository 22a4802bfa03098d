from __future__ import annotations

import pytest

from streamguard.protocols import normal_path, protocol_for_path, protocol_named, stream_named

KNOWN = {
    "openai_chat": [
        "/v1/chat/completions",
        "/chat/completions",
        "/V1/Chat/Completions",
        "//v1//chat///completions/",
        "/v1/chat/completions/?x=1",
        "/v1/chat%2Fcompletions",
        "/v1/chat/%63ompletions",
        "/v1/chat/%2563ompletions",
        "/v1/./chat/../chat/completions",
        "/v1\\chat\\completions",
        "/v1/chat/completions;x=1",
        "/api/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        "/mount/any/v1/chat/completions",
        "/engines/gpt-4/chat/completions",
    ],
    "completions": ["/v1/completions", "/v1/engines/gpt-4/completions"],
    "embeddings": ["/v1/engines/openai%2Ftext-embedding-3-small/embeddings"],
}


@pytest.mark.parametrize(("name", "path"), [(n, p) for n, paths in KNOWN.items() for p in paths])
def test_known_however_spelled(name, path):
    found = protocol_for_path(path)
    assert found is not None
    assert found.name == name
    assert protocol_named(name) is found


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/models",
        "/v1/chat/completions/chatcmpl-1",
        "/v1/xchat/completions",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/files",
        "/v1/batches",
        "/v1/threads/t/messages",
        "/v1/messages/batches",
        "/v1/messages/count_tokens",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/compact",
        "/v1beta/models/gemini-pro:countTokens",
        "/api/pull",
    ],
)
def test_unknown_is_none(path):
    assert protocol_for_path(path) is None


def test_one_spelling():
    assert normal_path("//A/b/../%63/?q#f") == "/a/c"
    assert normal_path("") == "/"
    assert normal_path("/%25252525252541") == "/%252541"  # so deep an escape is no server's path


def test_names():
    assert stream_named("openai_chat", "gpt-4o")().ended is False
    for look_up in (protocol_named, stream_named):
        with pytest.raises(KeyError, match=r"'nope'; use one of .*openai_chat"):
            look_up("nope")
