"""Evolves networks on scikit-learn's handwritten digits (8 x 8 pixels), which need no download.

python -m experiments.digits
python -m experiments.digits --preset smoke --run-dir runs/look --seed 1
"""

import sys

from experiments.runner import main

if __name__ == "__main__":
    sys.exit(main("digits"))
