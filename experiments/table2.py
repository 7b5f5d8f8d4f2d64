"""Table 2: primary succession alone against primary and secondary succession.

    python -m experiments.table2 --dataset digits --seeds 0 1 2

The paper reports the accuracy when each succession has ended: 93.3 and 93.7 % on CIFAR-10, 74.7 and
76.9 % on CIFAR-100. Both are in the record of one search, with the networks trained and the compute
until then.

Cost: a search a seed, those of Table 1.
"""

import sys

from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(["table2"], __doc__))
