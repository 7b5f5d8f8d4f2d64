"""Table 3: EIGEN with mimicry against EIGEN without, all else the same.

    python -m experiments.table3 --dataset digits --seeds 0 1 2
    python -m experiments.table3 --dataset cifar10 --preset small --data-dir PATH --seeds 0 1

The paper reports the accuracy of both without gene duplication: 92.4 and 93.7 % on CIFAR-10, 74.8 and
76.9 % on CIFAR-100. So the best networks before duplication stand beside those found. Without mimicry
means: neither in the search nor in the final training.

Cost: the searches of Table 1, and one more a seed without a teacher.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["table3"], __doc__))
