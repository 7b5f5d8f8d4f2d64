"""Table 1: EIGEN's test accuracy, parameters and compute on a data set.

    python -m experiments.table1 --dataset digits --seeds 0 1 2
    python -m experiments.table1 --dataset cifar100 --preset paper

The paper: 94.6 % with 2.6 M parameters in 48 hours of a P100 on CIFAR-10, 78.1 % with 11.8 M in 120
hours on CIFAR-100. These stand beside what was measured where data set and schedule are the paper's.
Compute is told apart: search, teacher, final training.

Cost: a search a seed, and a teacher for all. The other experiments find these searches again.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["table1"], __doc__))
