"""How hand-designed networks are trained: as their authors did, or all alike."""

from dataclasses import replace

from eigen_jax.baselines import BASELINES
from experiments.settings import Settings

OWN, COMMON = "own", "common"
RECIPES = {
    OWN: "the authors' optimizer, schedule, loss, preprocessing and augmentation, on validation images as well",
    COMMON: "the preset's, the same for all networks",
}


def with_recipe(preset: str, settings: Settings, *, network: str, recipe: str) -> Settings:
    """The settings of a preset, by its name, as a difference from which a hand-designed network is trained.

    Its own recipe has the authors' length only in the preset "paper"; elsewhere the preset says how long, or for which
    budget, and the schedule is stretched to that. Crops and mirror images are the authors' on CIFAR alone, whose images
    bear them; batches in evaluation and the dtype are the preset's. Raises ConfigError where there is no such network.
    """
    baseline = BASELINES.find(network)
    folder = settings.run_dir.with_name(f"{settings.run_dir.name}-{network}-{recipe}")
    settings, search = replace(settings, run_dir=folder), settings.search
    if recipe == COMMON:
        train = replace(search.train, optimizer=baseline.common_optimizer)
        return replace(settings, search=replace(search, train=train))
    own = baseline.recipe_for(settings.data.name)
    kept = {name: getattr(search.train, name) for name in ("eval_batch_size", "dtype", "mimicry_weight", "temperature")}
    if not settings.data.name.startswith("cifar"):
        kept |= {name: getattr(search.train, name) for name in ("pad", "flip")}
    ends = own.steps // 5  # as in Section 4.1, though a network that is given meets no landmark
    search = replace(
        search,
        t1=ends,
        t2=own.steps - 2 * ends,
        t3=ends,
        final_steps=None if preset == "paper" else search.final_steps,
        final_on="train+validation",
        train=replace(own.train, **kept),
    )
    return replace(
        settings, teacher="none", search=search, data=replace(settings.data, preprocessing=own.preprocessing)
    )
