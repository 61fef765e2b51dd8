"""Fairlead routes each request to the model, agent, adapter or tool that should answer it, learns from the outcome, and proves why.

Importing this loads neither torch nor a web server nor scikit-learn.
"""

from fairlead.errors import FairleadError
from fairlead.types import Feedback, Outcome, Plan, Profile, Query, Target, Trace
from fairlead.version import VERSION

__version__ = VERSION

__all__ = [
    "FairleadError",
    "Feedback",
    "Outcome",
    "Plan",
    "Profile",
    "Query",
    "Target",
    "Trace",
    "__version__",
]
