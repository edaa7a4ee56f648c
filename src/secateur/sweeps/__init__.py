"""Comparisons of many networks: which ones, how each is made and measured, and how several processes share the work."""
