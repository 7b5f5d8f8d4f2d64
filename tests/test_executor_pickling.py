"""What can go to a worker and back, and the one line about what cannot."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from executor_data import CONFIG, UNFINDABLE, Fair, Lost, make_job, plain_sgd
from refusals import refuses

from eigen_jax.executor import ExecutorError
from eigen_jax.executor.pickling import pack, unpack


class OfMain(Fair):
    """Seems to be of the script that was started."""


OfMain.__module__ = "__main__"


def test_a_job_comes_back_equal_and_its_functions_are_the_very_same():
    job = make_job(Path("/nowhere"), config=dataclasses.replace(CONFIG, optimizer=plain_sgd))
    again = unpack(pack(job))
    assert again.config.optimizer is plain_sgd
    np.testing.assert_array_equal(jax.random.key_data(again.key), jax.random.key_data(job.key))
    assert dataclasses.replace(again, key=job.key) == job


@pytest.mark.parametrize(
    ("content", "line"),
    [
        *[(content, line) for content, line in UNFINDABLE if not isinstance(content, Lost)],
        ({"a": [OfMain()]}, "no worker can import __main__.OfMain; define it by a name of its own in a module"),
    ],
)
def test_what_no_worker_could_find_is_named_where_it_is_packed(content, line):
    with refuses(ExecutorError, line):
        pack(content)


def test_what_a_worker_does_not_find_is_named_where_it_is_unpacked():
    ((_, line),) = [each for each in UNFINDABLE if isinstance(each[0], Lost)]
    packed = pack(Lost())
    with refuses(ExecutorError, line):
        unpack(packed)
    with pytest.raises(ExecutorError, match=r"^a worker cannot read what it was sent \([^\n]*$"):
        unpack(packed[:-1])
