"""The output reserve is learnt: what streams usually use is held at first, more on the way."""

from __future__ import annotations

from dataclasses import replace

from streamguard.core.learning import OutputLearner
from streamguard.guard.assess import Assessment
from streamguard.guard.settings import Settings, thinks_unseen
from streamguard.guard.top_up import HEAD_START, SLACK
from streamguard.usage import Usage


class AdaptiveReserve:
    """Learns outputs by tenant, model and feature; a call that can be topped up holds the usual."""

    def __init__(self, settings: Settings) -> None:
        self._on = settings.adaptive_reserve
        self._learner = OutputLearner()

    def learn(self, assessment: Assessment, outcome: str, usage: Usage) -> None:
        """Note how long an output was; one that was broken off says nothing."""
        if outcome in ("completed", "cut") and usage.output_tokens is not None:
            self._learner.learn(*assessment.subject.kind, usage.output_tokens)

    def adapted(self, assessment: Assessment) -> Assessment:
        """The call with the usual output as its first hold, and the whole as its ceiling."""
        request, terms = assessment.subject.request, assessment.terms
        fixed = not self._on or not request.stream or not terms.demands
        if fixed or thinks_unseen(request.model):
            return assessment
        usual = self._learner.estimate(*assessment.subject.kind)
        first = max(usual or terms.want, terms.least) + SLACK + HEAD_START
        if first >= terms.want:
            return assessment
        first_terms = replace(terms, want=first, least=min(first, terms.least + SLACK))
        return replace(assessment, terms=first_terms, ceiling=terms.want)


def with_slack(assessment: Assessment) -> Assessment:
    """Where the provider cannot be held to a cap, the chunk that is cut must be held too."""
    terms = assessment.terms
    if assessment.subject.steered or not terms.demands or not terms.want:
        return assessment
    if assessment.ceiling:  # the first hold has it
        return replace(assessment, ceiling=assessment.ceiling + SLACK)
    more = replace(terms, want=terms.want + SLACK, least=terms.least + SLACK)
    return replace(assessment, terms=more)
