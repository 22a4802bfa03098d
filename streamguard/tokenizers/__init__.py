"""Tokenizers behind one small Protocol, offline."""
