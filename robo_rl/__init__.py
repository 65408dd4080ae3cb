"""Learning and the user's front door."""
