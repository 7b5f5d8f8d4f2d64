"""Evolves networks on CIFAR-100.

python -m experiments.cifar100                                    # downloads; an evening, or with a GPU Section 4.1
python -m experiments.cifar100 --preset smoke --data-dir PATH     # data on disk; minutes
"""

import sys

from experiments.runner import main

if __name__ == "__main__":
    sys.exit(main("cifar100"))
