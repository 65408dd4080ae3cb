"""What a machine is and says."""
