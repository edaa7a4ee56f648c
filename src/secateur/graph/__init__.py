"""Which channels of a network stand and fall together."""
