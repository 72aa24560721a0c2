"""A Django project that runs jobs."""
