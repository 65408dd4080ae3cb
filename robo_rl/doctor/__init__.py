"""Checks of this machine: what works, what does not, and the one line that mends it."""
