"""Figure 4: a search, generation by generation.

    python -m experiments.figure4 --dataset digits --seeds 0 1 2

The paper shows the best test accuracy a generation, the parameters of every individual as dots, and
where the primary succession ends. Here the best is the best by validation, so its test accuracy can
fall.

Cost: a search a seed, those of Table 1.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["figure4"], __doc__))
