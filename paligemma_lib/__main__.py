"""`python -m paligemma_lib` is `paligemma`."""

import sys

from paligemma_lib.cli import main

sys.exit(main())
