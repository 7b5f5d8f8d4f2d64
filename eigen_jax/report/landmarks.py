"""How well early landmarks rank, and what extinction at them saves and throws away; from the records of runs."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from eigen_jax.lineage import Fate, Individual
from eigen_jax.report.files import ReportError
from eigen_jax.report.summary import is_duplicate
from eigen_jax.report.tables import NOTHING, Cell, Column, Table, Unit, measured
from eigen_jax.strategies import EvolutionConfig, extinguish, update_threshold

LEAST_PAIRS = 3  # of two numbers each, that a rank correlation is told of
RANKS = (1, 2, 3, 5, 7, 10)  # p and q that are replayed

Runs = Mapping[str, Sequence[Individual]]  # by name, such as that of the folder
Numbers = np.ndarray  # [N] float


def spearman(first: Numbers, second: Numbers) -> float | None:
    """Spearman's rank correlation of N pairs, equal values at their mean rank; None where one side is constant."""

    def ranks(values: Numbers) -> Numbers:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return _cosine(*(own - own.mean() for own in map(ranks, (first, second))))


def kendall(first: Numbers, second: Numbers) -> float | None:
    """Kendall's tau-b of N pairs; None where one side is constant."""
    return _cosine(*(np.sign(values[:, None] - values) for values in (first, second)))


def _cosine(one: Numbers, other: Numbers) -> float | None:
    scale = math.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale else None


def study_landmarks(runs: Runs, *, ranks: Sequence[int] = RANKS) -> dict[str, Table]:
    """What the records of runs of equal landmarks tell, each run counted as one measurement of every number.

    "agreement" has how fitness at each landmark, and what networks cost, agree with fitness at the last one. "replay",
    where all were trained to three landmarks, has what Algorithm 1 with p and q of `ranks` would have saved and lost.
    "extinct", where there are early landmarks, has who went extinct at them, by size.

    Raises ReportError where a run has nobody, or fewer than `LEAST_PAIRS` different networks, at the last landmark, or
    other landmarks than the first run.
    """
    landmarks = {name: steps_of(individuals) for name, individuals in runs.items()}
    first, steps = next(iter(landmarks.items()))
    for name, own in landmarks.items():
        if own != steps:
            shown = [", ".join(map(str, each)) for each in (steps, own)]
            told = f"{first} measured after {shown[0]} steps, {name} after {shown[1]}"
            raise ReportError(f"{told}; name runs of the same landmarks")
        if (networks := len(_finished(runs[name], len(steps)))) < LEAST_PAIRS:
            told = f"{name} has {networks} different networks that survived to the end; ranks need {LEAST_PAIRS}"
            raise ReportError(f"{told}: run it longer, or without extinction")
    records = list(runs.values())
    agreement = _agreement(records, steps)
    # By default, extinction spares duplicates.
    records = [[each for each in record if not is_duplicate(each)] for record in records]
    if len(steps) == 1:
        return {"agreement": agreement}
    if len(steps) != 3 or not all(map(is_full, records)):
        ended = [np.array([len(each.landmarks) - 1 for each in record]) for record in records]
        extinct = _extinctions("Who went extinct, by size", records, ended, steps)
        return {"agreement": agreement, "extinct": extinct}
    size = max(each.index + 1 for record in records for each in record)
    grid = [(p, q) for p in ranks for q in ranks if q <= p <= size]
    paper = tuple(min(rank, size) for rank in (EvolutionConfig.first_rank, EvolutionConfig.second_rank))
    caption = f"Who would have gone extinct with p = {paper[0]} and q = {paper[1]}, by size"
    extinct = _extinctions(caption, records, [replay(record, paper) for record in records], steps)
    return {"agreement": agreement, "replay": _replays(records, steps, grid), "extinct": extinct}


def is_full(individuals: Sequence[Individual]) -> bool:
    """Whether all of a record were trained to the last landmark, but for failures."""
    number = len(steps_of(individuals))
    return all(each.fate is Fate.FAILED or len(each.landmarks) == number for each in individuals)


