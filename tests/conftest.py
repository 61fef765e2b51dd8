"""Settings of all tests: the same examples in every run, no deadline on a busy machine, and one thread for linear algebra, as the command has it."""

import os

# Read when numpy is first imported. On small matrices more threads wait for each other, at twice the cost.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from hypothesis import settings  # noqa: E402
from postgres import postgres_server, postgres_url  # noqa: E402, F401 - fixtures of all tests
from redis_server import redis_server  # noqa: E402, F401

settings.register_profile("fairlead", derandomize=True, deadline=None)
settings.load_profile("fairlead")
