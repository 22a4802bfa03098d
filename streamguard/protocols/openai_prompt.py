"""What OpenAI's Chat and Responses prompts share: tools, response formats, tool calls, media.

The forms were derived from reported usage; what OpenAI published of them is in the repository
``openai/harmony``. They are exact for OpenAI's own models. Other hosts put tools into their
prompts as JSON, so that is what is counted for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from streamguard.core import typescript
from streamguard.core.documents import audio_tokens, document_tokens
from streamguard.core.families import CLASSIC, HARMONY, Family, family_of, is_reasoning
from streamguard.core.image_size import size_of_data
from streamguard.core.image_tokens import image_rule
from streamguard.core.json_text import as_map, as_text, canonical, compact, many, maps, spaced
from streamguard.core.prompt import Component, Part

PER_MESSAGE = 3
"""Special tokens around a message's role and content."""

SYSTEM_ROLES = frozenset({"system", "developer"})

UNSEEN = 20_480
"""What is allowed for input that only the provider can see: a stored file or conversation."""

FOREIGN_TOOLS = 80
"""What other hosts' templates say around tools, at most."""

TEMPLATES = {"unknown": 24, "gpt-oss": 72}
"""What other hosts' templates say before any message: who the model is, the date, channels."""

_TOOLS = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
_UNBILLED = frozenset(
    {
        "required", "additionalProperties", "default", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
    }
)  # fmt: skip
"""Schema keywords that the decoder enforces, so that the model need not be told of them."""


class Dialect(NamedTuple):
    """The constants of one API for one family. Tokens, unless said otherwise.

    Attributes:
        joins: tools and response formats go to the end of the first system message.
        tools: on top of the tools' text.
        splits: the text that opens the namespace is tokenized apart.
        call: on top of a call's name (twice), arguments and result.
        calls: on top of parallel calls' and results' JSON.
        schema: on top of the response format's text.
        answers: the response format's name is in the header of each answer.
        channel: around the channel's name in each answer.
        named_choice: on top of the name of the function that must be called, ``None``: free.
    """

    joins: bool
    tools: int
    splits: bool
    call: int
    calls: int
    schema: int
    answers: bool
    channel: int
    named_choice: int | None


CHAT = Dialect(True, -1, False, 12, 20, 0, True, 0, 7)
CHAT_REASONING = CHAT._replace(splits=True)
CHAT_HARMONY = Dialect(False, 84, True, 18, 26, 8, False, 2, None)
RESPONSES = Dialect(False, -3, False, 10, 18, 1, False, 0, None)
RESPONSES_HARMONY = Dialect(False, 2, True, 18, 26, 1, False, 2, None)
FOREIGN = Dialect(False, FOREIGN_TOOLS, False, 24, 24, 60, False, 0, None)


def dialect_of(model: str, *, responses: bool = False) -> Dialect:
    """The dialect for a model."""
    family = family_of(model)
    if family is CLASSIC:
        return RESPONSES if responses else CHAT_REASONING if is_reasoning(model) else CHAT
    if family is HARMONY:
        return RESPONSES_HARMONY if responses else CHAT_HARMONY
    return FOREIGN


def is_own(family: Family) -> bool:
    """Whether OpenAI's own rendering applies."""
    return family in {CLASSIC, HARMONY}


def priming(model: str) -> int:
    """Tokens that open the answer."""
    return 2 if is_reasoning(model) else 3


def namespace_parts(functions: Sequence[Mapping[str, Any]], dialect: Dialect) -> Iterator[Part]:
    """Function tools as the model sees them."""
    if not functions:
        return
    if dialect is FOREIGN:
        yield Part("tools", text=spaced(list(functions)), tokens=dialect.tools)
        return
    text, complete = typescript.namespace(functions)
    if dialect.splits:
        yield Part("tools", text=_TOOLS, tokens=dialect.tools)
        yield Part("tools", text=text)
    else:
        yield Part("tools", text=_TOOLS + text, tokens=dialect.tools)
    if not complete:
        yield Part("tools", tokens=typescript.ENDLESS, bound=True)


def component_of(role: Any, *, current: bool) -> Component:
    """What a message belongs to; ``current``: to the turn that is to be answered."""
    if as_text(role) in SYSTEM_ROLES:
        return "system"
    return "user" if current else "history"


def head_part(role: str, dialect: Dialect, name: str = "") -> Part:
    """A message's head: who speaks, and what stands around it."""
    tokens = PER_MESSAGE + (dialect.channel if role == "assistant" else 0)
    return Part("overhead", text=f"{role}:{name}" if name else role, tokens=tokens)


def opaque_tool(tool: Any, allowance: int) -> Part:
    """A tool whose text only the provider knows: its JSON and an allowance."""
    return Part("tools", text=spaced(tool), tokens=allowance, bound=True)


