"""JSON Schema as TypeScript, case by case."""

import tracemalloc

import pytest

from streamguard.core import typescript


def render(parameters, description=None):
    text, complete = typescript.namespace(
        [{"name": "f", "description": description, "parameters": parameters}]
    )
    assert complete
    return text.removesuffix("} // namespace functions").removesuffix("\n\n")


def members(**properties):
    return render({"type": "object", "properties": properties, "required": list(properties)})


def test_a_function_without_parameters():
    assert render(None) == "type f = () => any;"
    assert render({"type": "object", "properties": {}}) == "type f = () => any;"


def test_descriptions_lose_their_indentation():
    text = render(None, "Adds.\n\n    Args:\n        a: first\n    ")
    assert text == "// Adds.\n//\n// Args:\n// a: first\ntype f = () => any;"


def test_plain_objects_are_one_line():
    text = render(
        {"properties": {"a": {"type": "number"}, "b": {"type": "string"}}, "required": ["a"]}
    )
    assert text == "type f = (_: { a: number, b?: string }) => any;"


def test_comments_open_the_object():
    text = members(a={"type": "integer", "description": "First"}, b={"type": "boolean"})
    assert text == "type f = (_: {\n// First\na: number,\nb: boolean,\n}) => any;"


def test_titles_stand_above_descriptions():
    text = members(a={"type": "null", "title": "A", "description": "First"}, b={"title": "B"})
    assert text == "type f = (_: {\n// A\n//\n// First\na: null,\n// B\nb: any,\n}) => any;"


def test_the_parameters_may_have_a_title_themselves():
    text = render({"title": "f_args", "properties": {"a": {"type": "string"}}})
    assert text == "type f = (_: // f_args\n{ a?: string }) => any;"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "default": "x"}, 'string, // default: "x"'),
        ({"type": "string", "default": "x", "enum": ["x", "y"]}, '"x" | "y", // default: x'),
        ({"type": "boolean", "default": False}, "boolean, // default: false"),
        ({"type": "number", "minimum": 1}, "number, // minimum: 1"),
        ({"type": "number", "default": 2, "maximum": 3}, "number, // default: 2, maximum: 3"),
    ],
)
def test_defaults_and_ranges_follow(schema, text):
    assert members(a=schema) == f"type f = (_: {{\na: {text}\n}}) => any;"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"enum": ["a", 1]}, '"a" | 1'),
        ({"const": "a"}, '"a"'),
        ({"type": "array"}, "any[]"),
        ({"type": "array", "items": {"type": "string"}}, "string[]"),
        ({"type": "object"}, "object"),
        (
            {"type": "object", "additionalProperties": {"type": "number"}},
            "{ [key: string]: number }",
        ),
        ({"properties": {"b": {"type": "string"}}}, "{ b?: string }"),
        ({"type": "mystery"}, "any"),
        ({"type": 3}, "any"),
        ("odd", "any"),
        ({"anyOf": []}, "any"),
    ],
)
def test_types(schema, text):
    assert members(a=schema) == f"type f = (_: {{ a: {text} }}) => any;"


def test_unions_take_a_line_each():
    text = members(a={"anyOf": [{"type": "string"}, {"type": "null"}]})
    assert text == "type f = (_: { a:\n | string\n | null\n }) => any;"


def test_a_list_of_types_repeats_the_comment():
    text = members(a={"type": ["string", "null"], "description": "Maybe", "default": None})
    expected = "// Maybe\na:\n// Maybe\n | string\n// Maybe\n | null\n, // default: null\n"
    assert text == f"type f = (_: {{\n{expected}}}) => any;"


def test_arrays_of_commented_objects():
    item = {"title": "Step", "type": "object", "properties": {"b": {"type": "string"}}}
    text = members(a={"type": "array", "items": item})
    assert text == "type f = (_: { a: Array<\n// Step\n{ b?: string }\n> }) => any;"


