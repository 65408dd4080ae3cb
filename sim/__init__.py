"""Worlds: dynamics, sensors, scenes, randomization and physics back ends."""
