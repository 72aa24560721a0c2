"""What the objects share that a host program holds: where they live, how they begin and end, how they are set."""
