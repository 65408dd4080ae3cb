"""Data sets of transitions: their format, made from annotated logs or collected in a simulator, spoilt on purpose."""
