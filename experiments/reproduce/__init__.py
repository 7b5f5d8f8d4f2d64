"""Tables and figures of the paper on one data set: all of them, or those that are named.

    python -m experiments.reproduce --dataset digits --seeds 0 1 2
    python -m experiments.reproduce table3 figure4 --dataset cifar10 --preset small --data-dir PATH
    python -m experiments.reproduce figure3 --dataset cifar10 --preset small --step-sizes 1 10 --generations 3

Says first which runs are needed and which exist. A run that several need is made once; interrupted,
the same command goes on.

Cost, by seed: a search, one without mimicry, three or four final trainings, six primary successions;
and a teacher for all.
"""
