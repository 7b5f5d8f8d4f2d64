"""All tables and figures of the paper on one data set, or some of them.

    python -m experiments.reproduce --dataset digits --seeds 0 1 2
    python -m experiments.reproduce --dataset cifar10 --preset small --data-dir PATH --only table3 figure4

Says first which runs are needed and which exist. A run that several need is made once; interrupted,
the same command goes on. --help of each, such as `python -m experiments.table3 --help`, says what it
is.

Cost, by seed: a search, one without mimicry, three or four final trainings, six primary successions;
and a teacher for all.
"""

import sys

from experiments.paper.catalogue import EXPERIMENTS
from experiments.paper.command import main

if __name__ == "__main__":
    sys.exit(main(list(EXPERIMENTS), __doc__))
