"""Logs become parameters with intervals, and intervals become randomization ranges."""
