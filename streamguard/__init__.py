"""Token-budget enforcement for LLM apps."""
