"""Pure: counting, metering, windows, ledger. No clock, no network, no event loop."""
