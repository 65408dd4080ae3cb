"""Physics engines of other people that a scene can fly its bodies in, instead of its own equations."""
