"""One module per command of robo-rl."""
