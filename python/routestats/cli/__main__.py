"""``python -m routestats.cli``."""

import sys

from routestats.cli import main

sys.exit(main())