def replay(individuals: Sequence[Individual], ranks: Sequence[int]) -> Numbers:
    """The landmark, from 0, that each of a full record trains to by Algorithm 1; [N] int.

    `ranks` are those of the thresholds, as p and q. The record stays as it is: who would have bred instead of those who
    are extinct now is not told.
    """
    levels = [jnp.asarray(-jnp.inf, jnp.float32)] * len(ranks)
    ended = []
    for _, group in itertools.groupby(individuals, key=lambda each: each.generation):
        fitness = _fitness(list(group), len(ranks) + 1)
        alive, last = jnp.ones(len(fitness), bool), np.zeros(len(fitness), int)
        for landmark, rank in enumerate(ranks):
            values = jnp.asarray(fitness[:, landmark])
            levels[landmark] = update_threshold(levels[landmark], values, alive, rank=rank)
            alive = extinguish(levels[landmark], values, alive & jnp.isfinite(values))
            last += np.asarray(alive)
        ended.append(last)
    return np.concatenate(ended)


def steps_of(individuals: Sequence[Individual]) -> tuple[int | None, ...]:
    """Of the landmarks of a run: of those who came furthest."""
    furthest = max(individuals, key=lambda each: len(each.landmarks))
    return tuple(each.step for each in furthest.landmarks)


def _fitness(individuals: Sequence[Individual], landmarks: int) -> Numbers:
    """[N, L] float32, -inf where there is none; the first objective."""
    fitness = np.full((len(individuals), landmarks), -np.inf, np.float32)
    for row, each in zip(fitness, individuals, strict=True):
        for place, landmark in enumerate(each.landmarks):
            if landmark.fitness is not None:
                row[place] = landmark.fitness[0]
    return fitness


def _finished(individuals: Sequence[Individual], landmarks: int) -> list[Individual]:
    """The first of each network that has a fitness at the last landmark."""
    fitness = _fitness(individuals, landmarks)
    finished = [each for each, own in zip(individuals, fitness, strict=True) if np.isfinite(own[-1:]).any()]
    return list({each.fingerprint: each for each in reversed(finished)}.values())


def _cell(values: Iterable[float | None]) -> Cell:
    """What each run tells, the runs numbered from 0 as seeds are."""
    return measured(dict(enumerate(values)), absent=NOTHING)


def _agreement(records: Sequence[Sequence[Individual]], steps: Sequence[int | None]) -> Table:
    number = len(steps)
    finished = [_finished(record, number) for record in records]
    ends = [_fitness(each, number)[:, -1] for each in finished]

    def agree(values: Sequence[Numbers]) -> tuple[Cell, ...]:
        counts, both = _cell(map(len, finished)), list(zip(values, ends, strict=True))
        return counts, *(_cell(itertools.starmap(correlation, both)) for correlation in (spearman, kendall))

    rows: list[tuple[Cell, ...]] = []
    for place, step in enumerate(steps):
        reached = [[each for each in record if len(each.landmarks) > place] for record in records]
        networks = (len({each.fingerprint for each in own}) for own in reached)
        failures = (sum(each.landmarks[place].measurement is None for each in own) for own in reached)
        counts = map(_cell, (map(len, reached), networks, failures))
        agreement = agree([_fitness(each, number)[:, place] for each in finished])
        rows.append((f"fitness after {step or '?'} steps", *counts, *(agreement if place + 1 < number else [""] * 3)))
    costs: dict[str, Callable[[Individual], int]] = {
        "FLOPs": lambda each: each.flops,
        "parameters": lambda each: each.parameters,
        "layers": lambda each: len(each.architecture.layers),
    }
    for name, cost in costs.items():
        rows.append((name, *[""] * 3, *agree([np.array([*map(cost, each)], float) for each in finished])))
    heads = dict.fromkeys(("individuals", "networks", "failed there", "pairs"), Unit.COUNT)
    heads = {"what": Unit.TEXT, **heads, "Spearman": Unit.NUMBER, "Kendall": Unit.NUMBER}
    notes = [
        "A pair is a network measured to the end: what is named, and fitness there. Logarithms rank the same. n: runs."
    ]
    if not all(map(is_full, records)):
        notes.append("Not all were trained to the end: those who were not are missing, and the rest agree less.")
    caption = "How early landmarks, and costs, rank networks: agreement with fitness at the last landmark"
    return _table(caption, heads, rows, *notes)


