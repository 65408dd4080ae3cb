"""Logs for other programs: tables, and episodes for libraries that learn from demonstrations."""
