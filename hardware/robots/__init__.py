"""One folder per robot."""
