"""Where attempts run: on the loop, in threads, in processes, or where the host says."""
