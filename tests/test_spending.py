"""What is told of a budget, and what a teacher takes of it."""

import dataclasses

import pytest
from commands_data import leave_process_alone, places, refused
from test_progress import make_observer

from eigen_jax.data import load_dataset
from eigen_jax.search import Budget, TeacherFlops
from eigen_jax.teacher import TeacherConfig, forward_flops
from experiments import runner
from experiments.presets import PRESETS
from experiments.spending import Spending, describe_budget
from experiments.teacher import teacher_flops

own_settings = pytest.fixture(leave_process_alone, autouse=True)

BUDGET = Budget(total=230_000, teacher=23_000, final_share=0.5, final_steps=None)


def test_how_a_budget_is_shared():
    budget = Budget(total=230_000, teacher=0, final_share=0.5, final_steps=None)
    assert describe_budget(budget) == "Budget 2.3e+05 training FLOPs: the final training keeps 1.15e+05"
    budget = dataclasses.replace(BUDGET, final_steps=1_000)
    told = "Budget 2.3e+05 training FLOPs: the teacher takes 2.3e+04, the final training keeps 1,000 steps"
    assert describe_budget(budget) == told


def test_what_is_spent_is_told_at_every_per_cent_with_the_time_left_at_the_rate_of_this_process():
    now = 100.0
    spending = Spending(lambda: now)
    # The teacher and earlier processes spent 43,000 of 230,000; their rate is not known here.
    assert spending.tell(BUDGET, 20_000) == ("budget 2.3e+05 training FLOPs: 18 % spent", None)
    now = 110.0
    assert spending.tell(BUDGET, 20_400) is None
    text, seconds = spending.tell(BUDGET, 38_700) or ("", None)
    assert text == "budget 2.3e+05 training FLOPs: 26 % spent"
    assert seconds == pytest.approx(10 * (230_000 - 61_700) / 18_700)
    assert spending.tell(BUDGET, 38_700) is None


@pytest.mark.parametrize("terminal", [True, False])
def test_a_search_shows_its_budget_in_plain_lines(terminal):
    observer, text, clock = make_observer(terminal=terminal)
    observer.budget_spent(budget=BUDGET, spent=0)
    clock.now += 60
    observer.budget_spent(budget=BUDGET, spent=20_700)
    lines = [line.strip() for line in text.getvalue().splitlines() if "udget" in line]
    assert lines == [
        "Budget 2.3e+05 training FLOPs: the teacher takes 2.3e+04, the final training keeps 1.15e+05",
        "budget 2.3e+05 training FLOPs: 10 % spent",
        "budget 2.3e+05 training FLOPs: 19 % spent, about 9 min 0 s left here",
    ]


def test_a_teacher_takes_its_training_and_its_logits_whatever_is_at_hand(tmp_path):
    settings = PRESETS["digits"]["smoke"]
    data = dataclasses.replace(settings.data, cache_dir=tmp_path)
    settings = dataclasses.replace(settings, data=data, ensemble=TeacherConfig(members=2, depth=10, growth=4, epochs=3))
    dataset, forward = load_dataset(data), forward_flops(settings.ensemble, (8, 8, 1), 10)
    # 1,200 images are 18 whole batches of 64; their views, cropped from a pixel of padding, are 3 x 3.
    training = 3 * forward * 3 * 18 * 64
    assert teacher_flops(settings, dataset) == TeacherFlops(once=training + forward * 1_200 * 9)
    center = dataclasses.replace(settings, teacher_views="center")
    assert teacher_flops(center, dataset) == TeacherFlops(once=training + forward * 1_200)
    joined = dataclasses.replace(center, search=dataclasses.replace(center.search, final_on="train+validation"))
    assert teacher_flops(joined, dataset) == TeacherFlops(once=training + forward * 1_437)
    live = dataclasses.replace(settings, teacher="live")
    assert teacher_flops(live, dataset) == TeacherFlops(once=training, per_image=forward)
    assert teacher_flops(dataclasses.replace(settings, teacher="none"), dataset) == TeacherFlops()
    assert teacher_flops(dataclasses.replace(settings, teacher_logits=tmp_path), dataset) == TeacherFlops()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--budget", "10"], "--budget is 10; the teacher alone takes "),
        (["--budget", "1e5", "--teacher", "none"], "--budget is 1e+05, of which the search has 1e+05; its first "),
        (["--budget", "0"], "--budget is 0.0; it must be more than 0"),
    ],
)
def test_a_budget_that_is_too_small_is_refused_in_one_line_before_anything_is_trained(tmp_path, capsys, argv, line):
    told = refused(capsys, lambda argv: runner.main("digits", argv), "--preset", "smoke", *argv, *places(tmp_path))
    assert told.startswith(line)
    assert not {"run-dir", "teacher-dir"} & {path.name for path in tmp_path.iterdir()}
