"""The options of a Server, checked."""
