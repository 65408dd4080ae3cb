"""Policies as C99: one file without heap or library that gives the same bits on a workstation and a microcontroller."""
