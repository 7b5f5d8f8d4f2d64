"""Figure 3: how the step size of the primary succession changes how fast it gets better.

    python -m experiments.figure3 --dataset digits --seeds 0 1 2
    python -m experiments.figure3 --dataset cifar10 --preset small --step-sizes 1 10 100 --generations 3

The paper compares step sizes, the most mutations a child, of 1, 2, 10 and 100, and of 50, 100 and
200: the best test accuracy a generation, mean and one standard deviation over five experiments.

Cost: a primary succession a step size and seed, 18 for three seeds.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["figure3"], __doc__))
