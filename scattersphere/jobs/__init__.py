"""Jobs and runs of a Server: the definitions, their files, and the runs that are started from them."""
