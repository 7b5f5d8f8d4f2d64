"""Table 4: with and without gene duplication.

    python -m experiments.table4 --dataset digits --seeds 0 1 2

The paper reports accuracy and parameters before duplication and after: 93.7 % (1.2 M) and 94.6 % (2.6 M)
on CIFAR-10, 76.9 % (6.1 M) and 78.1 % (11.8 M) on CIFAR-100. Here stand the best network of both
successions, the best duplicate even where it lost, and the network found; each is trained again from
scratch, so that they are compared on equal terms.

Cost: the searches of Table 1, and up to two final trainings a seed.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["table4"], __doc__))
