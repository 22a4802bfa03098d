"""Helpers that several test folders share: real servers, a real upstream, sample texts."""