def format_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema response format as the model sees it."""
    name, described = as_text(schema.get("name")), as_text(schema.get("description"))
    comment = f"// {described}\n" if described else ""
    text = compact(billed_schema(schema.get("schema")), ascii_only=True)
    return f"# Response Formats\n\n## {name}\n\n{comment}{text}"


def unknown_format(given: Any) -> Iterator[Part]:
    """A response format of no known type: its JSON, at most."""
    if as_text(as_map(given).get("type")) not in {"", "text", "json_object"}:
        yield Part("response_format", text=spaced(given), tokens=40, bound=True)


def billed_schema(schema: Any, depth: int = 0) -> Any:
    """A schema without the keywords that are not billed; deep down it stays as it is."""
    if depth > typescript.MAX_DEPTH:
        return schema
    if isinstance(schema, list):
        return [billed_schema(item, depth + 1) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _named(value, depth + 1)
        if key in {"properties", "$defs", "definitions"}
        else billed_schema(value, depth + 1)
        for key, value in schema.items()
        if key not in _UNBILLED
    }


def _named(schemas: Any, depth: int) -> Any:
    """Schemas by name: the names are no keywords."""
    if not isinstance(schemas, Mapping):
        return schemas
    return {name: billed_schema(schema, depth + 1) for name, schema in schemas.items()}


class Call(NamedTuple):
    """A tool call of the model."""

    name: str
    arguments: str


def call_parts(
    calls: Sequence[Call], results: Sequence[str], component: Component, dialect: Dialect
) -> Iterator[Part]:
    """Calls of one turn and their results; parallel calls are one call of calls."""
    if len(calls) == 1:
        (call,) = calls
        yield Part(component, text=call.arguments)
        yield Part("overhead", text=call.name, tokens=dialect.call)
        yield Part("overhead", text=f"functions.{call.name}")
        yield from (Part(component, text=result) for result in results if result)
        return
    uses = ",".join(
        f'{{"recipient_name":"functions.{call.name}","parameters":{call.arguments or "{}"}}}'
        for call in calls
    )
    yield Part(component, text=f'{{"tool_uses":[{uses}]}}')
    yield Part("overhead", tokens=dialect.calls)
    if results:
        yield Part(component, text=spaced(list(results)))


def image_part(url: object, detail: object, model: str) -> Part:
    """An image by its data URL, or the most it can cost when it is elsewhere."""
    size = size_of_data(url) if isinstance(url, str) and url.startswith("data:") else None
    count = image_rule(model).cost(size, detail if isinstance(detail, str) else "auto")
    return Part("images", tokens=count.tokens, bound=count.bound or not is_own(family_of(model)))


def content_parts(content: Any, component: Component, model: str) -> Iterator[Part]:
    """The parts of a message's content, text or list."""
    if isinstance(content, str):
        yield Part(component, text=content)
        return
    for piece in many(content):
        yield from _piece(piece, component, model)


def _piece(piece: Any, component: Component, model: str) -> Iterator[Part]:
    part = as_map(piece)
    kind = as_text(part.get("type"))
    if isinstance(piece, str):
        yield Part(component, text=piece)
    elif kind in {"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"}:
        yield Part(component, text=as_text(part.get("text", part.get("refusal"))))
    elif kind in {"image_url", "input_image"}:
        image = part.get("image_url")
        url = as_map(image).get("url") if isinstance(image, Mapping) else image
        yield image_part(url, as_map(image).get("detail", part.get("detail")), model)
    elif kind in {"file", "input_file"}:
        yield file_part({**part, **as_map(part.get("file"))})
    elif kind == "input_audio":
        yield audio_part(as_map(part.get("input_audio")))
    else:
        yield Part(component, text=spaced(piece), bound=True)


def file_part(file: Mapping[str, Any]) -> Part:
    """A document by its data; a reference is allowed ``UNSEEN``."""
    data = file.get("file_data")
    tokens = document_tokens(data) if isinstance(data, str) else UNSEEN
    return Part("files", tokens=tokens, bound=True)


def audio_part(audio: Mapping[str, Any]) -> Part:
    """Audio by its data; a reference is allowed ``UNSEEN``."""
    data = audio.get("data")
    tokens = audio_tokens(data, audio.get("format")) if isinstance(data, str) else UNSEEN
    return Part("files", tokens=tokens, bound=True)


def turn_of(roles: Sequence[object]) -> int:
    """Where the last user turn starts; what follows it belongs to it."""
    return max((index for index, role in enumerate(roles) if role == "user"), default=0)


def call_of(function: Any, *, rewrite: bool) -> Call:
    """A call from its JSON; ``rewrite`` takes the spaces out of the arguments."""
    call = as_map(function)
    arguments = as_text(call.get("arguments", call.get("input")))
    return Call(as_text(call.get("name")), canonical(arguments) if rewrite else arguments)


def functions_of(tools: Any) -> list[Mapping[str, Any]]:
    """The functions among Chat's tools."""
    return [as_map(t["function"]) for t in maps(tools) if isinstance(t.get("function"), Mapping)]
