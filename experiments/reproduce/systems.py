"""The systems of Table 1: what the paper prints of each, and its runs under one protocol.

Rows are the networks of `BASELINES` that the table prints, the teacher, and the strategies of `STRATEGIES` that compare
one objective. A run has the budget for everything: a search with its final training, or the training of a network.

The common recipe is the settings' for all: their `TrainConfig`, no mimicry, and their final training of searches, as
long as they say: what a budget leaves would train a network of hardly any FLOPs for millions of steps. By its own
recipe, a network is trained as its authors did; a search whose individuals inherit weights is tested with those; EIGEN
mimics. Of other searches it is the common one.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import NamedTuple

from eigen_jax.baselines import BASELINES
from eigen_jax.networks import NamedNetwork
from eigen_jax.registry import check_there_is
from eigen_jax.search import training_flops
from eigen_jax.strategies import STRATEGIES, Strategy
from experiments.recipes import COMMON, OWN, RECIPES, with_recipe
from experiments.reproduce.request import GENERATIONS, Request
from experiments.reproduce.runs import HandDesigned, Search, Study, is_finished
from experiments.settings import Settings

_TYPICAL = 0.25  # of the most FLOPs that a network may have, what the networks of a search are taken to have


class Printed(NamedTuple):
    """What Table 1 prints of a system on one data set; None and "" where it prints nothing."""

    accuracy: float | None = None  # of the test images, a fraction
    parameters: float | None = None
    compute: str = ""  # as it stands there; GPUH are GPU hours


class Known(NamedTuple):
    title: str
    cifar10: Printed = Printed()
    cifar100: Printed = Printed()
    mimics: bool = False  # whether mimicry is its own

    def printed(self, dataset: str) -> Printed:
        """On CIFAR-100 for that, on CIFAR-10 for all other data sets."""
        return self.cifar100 if dataset == "cifar100" else self.cifar10


# What is not of the registries: searches by the name of their strategy, in the order of the rows; others come last.
SEARCHES: Mapping[str, Known] = {
    "eden": Known("EDEN", Printed(0.745, 0.2e6)),
    "genetic-cnn": Known("Genetic CNN", Printed(0.929, None, "408 GPUH"), Printed(0.710, None, "408 GPUH")),
    "large-scale": Known(
        "Large-Scale Evolution", Printed(0.946, 5.4e6, "64,000 GPUH"), Printed(0.770, 40.4e6, "> 65,536 GPUH")
    ),
    "ag-evolution": Known("AG-Evolution", Printed(0.905, None, "72 GPUH"), Printed(0.669, None, "136 GPUH")),
    "random": Known("random search"),
    "aging": Known("aging evolution"),
    "eigen": Known("EIGEN", Printed(0.946, 2.6e6, "48 GPUH"), Printed(0.781, 11.8e6, "120 GPUH"), mimics=True),
}
TEACHER = Known("teacher, four Wide-DenseNet-BC", Printed(0.960, 17.2e6), Printed(0.820, 17.2e6))


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """A row of the table."""

    name: str  # in its registry; "" for the teacher
    title: str
    about: str  # where it comes from, or what it does
    printed: Printed
    exact: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    network: NamedNetwork | None = None  # of a hand-designed one
    own: str = ""  # what its own recipe is
    # By recipe, a run a seed. A recipe that is the common one for this system has the very runs of that.
    runs: Mapping[str, tuple[Search | HandDesigned, ...]] = dataclasses.field(default_factory=dict)


def names() -> tuple[str, ...]:
    """The systems that have runs, in the order of the rows."""
    designed = [name for name, each in BASELINES.items() if each.published]
    compared = [name for name, kind in STRATEGIES.items() if kind.max_objectives == 1]
    unknown = (name for name in compared if name not in SEARCHES)
    return (*designed, *(name for name in SEARCHES if name in compared), *unknown)


def systems(study: Study) -> tuple[System, ...]:
    """The rows of the table, the teacher between the hand-designed networks and the searches."""
    designed = [_designed(study, name) for name in names() if name in BASELINES]
    searches = [_search(study, name) for name in names() if name not in BASELINES]
    about = 'Ren et al., CVPR 2019, Section 4.1; Huang et al., "Densely Connected Convolutional Networks", CVPR 2017'
    teacher = System(
        name="",
        title=TEACHER.title,
        about=about,
        printed=TEACHER.printed(study.request.settings.data.name),
        exact=("four members, their layers and so their parameters",),
        decided=("the training, which the paper does not state, as in Huang et al.",),
    )
    return (*designed, teacher, *searches)


def runs(study: Study) -> tuple[Search | HandDesigned, ...]:
    """Those that a request asks for, by its systems and recipes, and all others that have finished."""
    request = study.request
    return tuple(
        run
        for system in systems(study)
        for recipe, own in system.runs.items()
        for run in own
        if (recipe in request.recipes and system.name in (request.only or names())) or is_finished(run.folder)
    )


def check(request: Request) -> None:
    """Raises EigenError for a name that is no system's, and for settings with which one that is asked for cannot be."""
    for name in request.only:
        check_there_is("system", name, names())
    for run in runs(Study(request)):
        run.settings.check()


