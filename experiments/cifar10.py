"""Evolves networks on CIFAR-10.

python -m experiments.cifar10                                    # downloads; Section 4.1 exactly
python -m experiments.cifar10 --preset smoke --data-dir PATH     # data on disk; minutes
"""

import sys

from experiments.runner import main

if __name__ == "__main__":
    sys.exit(main("cifar10"))
