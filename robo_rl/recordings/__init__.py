"""What `robo-rl log` can do with a recording, one file per verb."""
