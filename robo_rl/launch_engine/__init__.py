"""An embedded engine for the documented YAML subset of ROS 2 launch: parse, resolve, run."""
