"""Guarding LLM clients and streams."""
