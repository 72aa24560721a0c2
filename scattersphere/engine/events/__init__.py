"""What happens to runs and to the Server, as numbered streams that are made only for those who read."""
