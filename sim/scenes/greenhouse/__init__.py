"""Greenhouses with lettuce on real and made-up weather."""