def budget(settings: Settings) -> float:
    """Training FLOPs of each run: those of the settings, or about those that EIGEN takes with them.

    A generation of EIGEN trains P networks to T1, p of them on to T2 and q to the end. It is taken to be of networks of
    a quarter of the most FLOPs, and the search to have as many generations as the settings allow, at most 20, and a
    final training; in two digits.
    """
    search, evolution = settings.search, settings.search.evolution
    if search.budget is not None:
        return search.budget
    size, limits = evolution.population_size, (evolution.first_rank, evolution.second_rank)
    counts = (size, *(min(size, limit) for limit in limits))
    steps = sum(count * more for count, more in zip(counts, (search.t1, search.t2, search.t3), strict=True))
    most = evolution.max_primary_generations + evolution.max_secondary_generations
    steps = steps * min(GENERATIONS, most + evolution.max_duplication_generations) + search.final_until
    return float(f"{training_flops(int(_TYPICAL * search.genome.max_flops), search.train.batch_size) * steps:.1e}")


def common(settings: Settings) -> Settings:
    """The settings with the recipe that all systems share, and the budget."""
    search = dataclasses.replace(settings.search, budget=budget(settings))
    return dataclasses.replace(settings, teacher="none", teacher_logits=None, search=search)


def _designed(study: Study, name: str) -> System:
    baseline, settings = BASELINES.find(name), study.request.settings
    assert baseline.published is not None
    network = NamedNetwork(name=name, input_shape=settings.data.image_shape)
    own: dict[str, tuple[HandDesigned, ...]] = {}
    for recipe in (OWN, COMMON):
        changed = with_recipe(study.request.preset, common(settings), network=name, recipe=recipe)
        what = f"{baseline.title}, {recipe} recipe"
        own[recipe] = study.trainings(changed, what=what, slug=f"{name}-{recipe}", network=network, recipe=recipe)
    is_100, figures = settings.data.name == "cifar100", baseline.published
    return System(
        name=name,
        title=baseline.title,
        about=baseline.source,
        printed=Printed(figures.cifar100 if is_100 else figures.cifar10, figures.parameters),
        exact=baseline.exact,
        decided=baseline.decided,
        network=network,
        own=f"{RECIPES[OWN]}; its schedule is stretched to the budget",
        runs=own,
    )


def _search(study: Study, name: str) -> System:
    kind, known, settings = STRATEGIES.find(name), SEARCHES.get(name, Known(name)), study.request.settings
    shared = dataclasses.replace(_with_fewer_ahead(common(settings)), strategy=name)
    own, how = shared, []
    if known.mimics and settings.teacher != "none":
        own = dataclasses.replace(own, teacher=settings.teacher, teacher_logits=settings.teacher_logits)
        how.append("networks mimic a teacher, which the budget pays for as well")
    if kind.identities is not Strategy.identities and own.search.final_steps != 0:
        own = dataclasses.replace(own, search=dataclasses.replace(own.search, final_steps=0))
        how.append("no final training: the best individual is tested with the weights that it inherited and trained on")
    if kind.training is not Strategy.training:
        how.append("genes that set how an individual is trained do so by both recipes, in the final training as well")
    alike = study.searches(shared, what=f"{known.title}, {COMMON} recipe", slug=name)
    others = study.searches(own, what=f"{known.title}, {OWN} recipe", slug=name)
    about, exact, decided = _told(kind)
    return System(
        name=name,
        title=known.title,
        about=about,
        printed=known.printed(settings.data.name),
        exact=exact,
        decided=decided,
        own="; ".join([*(["as common"] if own == shared else []), *how]),
        runs={OWN: alike if own == shared else others, COMMON: alike},
    )


def _with_fewer_ahead(settings: Settings) -> Settings:
    """Fewer children in training ahead than there are in a population, so that some are there to compete."""
    evolution = settings.search.evolution
    ahead = min(evolution.ahead, max(1, evolution.population_size - 1))
    search = dataclasses.replace(settings.search, evolution=dataclasses.replace(evolution, ahead=ahead))
    return dataclasses.replace(settings, search=search)


def _told(kind: type[Strategy]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The first paragraph of a strategy's docstring, and what of it those say that begin with "Exact" and "Decided"."""
    paragraphs = [" ".join(each.split()) for each in (inspect.getdoc(kind) or "").split("\n\n")]

    def after(word: str) -> tuple[str, ...]:
        return tuple(each.removeprefix(f"{word}: ") for each in paragraphs if each.startswith(f"{word}: "))

    return paragraphs[0], after("Exact"), after("Decided")
