"""A search of AutoKeras's ImageClassifier.

    pip install autokeras tensorflow-cpu tensorboard keras==3.10.0    # AutoKeras 3.0.0 fails with Keras 3.15

AutoKeras has a largest number of trials and no time limit: here, the training under way ends with the batch after
which the time is over, is measured, and no other begins. It is given our validation images, so that the network it
found is not trained again, and has the weights of its best epoch. Some trials start from weights of ImageNet; where
these cannot be downloaded, they fail.
"""

import tempfile
import time
from typing import Any

import autokeras
import keras
import numpy as np

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


def run(train: Any, validation: Any, test: Any, *, seconds: float, seed: int) -> dict[str, Any]:
    """Searches and tests; each part is images [N, H, W, C] float32 and labels [N] int32."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search = autokeras.ImageClassifier(max_trials=_TRIALS, objective="val_accuracy", directory=folder, seed=seed)
        limit = TimeLimit(search.tuner.oracle, began + seconds)
        search.fit(*train, validation_data=validation, callbacks=[limit], verbose=2)
        taken, trials = time.perf_counter() - began, list(search.tuner.oracle.trials.values())
        network = search.export_model()
        probabilities = network.predict(test[0], batch_size=500, verbose=0)
    return {
        "seconds": round(taken, 1),
        "test_accuracy": float(np.mean(probabilities.argmax(1) == test[1])),
        "parameters": network.count_params(),
        "trials": sum(trial.status == "COMPLETED" for trial in trials),
        "failed": sum(trial.status in ("FAILED", "INVALID") for trial in trials),
        "version": f"{autokeras.__version__}, keras {keras.__version__} on {keras.backend.backend()}",
    }
