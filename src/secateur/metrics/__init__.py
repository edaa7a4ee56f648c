"""Metrics, definition first: overlap, surface distance, lesions and instances found, maps, and summaries over cases."""
