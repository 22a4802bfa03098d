"""Where usage events go: one file a sink."""
