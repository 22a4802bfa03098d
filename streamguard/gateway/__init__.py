"""The gateway: a reverse proxy on the same guard, for apps whose code cannot be touched.

The way of a call: ``app`` puts together what ``config`` says and follows its changes; ``gate`` asks
``keys`` who is calling and ``routes`` whether the path is served; the guard's middleware decides
and meters; ``proxy`` sends it to one of the ``upstreams``, with the right ``headers``, and the
response back. ``serving`` are the worker processes, ``telling`` and ``logs`` what they say.
"""