def _replays(
    records: Sequence[Sequence[Individual]], steps: Sequence[int | None], grid: Sequence[tuple[int, int]]
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for ranks in grid:
        told = [_lost(record, replay(record, ranks), steps) for record in records]
        rows.append((*map(str, ranks), *map(_cell, zip(*told, strict=True))))
    heads = {"p": Unit.TEXT, "q": Unit.TEXT, "training FLOPs saved": Unit.ACCURACY, "survivors": Unit.COUNT}
    heads |= {"regret": Unit.NUMBER, "rank of the best survivor": Unit.COUNT}
    notes = (
        "Regret: the fitness of the best of all at the end, less that of the best survivor.",
        "The record stays as it is: a search with these thresholds would have bred from other parents.",
        "Without duplicates, which extinction spares by default.",
    )
    return _table("Extinction by p and q, replayed", heads, rows, *notes)


def _lost(record: Sequence[Individual], ended: Numbers, steps: Sequence[int | None]) -> tuple[float | None, ...]:
    """The share of training FLOPs saved, the survivors, the regret, and the rank of the best survivor."""
    ends = _fitness(record, len(steps))[:, -1].astype(float)
    whole = less = 0
    for each, end in zip(record, ended.tolist(), strict=True):
        if each.same_as is None:  # others took over what they measured
            last = len(each.landmarks) - 1
            whole += each.flops * (steps[last] or 0)
            less += each.flops * (steps[min(last, end)] or 0)
    saved = 1 - less / whole if whole else None
    survivors = ends[(ended == len(steps) - 1) & np.isfinite(ends)]
    if not len(survivors):
        return saved, 0, None, None
    best = survivors.max()
    return saved, len(survivors), float(ends.max() - best), int((ends > best).sum()) + 1


def _extinctions(
    caption: str, records: Sequence[Sequence[Individual]], ended: Sequence[Numbers], steps: Sequence[int | None]
) -> Table:
    """`ended` has the landmark, from 0, that each was trained to."""
    told = [_by_size(record, own, len(steps)) for record, own in zip(records, ended, strict=True)]
    names = "the smallest", "the middle", "the largest"
    rows = [
        (name, *map(_cell, zip(*own, strict=True))) for name, own in zip(names, zip(*told, strict=True), strict=True)
    ]
    fates = *(f"extinct after {step or '?'} steps" for step in steps[:-1]), "trained to the end", "failed"
    heads = {"third by FLOPs": Unit.TEXT, "FLOPs, median": Unit.FLOPS}
    heads |= dict.fromkeys(("individuals", *fates), Unit.COUNT)
    return _table(caption, heads | {"best fitness at the end": Unit.NUMBER}, rows)


def _by_size(record: Sequence[Individual], ended: Numbers, landmarks: int) -> list[tuple[float | None, ...]]:
    """What the table has of each third; individuals of equal FLOPs are in one."""
    flops, ends = np.array([each.flops for each in record], float), _fitness(record, landmarks)[:, -1]
    fates = np.where([each.fate is Fate.FAILED for each in record], -1, ended)
    third, told = np.searchsorted(np.quantile(flops, (1 / 3, 2 / 3)), flops), []
    for place in range(3):
        own = third == place
        counts = (int((fates[own] == fate).sum()) for fate in (*range(landmarks), -1))
        best = ends[own & np.isfinite(ends)].max(initial=-np.inf)
        median = float(np.median(flops[own])) if own.any() else None
        told.append((median, int(own.sum()), *counts, float(best) if np.isfinite(best) else None))
    return told


def _table(caption: str, heads: Mapping[str, Unit], rows: Iterable[tuple[Cell, ...]], *notes: str) -> Table:
    columns = tuple(Column(heading=heading, unit=unit) for heading, unit in heads.items())
    return Table(caption=caption, columns=columns, rows=tuple(rows), notes=notes)
