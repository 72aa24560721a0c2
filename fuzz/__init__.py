"""Coverage-guided fuzzing of whatever reads bytes of strangers: `python -m fuzz [SECONDS] [TARGET...]`."""
