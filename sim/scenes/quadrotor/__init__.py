"""Quadrotors in free space: `quadrotor/hover`."""
