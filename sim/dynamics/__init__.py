"""Equations of motion as pure batched functions."""
