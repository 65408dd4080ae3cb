"""The page on which a person marks a log: signals from pyramids, pictures, the pose, and tiers of marks."""
