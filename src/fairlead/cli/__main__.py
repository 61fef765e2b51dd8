"""`python -m fairlead.cli`: the same as `fairlead`."""

import sys

from fairlead.cli import main

sys.exit(main())
