"""One folder per scene; the folder's name is the registration."""
