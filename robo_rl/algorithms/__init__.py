"""Losses and update rules; none of them knows a scene."""
