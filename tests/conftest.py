"""Settings of all tests: the same examples in every run, and no deadline on a busy machine."""

from hypothesis import settings
from postgres import postgres_server, postgres_url  # noqa: F401 - fixtures of all tests
from redis_server import redis_server  # noqa: F401

settings.register_profile("fairlead", derandomize=True, deadline=None)
settings.load_profile("fairlead")
