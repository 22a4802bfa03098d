"""The gateway: a reverse proxy on the same guard, for apps whose code cannot be touched."""
