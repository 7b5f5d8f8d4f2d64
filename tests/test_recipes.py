"""The settings with which hand-designed networks are trained, by presets and recipes."""

import numpy as np
import pytest

from eigen_jax.baselines import BASELINES
from experiments.presets import PRESETS
from experiments.recipes import with_recipe


@pytest.mark.parametrize("network", BASELINES)
def test_the_own_recipe_is_that_of_the_authors_and_stretched_to_what_is_asked_for(network):
    recipe = BASELINES[network].recipe
    whole = with_recipe("paper", PRESETS["cifar10"]["paper"], network=network, recipe="own")
    config = whole.search_config()
    assert config.final_until == config.landmarks[-1] == recipe.steps
    train = config.final_train(config.final_until)
    assert (train.optimizer, train.learning_rate, train.decay_steps) == (
        recipe.train.optimizer, recipe.train.learning_rate, recipe.train.decay_steps,
    )  # fmt: skip
    assert (train.batch_size, train.pad, train.flip) == (recipe.train.batch_size, recipe.train.pad, True)
    assert (whole.data.preprocessing, whole.teacher) == (recipe.preprocessing, "none")
    assert str(whole.run_dir) == f"runs/cifar10-paper-{network}-own"
    small = with_recipe("small", PRESETS["cifar10"]["small"], network=network, recipe="own").search_config()
    assert small.final_until == 1_000
    stretched = small.final_train(1_000).decay_steps
    np.testing.assert_allclose(stretched, np.array(recipe.train.decay_steps) * 1_000 / recipe.steps, atol=6)
    # Mirrored digits are no digits.
    digits = with_recipe("small", PRESETS["digits"]["small"], network=network, recipe="own").search.train
    assert (digits.pad, digits.flip, digits.eval_batch_size) == (1, False, 240)


def test_the_common_recipe_is_the_presets_but_for_rates_without_which_heads_diverge():
    for network in BASELINES:
        preset = PRESETS["cifar100"]["hour"]
        common = with_recipe("hour", preset, network=network, recipe="common")
        before, after = preset.outcome(), common.outcome()
        changed = {name for name in before if before[name] != after[name]}
        assert changed == ({"optimizer"} if network == "dsn" else set())
        assert str(common.run_dir) == f"runs/cifar100-hour-{network}-common"