def test_references_are_rendered_in_place():
    text = render(
        {
            "$defs": {"P/x": {"type": "object", "properties": {"b": {"type": "string"}}}},
            "properties": {"a": {"$ref": "#/$defs/P~1x", "description": "Place"}},
        }
    )
    assert text == "type f = (_: {\n// Place\na?: { b?: string },\n}) => any;"


def test_recursion_ends_in_any():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    text = render({"$defs": {"Node": node}, "properties": {"a": {"$ref": "#/$defs/Node"}}})
    assert text == "type f = (_: { a?: { next?: any } }) => any;"


def test_deep_schemas_become_json():
    schema = {"type": "string"}
    for _ in range(typescript.MAX_DEPTH + 5):
        schema = {"type": "array", "items": schema}
    assert '{"type":"array","items"' in members(a=schema)


def test_references_cannot_multiply_without_end():
    """Each level refers twice to the next: a few hundred bytes that would be 2**40 types."""
    defs = {
        f"L{level}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/L{level + 1}"} for side in "ab"},
        }
        for level in range(40)
    }
    parameters = {"$defs": defs, "properties": {"a": {"$ref": "#/$defs/L0"}}}
    text, complete = typescript.namespace([{"name": "f", "parameters": parameters}])
    assert not complete
    assert len(text) < 10 * typescript.MAX_REFERRED


def test_long_choices_behind_references_use_up_the_budget():
    defs = {"Big": {"enum": ["x" * 1_000_000]}}
    properties = {str(number): {"$ref": "#/$defs/Big"} for number in range(20)}
    text, complete = typescript.namespace(
        [{"name": "f", "parameters": {"$defs": defs, "properties": properties}}]
    )
    assert not complete
    assert len(text) < 4_000_000


def test_many_references_to_a_large_schema_are_not_copies_of_it():
    large = {"type": "object", "properties": {"a": {}}, **{f"k{i}": 1 for i in range(5_000)}}
    names = [f"p{i}" for i in range(1_000)]
    for beside in ({}, {"description": "x"}):
        members = {name: {"$ref": "#/$defs/d", **beside} for name in names}
        parameters = {"$defs": {"d": large}, "properties": members}
        tracemalloc.start()
        try:
            text, complete = typescript.namespace([{"name": "f", "parameters": parameters}])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not complete
        assert text.count("?:") >= len(names)
        assert peak < 8_000_000


def wide(properties, **more):
    return {"type": "object", "properties": properties, **more}


LAST = {"$ref": "#/$defs/L3"}
NESTED = {"$ref": "#/$defs/deep"}
for _ in range(typescript.MAX_DEPTH - 1):
    NESTED = {"type": "array", "items": NESTED}
EXPLODING = {
    "members": {
        f"L{level}": wide(
            {f"x{i}": {"$ref": f"#/$defs/L{min(3, level + 1)}"} for i in range(1_000)}
        )
        for level in range(4)
    },
    "unions": {
        "L0": wide({f"x{i}": {"$ref": "#/$defs/L3"} for i in range(1_000)}),
        "L3": {"anyOf": [LAST] * 5_000},
    },
    "defaults": {
        "L0": wide({f"x{i}": {"$ref": "#/$defs/L3"} for i in range(1_000)}),
        "L3": {"type": "string", "default": "tide " * 4_000},
    },
    "deep ones": {
        "L0": NESTED,
        "deep": wide({f"x{i}": {"$ref": "#/$defs/L3"} for i in range(1_000)}),
        "L3": {"type": "string", "description": "", "odd": "tide " * 4_000},
    },
}


@pytest.mark.parametrize("defs", EXPLODING.values(), ids=EXPLODING)
def test_what_members_and_comments_behind_references_add_up_to_is_bounded(defs):
    parameters = {"$defs": defs, "properties": {"a": {"$ref": "#/$defs/L0"}}}
    text, complete = typescript.namespace([{"name": "f", "parameters": parameters}])
    assert not complete
    assert len(text) < 5 * typescript.MAX_REFERRED
