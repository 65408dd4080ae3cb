"""One file per algorithm that wires losses, networks and loop; the file's name is the registration (`--algo NAME`)."""
