"""What people see of a run: its story, pictures, figures, and the log of all runs."""
