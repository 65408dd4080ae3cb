"""The report of a demo run: pictures and figures on one self-contained page."""
