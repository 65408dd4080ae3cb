"""Recordings in the rosbag2 shape, written and read without ROS."""
