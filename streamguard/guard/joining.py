"""A call inside a guarded request: what it takes of the outer reservation, what it lacks."""

from __future__ import annotations

from dataclasses import replace

from streamguard.core.admission import Ask, Terms, demand
from streamguard.core.fund import Draw
from streamguard.guard.call import Call
from streamguard.guard.subject import Assessment


def join(assessment: Assessment, outer: Call) -> tuple[Draw, Assessment]:
    """Draw what the outer call holds; the assessment returned asks only for the shortage.

    The first inner call is the one the outer request stands for: its output is held to the
    outer allowance. Later ones (an agent's further steps) reserve what the outer call no
    longer covers.
    """
    want = max(assessment.terms.want, assessment.ceiling)
    first = not outer.fund.joined
    drawn = outer.fund.draw(assessment.input_tokens, want)
    lacking = Draw(assessment.input_tokens - drawn.input_tokens, want - drawn.output_tokens)
    ceiling = 0
    if first and drawn.output_tokens >= assessment.terms.least:
        lacking = Draw(lacking.input_tokens, 0)
        ceiling = min(want, outer.ceiling)
    # Web searches are no tokens to draw: what the outer call does not hold is asked for.
    extra = (assessment.rates.call_rate or 0) - (outer.assessment.rates.call_rate or 0)
    rates = replace(assessment.rates, call_rate=max(0, extra))
    terms = _terms(replace(assessment, rates=rates), drawn, lacking)
    return drawn, replace(assessment, terms=terms, ceiling=ceiling, within=outer.request_id)


def _terms(assessment: Assessment, drawn: Draw, lacking: Draw) -> Terms:
    terms = assessment.terms
    without = {"requests", "concurrency"}
    if lacking == (0, 0):
        if not assessment.rates.call_rate:
            return Terms(want=0, least=0)
        without |= {"tokens", "input_tokens", "output_tokens"}
    ask = Ask(
        count=replace(assessment.count, input_tokens=lacking.input_tokens),
        cap=lacking.output_tokens,
        reserve=0,
        choices=1 if lacking.output_tokens else 0,
        requests=0,
    )
    scope = assessment.subject.scope()
    limits = tuple(limit for limit in terms.limits if limit.unit not in without)
    return Terms(
        want=lacking.output_tokens,
        least=max(0, terms.least - drawn.output_tokens) if lacking.output_tokens else 0,
        demands=tuple(demand(limit, ask, scope, assessment.rates) for limit in limits),
        limits=limits,
    )
