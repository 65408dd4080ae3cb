"""One file per foreign format: `FORMAT`, `ABOUT`, `recognises(path, head)` and `load(path, options)`."""
