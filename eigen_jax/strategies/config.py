"""The settings of strategies: EIGEN's, and the few more that others need."""

import dataclasses

from eigen_jax.config import Config, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionConfig(Config):
    """How a population evolves, as far as its strategy asks; defaults are the paper's where it states them."""

    # P, and S below: sizes of arrays, which the most of them keep from filling the memory.
    population_size: int = setting(
        10, "individuals a generation", paper="10", at_least=1, at_most=10_000, flag="population"
    )
    primary_steps: int = setting(100, "m: most mutation steps a child in primary succession", paper="100", at_least=1)
    secondary_steps: int = setting(10, "m in the secondary succession", paper="10", at_least=1)
    first_rank: int = setting(5, "p of Eq. 1: the p-th best at T1 sets its threshold", paper="5", at_least=1, flag="p")
    second_rank: int = setting(2, "q of Eq. 2: the q-th best at T2 sets its threshold", paper="2", at_least=1, flag="q")
    # The ablation, and the way to a record that tells how well landmarks rank.
    extinction: bool = setting(True, "apply the thresholds, else all are trained to the end", paper="yes, Algorithm 1")
    redraws: int = setting(
        0,
        "the most times that a child by mutation is bred again which is its parent, another child of its generation or"
        " hopeless",
        paper="none",
        at_least=0,
        at_most=64,
    )
    min_flops_share: float = setting(
        0.0,
        "with redraws: a child with less than this share of the most FLOPs is hopeless",
        paper="none",
        at_least=0,
        at_most=1,
    )
    candidates: int = setting(
        1,
        "children bred for each place, of which the one with the most layers of weights and a kernel of several pixels"
        " is trained",
        paper="1",
        at_least=1,
        at_most=64,
    )
    elitism: bool = setting(False, "a parent gives way only to a fitter child", paper="no, Algorithm 1")
    saturation_gain: float = setting(
        0.001, "a succession ends when the best accuracy, a fraction, gains less than this over the window", at_least=0
    )
    saturation_window: int = setting(5, "the window, in generations", at_least=1, at_most=10_000)
    max_primary_generations: int = setting(
        1_000, "the most generations of the primary succession", paper="no limit stated", at_least=1
    )
    max_secondary_generations: int = setting(
        1_000, "the most generations of the secondary succession; 0: none", paper="no limit stated", at_least=0
    )
    max_duplication_generations: int = setting(1, "the most generations of gene duplication; 0: none", at_least=0)
    # Many repeats of a block leave no combination that fits.
    max_repeats: int = setting(3, "the most times that a block stands in a row in duplicates", at_least=2, at_most=16)
    # Thresholds that small networks raised would extinguish larger ones early, whatever they would become.
    extinguish_duplicates: bool = setting(False, "apply the thresholds to duplicates, else all trained to the end")

    # Shares of the search's part of a budget, without which no phase ends by them.
    secondary_from: float = setting(
        0.6,
        "share of the search's budget from which on primary succession is over; 0: there is none",
        paper="no budget",
        at_least=0,
    )
    duplication_from: float = setting(
        0.9, "share of the search's budget from which on succession is over", paper="no budget", at_least=0
    )

    # Of the other strategies, which know no phases.
    max_children: int = setting(
        500, "children after which a search but EIGEN's ends, if no budget ends it before", paper="no other", at_least=1
    )
    sample_size: int = setting(
        3, "individuals that a parent is the fittest of, where such samples are drawn", paper="no other", at_least=1
    )
    # Not the number of workers, on which the outcome would then depend.
    ahead: int = setting(
        4,
        "children in training at a time, at most, of strategies that breed one after another",
        paper="no other",
        at_least=1,
        at_most=10_000,
    )
