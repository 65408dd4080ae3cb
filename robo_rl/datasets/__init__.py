"""Data sets of transitions: their format, made from annotated logs or collected in a simulator, spoilt on purpose."""

from robo_rl.datasets.transitions import DataCard, DataSet, read, write

__all__ = ["DataCard", "DataSet", "read", "write"]
