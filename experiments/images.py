"""Evolves networks on pictures of your own: a folder with a folder a class, a CSV of files and labels, or an .npz.

python -m experiments.images --data-dir PATH
python -m experiments.images --source tfds:NAME
"""

import sys

from experiments.runner import main

if __name__ == "__main__":
    sys.exit(main("images"))
