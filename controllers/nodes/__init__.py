"""The ROS 2 face of every robot and policy."""
