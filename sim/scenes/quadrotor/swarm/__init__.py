"""Many drones in one room: obstacles, neighbours, contacts, and goals that stand or move."""
