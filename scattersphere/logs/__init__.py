"""The lines that tasks write: taken from loggers and prints, kept, spilled; failures as text."""
