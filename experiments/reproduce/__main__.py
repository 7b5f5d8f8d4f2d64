"""`python -m experiments.reproduce`."""

import sys

from experiments.reproduce.command import main

if __name__ == "__main__":
    sys.exit(main())
