"""The settings of a Django project that has no more than it needs to show jobs."""

SECRET_KEY = "an example has no secrets"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "django_site.urls"
INSTALLED_APPS = ["django_site"]
USE_TZ = True
