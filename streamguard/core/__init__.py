"""Pure: counting, metering, windows, ledger. No clock, no network, no event loop.

What belongs together, the simplest first::

    text     tokens, characters, pretokens, prefixes, runs, segments, bounds; metering counts a
             text that arrives in pieces
    prompt   prompt is what is counted, counting counts it; families, estimate, calibration and
             sampling where no tokenizer is exact; count_cache; image_*, documents, typescript
    stream   wire is what every format gives; sse, json_*, strict_json read bytes; streams meters
             and cuts a response stream, replies a whole response; graceful ends at a sentence
    budget   windows, accounts and books are the state, ledger its only rules; admission, room and
             outlook decide before a call; fund, billing and pricing settle after it; meaning
             explains a limit; batch, alone and breaker for stores that are slow or away
    memory   answers, growth, learning, samples, oversized: bounded, and told the time
    others   planning*, fair_queue, fallback, alerts*, replay*, signing, disconnect
"""
