"""Table 5: the network found, trained from scratch with and without mimicry.

    python -m experiments.table5 --dataset digits --seeds 0 1 2

The paper reports the test accuracy of the network found, trained without mimicry and with it: 93.3 and
94.6 % on CIFAR-10, 73.9 and 78.1 % on CIFAR-100. Here each seed has its own network, and both trainings
of it start from the same weights.

Cost: the searches of Table 1, and two final trainings a seed.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["table5"], __doc__))
