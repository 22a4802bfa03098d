"""Planning a context window: components, strategies, plans."""

from streamguard.core.planning import ComponentBudget
from streamguard.core.planning_keep import (
    KeepEdges,
    LastMessages,
    LastTokens,
    Summarise,
    by_score,
    newest_first,
    oldest_first,
)
from streamguard.planner.chunks import Chunk, Chunks
from streamguard.planner.plan import Plan
from streamguard.planner.planner import BudgetPlanner
from streamguard.planner.report import Report

__all__ = [
    "BudgetPlanner",
    "Chunk",
    "Chunks",
    "ComponentBudget",
    "KeepEdges",
    "LastMessages",
    "LastTokens",
    "Plan",
    "Report",
    "Summarise",
    "by_score",
    "newest_first",
    "oldest_first",
]
