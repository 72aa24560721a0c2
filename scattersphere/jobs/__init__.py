"""What a Server knows of jobs: the definitions, their files, and the runs that are started from them."""
