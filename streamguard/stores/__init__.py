"""Where budgets are kept: one file a store."""
