"""One object: preflight, reserve, meter, settle.

The way of a call, each step with its file::

    engine             what the shells hold: ``preflight``, ``begin``
    subject            the request as the guard sees it, then with its count and its terms
    recourse           around the reserve: a model by size, fallbacks, the queue (waiting)
    reserve            preflight, then hold; inside a guarded request only what it lacks (joining)
      preflight        count (counter), price (prices), trim (fitting), hold against the limits
      learning         hold what is usual instead of the worst case
    call               from the grant to the one settle
      metered, top_up  its response: count, cut, hold more on the way
      deadlines        its time budgets

What all calls share stands in ``shared``: ``settings``, the store behind ``bookkeeper``, the sinks
behind ``teller``, and what is remembered (``refusals``, ``answer_cache``, ``learning`` with its
``notebook``). ``numbers`` are what clients see of all this, ``context`` and ``retry_tally`` what
code inside a request or a retry loop does. Nothing here knows ASGI or a client library.
"""
