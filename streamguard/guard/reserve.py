"""Reserve: hold what a request may cost at most, or what it lacks of the call around it."""

from __future__ import annotations

from dataclasses import replace

from streamguard.core.accounts import Grant, Refusal
from streamguard.core.fund import Draw
from streamguard.errors import StoreUnavailableError
from streamguard.guard.call import Call
from streamguard.guard.context import current_call
from streamguard.guard.joining import join
from streamguard.guard.learning import with_slack
from streamguard.guard.preflight import assess, window_error
from streamguard.guard.shared import Shared
from streamguard.guard.subject import Assessment, Subject


async def reserve(shared: Shared, subject: Subject) -> Call:
    """Preflight and reserve. Inside a guarded request, join its reservation.

    Raises:
        StreamGuardError: the refusal; nothing is held then.
    """
    assessment = shared.learning.adapted(await assess(shared, subject))
    await shared.open()
    outer, drawn = current_call.get(), None
    if outer is None or outer.finished:
        outer, assessment = None, with_slack(assessment)
    else:
        drawn, assessment = join(assessment, outer)
    try:
        grant = await _hold(shared, assessment)
    except BaseException:
        if outer is not None and drawn is not None:
            outer.fund.put_back(drawn, Draw(0, 0))
        raise
    if not grant.balances:  # nothing is held: nothing is to be settled
        terms = replace(assessment.terms, demands=(), limits=())
        assessment = replace(assessment, terms=terms)
    call = Call(shared, assessment, grant, outer=outer, drawn=drawn)
    shared.teller.admitted(assessment, call.ceiling, grant)
    shared.teller.crossed(assessment, grant)
    return call


async def _hold(shared: Shared, assessment: Assessment) -> Grant:
    subject, terms = assessment.subject, assessment.terms
    try:
        decision = await shared.books.reserve(subject.request_id, terms)
    except StoreUnavailableError:
        if not shared.settings.observe:
            raise
        return Grant(terms.want, ())
    if isinstance(decision, Refusal):
        raise window_error(decision, terms.limits[decision.which], subject.scope())
    return decision
