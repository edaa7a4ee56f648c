"""Metrics, definition first: overlap, surface distance, lesions found, and summaries over cases."""
