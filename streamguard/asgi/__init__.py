"""The pure-ASGI middleware."""
