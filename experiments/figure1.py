"""Figure 1: a drawing of the network found, its layers and blocks.

    python -m experiments.figure1 --dataset digits

It is that of the first seed.

Cost: the first search of Table 1.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["figure1"], __doc__))
