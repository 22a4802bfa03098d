"""The picture says in words what it shows in colours."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree as ET

from rich.console import Console

from streamguard.planner import BudgetPlanner, ComponentBudget, LastMessages, Summarise

NS = "{http://www.w3.org/2000/svg}"


def plan(window=400):
    keep = Summarise(lambda _: "They talked.", tokens=40, keep=LastMessages(3))
    planner = BudgetPlanner(
        "gpt-4o", window=window, components=[ComponentBudget("history", keep=keep)]
    )
    for turn in range(8):
        planner.add_message({"role": "assistant", "content": f"<secret> {turn}"})
    return planner.add_message({"role": "user", "content": "Why?"}).plan()


def test_the_terminal_shows_every_part():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(plan())
    text = console.export_text()
    for word in ("history", "summaries", "overhead", "free", "output", "5 trimmed", "of 400"):
        assert word in text
    assert len(text.splitlines()[1].strip()) == 64


def test_the_svg_is_well_formed_titled_and_fills_its_width():
    made = plan()
    image = ET.fromstring(made.svg(500))
    assert image.find(f"{NS}title").text.startswith("gpt-4o: ")
    assert "history" in image.find(f"{NS}desc").text
    bars = [r for r in image.iter(f"{NS}rect") if r.get("height") == "26"]
    assert abs(sum(float(r.get("width")) for r in bars) - 480) < 1
    text = "".join(image.itertext())
    assert "20.0%" in text
    assert "secret" not in text


def test_the_report_is_json_without_text():
    made = plan()
    data = json.dumps(made.report.as_dict())
    assert "secret" not in data
    assert "They talked" not in data
    assert json.loads(data)["remaining"] == made.report.remaining
    assert made.report.trimmed_tokens > 0
