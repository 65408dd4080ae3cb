"""Outdoor weather: canonical series, readers, a generator, and which years serve for what."""
