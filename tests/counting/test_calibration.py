"""Corrections learned from reports."""

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.core.accounts import tenant_key
from streamguard.core.calibration import LEAST_MARGIN, MOST_MARGIN, Calibrator
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.samples import Room

KEY = tenant_key("")


def counted(tokens, model="m", method="calibrated", margin=0.0, ratio=1.0):
    return PromptCount(tokens, method, margin, {}, model, ratio)


def taught(ratios, **options):
    calibrator = Calibrator(**options)
    for ratio in ratios:
        calibrator.observe(counted(10_000), round(10_000 * ratio))
    return calibrator


def test_nothing_is_corrected_before_enough_is_known():
    assert taught([1.5] * 19).correction("m") is None
    assert taught([1.5] * 20).correction("m") == (1.5, LEAST_MARGIN, 20)
    prompt = Prompt((), "calibrated", margin=0.1)
    assert taught([]).corrected(prompt, "m") is prompt


def test_a_correction_replaces_ratio_and_margin_of_estimates_only():
    calibrator = taught([1.0] * 50 + [1.2] * 50)
    prompt = Prompt((), "calibrated", margin=0.1)
    corrected = calibrator.corrected(prompt, "m")
    assert (corrected.ratio, round(corrected.margin, 6)) == (1.0, 0.2)
    exact = Prompt(())
    assert calibrator.corrected(exact, "m") is exact


def test_what_was_corrected_does_not_correct_again():
    """The margin and the ratio of a count are taken out before it is compared."""
    calibrator = Calibrator(least=1)
    calibrator.observe(counted(1_650, margin=0.1, ratio=1.5), 1_500)
    assert calibrator.correction("m").ratio == pytest.approx(1.5)


def test_bounds_small_prompts_and_unknown_models_teach_nothing():
    calibrator = Calibrator(least=1)
    calibrator.observe(counted(1_000, method="bound"), 1_000)
    calibrator.observe(counted(1_000, model=None), 1_000)
    calibrator.observe(counted(1_000), 49)
    calibrator.observe(counted(49), 1_000)
    assert calibrator.drift() == {}


def test_drift_shows_every_model():
    calibrator = Calibrator()
    calibrator.observe(counted(1_000, method="exact"), 1_010)
    assert calibrator.drift()["m"] == (1.01, LEAST_MARGIN, 1)


def test_the_model_that_was_longest_unseen_is_forgotten():
    calibrator = Calibrator(room=Room(1, 2, 9), least=1)
    for model in ("a", "b", "a", "c"):
        calibrator.observe(counted(1_000, model), 1_000)
    assert set(calibrator.drift()) == {"a", "c"}


def test_a_dump_is_json_and_loads():
    calibrator = taught([1.0, 1.1, 1.2] * 10)
    again = Calibrator()
    again.load(json.loads(json.dumps(calibrator.dump())))
    assert again.correction("m") == calibrator.correction("m")


def test_what_is_no_dump_is_left_out():
    calibrator = Calibrator(least=1)
    for value in (
        {},
        {"version": 1, "models": {"m": [1]}},
        {"version": 2, "tenants": []},
        {"version": 2, "tenants": {KEY: [], 5: {"m": [1]}}},
        {"version": 2, "tenants": {KEY: {"m": 3, "n": ["x", True, None], 5: [1]}}},
    ):
        calibrator.load(value)
    assert calibrator.drift() == {}


RATIOS = st.floats(0.5, 2.0)


@given(st.lists(RATIOS, min_size=20, max_size=60), st.integers(20, 40))
def test_the_ratio_is_the_lower_median_of_the_latest(ratios, size):
    found = taught(ratios, room=Room(1, 1, size)).correction("m")
    latest = [round(10_000 * ratio) / 10_000 for ratio in ratios[-size:]]
    assert found.ratio == statistics.median_low(latest)
    assert found.samples == len(latest)
    assert LEAST_MARGIN <= found.margin <= MOST_MARGIN


@given(st.lists(st.floats(0.95, 1.05), min_size=60, max_size=100), st.sampled_from([0.001, 1e6]))
def test_one_odd_report_changes_nothing_much(ratios, odd):
    found = taught([*ratios, odd]).correction("m")
    assert 0.95 <= found.ratio <= 1.05
    assert found.margin <= 0.12


@given(st.lists(RATIOS, min_size=100, max_size=100))
def test_the_margin_covers_all_but_a_few(ratios):
    found = taught(ratios).correction("m")
    covered = sum(ratio <= found.ratio * (1 + found.margin) + 1e-3 for ratio in ratios)
    assert covered >= 98 or found.margin == MOST_MARGIN


MODELS = st.dictionaries(st.text(max_size=4), st.lists(st.integers(), max_size=4), max_size=4)


@given(MODELS)
def test_loading_never_fails_and_stays_in_range(models):
    calibrator = Calibrator()
    calibrator.load({"version": 2, "tenants": {KEY: models}})
    assert set(calibrator.drift()) == {model for model, ratios in models.items() if ratios}
    assert all(0.25 <= found.ratio <= 4.0 for found in calibrator.drift().values())


def test_a_dump_names_no_tenant():
    calibrator = Calibrator()
    calibrator.observe(counted(1_000), 1_010, "acme")
    assert "acme" not in json.dumps(calibrator.dump())


REPORTS = st.lists(st.tuples(st.booleans(), st.sampled_from("abcd"), RATIOS), max_size=60)


@given(REPORTS)
def test_what_one_tenant_sends_never_changes_anothers_counts(reports):
    both, alone = (Calibrator(least=1, room=Room(2, 2, 5)) for _ in range(2))
    for mine, model, ratio in reports:
        sent = counted(10_000, model), round(10_000 * ratio)
        both.observe(*sent, "acme" if mine else "mallory")
        if mine:
            alone.observe(*sent, "acme")
    for model in "abcd":
        assert both.correction(model, "acme") == alone.correction(model, "acme")
