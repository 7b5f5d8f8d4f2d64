"""Searches with AutoKeras's ImageClassifier for a given time.

    pip install autokeras tensorflow-cpu      # or KERAS_BACKEND=jax, without TensorFlow
    python -m experiments.rivals.autokeras --data-dir PATH --seconds 1800

AutoKeras has a largest number of trials and no time limit: here, the training under way ends with the batch after
which the time is over, and no other begins. It is measured on our validation images, so that AutoKeras trains the best
network on nothing again, and gives it with the weights of its best epoch. Some of its trials start from weights of
ImageNet; where these cannot be downloaded, they fail and others follow. Prints test accuracy, parameters, memory and
seconds as JSON; loading and the test take no part of the time.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import autokeras
import keras
import numpy as np

from experiments.commands import command
from experiments.rivals.common import load_parts, read_arguments, tell

_TRIALS = 1_000  # more than the time allows


class TimeLimit(keras.callbacks.Callback):
    """Ends the training of a network, and the search with it, when the time is over."""

    def __init__(self, oracle: Any, ends: float) -> None:
        super().__init__()
        self.oracle, self.ends = oracle, ends

    def __deepcopy__(self, memo: Any) -> "TimeLimit":
        return TimeLimit(self.oracle, self.ends)  # of the one search, where AutoKeras copies it for each trial

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.perf_counter() >= self.ends:
            self.model.stop_training = True
            self.oracle.max_trials = 1


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Searches and tests."""
    arguments = read_arguments("experiments.rivals.autokeras", (__doc__ or "").partition("\n")[0], argv)
    train, validation, test = load_parts(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search = autokeras.ImageClassifier(
            max_trials=_TRIALS, objective="val_accuracy", directory=folder, seed=arguments.seed
        )
        limit = TimeLimit(search.tuner.oracle, began + arguments.seconds)
        search.fit(*train, validation_data=validation, callbacks=[limit], verbose=2)
        seconds, trials = time.perf_counter() - began, search.tuner.oracle.trials.values()
        network = search.export_model()
        probabilities = network.predict(test[0], batch_size=500, verbose=0)
        tell(
            rival="AutoKeras ImageClassifier",
            test_accuracy=float(np.mean(probabilities.argmax(1) == test[1])),
            parameters=network.count_params(),
            seconds=round(seconds, 1),
            trials=sum(trial.status == "COMPLETED" for trial in trials),
            failed=sum(trial.status in ("FAILED", "INVALID") for trial in trials),
            images=len(train[1]),
            version=f"{autokeras.__version__}, keras {keras.__version__} on {keras.backend.backend()}",
        )


if __name__ == "__main__":
    sys.exit(main())
