"""How `robo-rl deploy` runs a policy: in this process, or as ROS 2 nodes."""
