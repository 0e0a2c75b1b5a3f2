"""The command `paligemma` as a script, for tests that start it in several processes."""

import sys

from paligemma_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
