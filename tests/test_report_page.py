"""The page of a run, and that of several: what stands in them, and in the data that their script draws of."""

import base64
import dataclasses
import io
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_data import individual, measured, reached

from eigen_jax.architecture import Architecture, Layer, count_parameters
from eigen_jax.lineage import Fate, Individual, Landmark, Reference
from eigen_jax.report.page import Run, find_mistakes, make_comparison, make_page
from eigen_jax.report.page.data import how_made, page_data, spending
from eigen_jax.report.page.drawings import Drawings
from eigen_jax.report.page.html import Markup, element
from eigen_jax.store.run_files import RunFlops, RunResult, RunSeconds

CONV = Layer(op="conv", inputs=(-1,), channels=16, kernel=3, stride=1)
ONE = Architecture(input_shape=(8, 8, 1), layers=(CONV,))
TWO = Architecture(input_shape=(8, 8, 1), layers=(CONV, Layer(op="pool", inputs=(0,))))
SKIP = Architecture(
    input_shape=(8, 8, 1),
    layers=(
        CONV,
        Layer(op="conv", inputs=(0,), channels=16, kernel=3, stride=1),
        Layer(op="concat", inputs=(0, 1)),
    ),
)
NASTY = 'it\'s </script><b>\u2028 & "quoted"'
SETTINGS = {"dataset": "digits", "seed": 3, "fitness": "accuracy"}
FIRST = Reference(generation=0, index=0)


def born(generation: int, index: int, accuracy: float | None, **fields: Any) -> Individual:
    size = count_parameters(fields.get("architecture", ONE), num_classes=10)
    return individual(
        generation, index, "primary", accuracy, **({"architecture": ONE, "parameters": size, "flops": 100} | fields)
    )


RECORD = (
    born(0, 0, 0.5, fate=Fate.PARENT, training_flops=10),
    born(0, 1, None, training_flops=4),
    born(1, 0, 0.25, parents=(FIRST,), operators={"insert_conv": 2, "alter_kernel": 0}, training_flops=10),
    born(
        *(1, 1, None),
        fate=Fate.FAILED,
        cause=NASTY,
        landmarks=(Landmark(step=100),),
        parents=(FIRST,),
        training_flops=1,
        architecture=TWO,
    ),
)
RESULT = RunResult(
    test_accuracy=0.75,
    generations=2,
    trained=4,
    network=None,
    seconds=RunSeconds(search=46.0, final=30.0),
    training_flops=RunFlops(teacher=0, search=25, final=2_000_000, total=2_000_025),
    mimicry=None,
)


def run(**fields: Any) -> Run:
    return Run(**{"name": "a run", "settings": SETTINGS, "individuals": RECORD} | fields)


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def sections_of(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)" aria-labelledby', page)


# --- What the page says ----------------------------------------------------------------------------------------------


def test_a_search_that_has_not_finished_has_a_page():
    page = make_page(run())
    assert sections_of(page) == ["overview", "progress", "tree", "costs", "landmarks", "network", "settings"]
    assert "has not finished" in page
    assert "2 generations are recorded" in page
    assert "<dt>best validation accuracy</dt><dd>50.0 %</dd>" in page
    assert "<dt>training FLOPs so far</dt><dd>25</dd>" in page
    assert "The best network so far" in page


def test_a_search_that_has_finished_says_what_it_found():
    confusion = [[3, 1], [0, 4]]
    page = make_page(run(result=RESULT, network=ONE, confusion=confusion, class_names=("cat", "dog")))
    assert "The network found" in page
    assert "<dt>test accuracy</dt><dd>75.0 %</dd>" in page
    assert "<dt>training FLOPs, all</dt><dd>2.0 M</dd>" in page
    assert "cat taken for dog: 1 of 4" in page
    assert "dog taken for cat" not in page
    assert '<th scope="row">cat</th><td style="--share:0.750">3</td><td style="--share:0.250">1</td><td>75.0 %' in page
    assert data_of(page)["classes"] == ["cat", "dog"]


def test_the_training_of_a_given_network_has_a_page_without_a_search():
    page = make_page(run(settings=SETTINGS | {"retrained": "f"}, individuals=(), result=RESULT, network=ONE))
    assert sections_of(page) == ["overview", "network", "settings"]
    assert "Training of a given network on digits" in page
    assert data_of(page)["networks"][0]["layers"][0][0] == "convolution 3 x 3"


def test_a_run_without_a_generation_has_a_page():
    assert sections_of(make_page(run(individuals=(), notes=("Nothing yet.",)))) == ["overview", "settings"]


def test_a_search_in_which_nothing_survived_has_a_page():
    page = make_page(run(individuals=RECORD[1:2], result=dataclasses.replace(RESULT, test_accuracy=None)))
    assert "no network survived" in page
    assert "network" not in sections_of(page)
    assert data_of(page)["best"] is None


def test_what_records_say_is_text():
    page = make_page(run(name=NASTY, settings=SETTINGS | {"teacher": NASTY}, notes=(NASTY,), command=NASTY))
    assert page.count("</script>") == 2  # of the page's own two
    assert "<b>" not in page
    assert data_of(page)["individuals"][3]["cause"] == NASTY
    assert element("td", NASTY, title='"') == (
        '<td title="&quot;">it&#x27;s &lt;/script&gt;&lt;b&gt;\u2028 &amp; &quot;quoted&quot;</td>'
    )
    assert element("p", Markup("<b>"), None, 3) == "<p><b>3</p>"


def test_the_page_asks_for_nothing():
    page = make_page(run(result=RESULT, network=ONE))
    assert set(re.findall(r"https?://[^'\"\s]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"@import|url\(|<link(?! rel=\"icon\" href=\"data:)|\bsrc=(?!\"data:)|fetch\(", page)
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page


def test_objectives_that_are_no_accuracy_are_told_as_they_are():
    shown = run(settings=SETTINGS | {"fitness": "accuracy - 0.01 * log10(flops)"})
    assert (shown.fitness, shown.is_of_accuracy) == ("fitness: accuracy - 0.01 * log10(flops)", False)
    assert data_of(make_page(shown))["isAccuracy"] is False
    several = run(settings=SETTINGS | {"fitness": "accuracy, parameters where loss <= 2.0"})
    assert (several.fitness, several.is_of_accuracy) == ("validation accuracy", True)
    assert run(settings=SETTINGS | {"fitness": "loss, parameters"}).fitness == "minus loss"
    assert run(settings={}).is_of_accuracy


def test_the_rank_agreement_is_told_where_there_are_enough_networks():
    convs = [Layer(op="conv", inputs=(-1,), channels=n, kernel=3, stride=1) for n in (4, 8, 16)]
    others = [Architecture(input_shape=(8, 8, 1), layers=(conv,)) for conv in convs]
    ended = [
        born(0, i, 0.5, architecture=other, landmarks=reached(early, late, thresholds=(0.1,)))
        for i, (other, early, late) in enumerate(zip(others, (0.2, 0.3, 0.4), (0.5, 0.7, 0.6), strict=True))
    ]
    page = make_page(run(individuals=ended))
    # Of three pairs of ranks (1, 1), (2, 3), (3, 2): rho = 1 - 6 * 2 / 24, tau = (2 - 1) / 3.
    assert '<th scope="row">fitness after 100 steps</th>' in page
    assert "<td>0.500</td><td>0.333</td>" in page
    assert "cannot be told yet: a run has 1 different networks" in make_page(run(individuals=ended[:1]))


# --- The data that the script draws of -------------------------------------------------------------------------------


def test_the_data_name_individuals_by_their_places():
    first, second, third, fourth = page_data(run())["individuals"]
    assert (first["name"], first["parents"], first["fate"]) == ("0.0", [], "parent")
    assert first["landmarks"] == [[0.5, None, 0.5]]
    assert second["landmarks"] == [[0.1, 0.2, 0.1]]
    assert (third["parents"], third["how"]) == ([0], "2 \N{MULTIPLICATION SIGN} insert conv")
    assert (fourth["landmarks"], fourth["network"]) == ([[None, None, None]], 1)
    assert page_data(run())["steps"] == [100]
    assert page_data(run())["best"] == 0


def test_spending_adds_up():
    assert spending(RECORD) == {
        "best": [0.5, 0.5, 0.5, 0.5],
        "flops": [10, 14, 24, 25],
        "seconds": [11.5, 23.0, 34.5, 46.0],
    }
    assert spending(RECORD[1:3])["best"] == [None, 0.25]
    older = [RECORD[0], dataclasses.replace(RECORD[1], training_flops=None)]
    assert spending(older)["flops"] == [None, None]


def test_the_front_is_of_the_cheapest_and_the_best():
    sizes = [(0.5, 300), (0.4, 100), (0.4, 200), (0.6, 400), (0.3, 50)]
    marks = [
        Landmark(step=9, measurement=measured(accuracy, parameters=size), fitness=(accuracy,))
        for accuracy, size in sizes
    ]
    ended = [born(0, i, 0.5, landmarks=(mark,)) for i, mark in enumerate(marks)]
    fronts = page_data(run(individuals=ended))["fronts"]
    assert fronts["parameters"] == [4, 1, 0, 3]
    assert "latency" not in fronts


def test_how_individuals_came_to_be_is_told_in_words():
    assert how_made(RECORD[0]) == "no operator"
    doubled = dataclasses.replace(RECORD[0], repeats=(2, 1))
    assert how_made(doubled) == "gene duplication: its parent's blocks stand 2, 1 times"


def test_a_network_is_laid_out_once():
    drawings = Drawings(num_classes=10)
    assert [drawings.add(each) for each in (ONE, SKIP, ONE)] == [0, 1, 0]
    content = drawings.content()
    assert len(content["networks"]) == 2
    skip = content["networks"][1]
    assert len(skip["boxes"]) == 3 + 3  # image, pooling and classifier besides
    assert len(skip["wires"]) == 1 + 1 + 2 + 2
    ports = [(x + 78, y + 21) for x, y, _ in skip["boxes"]]
    starts = [wire[1:3] for wire in skip["wires"]]
    assert all(min(abs(x - a) + abs(y - b) for a, b in ports) <= 2 for x, y in starts)  # both are rounded
    assert {content["colours"][wire[0]] for wire in skip["wires"]} == {"#4A4A4A", "#D55E00"}
    assert [content["looks"][box[2]]["label"][0] for box in content["networks"][0]["boxes"]] == [
        *("image", "3\N{MULTIPLICATION SIGN}3, 16", "global", "classifier")
    ]
    assert skip["layers"][2] == ["concatenation", [0, 1], "8 x 8 x 32"]


def test_five_hundred_different_networks_take_a_few_megabytes():
    def network(number: int) -> Architecture:
        convs = [Layer(op="conv", inputs=(i - 1,), channels=8 + number, kernel=3, stride=1) for i in range(20)]
        return Architecture(input_shape=(32, 32, 3), layers=(*convs, Layer(op="concat", inputs=(number % 19, 19))))

    many = [born(i // 10, i % 10, 0.5, architecture=network(i)) for i in range(500)]
    page = make_page(run(individuals=many))
    assert len(data_of(page)["networks"]) == 500
    assert len(page) < 3_000_000


# --- Test images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_worst_mistakes_come_first_as_pictures(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 7, channels)).astype(np.uint8)
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [4.0, 0.0], [0.5, 0.0]], np.float32)
    first, second, third = find_mistakes(logits, np.array([1, 0, 1, 0]), pixels)
    assert [first.label, first.taken_for, first.size] == [1, 0, (7, 5)]
    probabilities = [each.probability for each in (first, second, third)]
    np.testing.assert_allclose(probabilities, [1 / (1 + math.exp(-z)) for z in (4, 2, 1)], rtol=1e-6)
    kind, _, content = first.picture.partition(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(shown, pixels[2] if channels == 3 else pixels[2, ..., 0])
    assert len(find_mistakes(logits, np.array([1, 0, 1, 0]), pixels, most=1)) == 1


def test_pictures_say_what_they_are_taken_for():
    mistakes = find_mistakes(np.array([[3.0, 0.0]], np.float32), np.array([1]), np.zeros((1, 2, 2, 1), np.uint8))
    page = make_page(run(result=RESULT, network=ONE, mistakes=mistakes, class_names=("cat", "d<g")))
    assert 'alt="d&lt;g, taken for cat (95.3 %)"' in page
    assert "It gets all of them right" in make_page(run(result=RESULT, network=ONE, mistakes=()))


# --- Several runs ----------------------------------------------------------------------------------------------------


def test_runs_are_compared_by_results_and_by_what_differs():
    other = run(name="other <run>", settings=SETTINGS | {"seed": 4, "budget": 2.3e14}, result=RESULT)
    given = run(name="given", settings=SETTINGS | {"retrained": "f"}, individuals=(), result=RESULT, network=ONE)
    page = make_comparison([run(), other, given])
    assert sections_of(page) == ["progress", "results", "settings"]
    assert "other &lt;run&gt;" in page
    assert '<th scope="row">test accuracy</th><td>-</td><td>75.0 %</td><td>75.0 %</td>' in page
    assert '<th scope="row">seed</th><td>3</td><td>4</td><td>3</td>' in page
    assert "2.3e+14" in page
    assert '<th scope="row">dataset</th>' not in page
    alike = [run(), run(name="of later", settings=SETTINGS | {"candidates": 1})]  # which is what it was before
    assert "settings" not in sections_of(make_comparison(alike))
    data = data_of(page)
    assert [each["name"] for each in data["runs"]] == ["a run", "other <run>"]
    assert data["runs"][0]["generations"] == [0, 0, 1, 1]
    assert data["runs"][0]["flops"] == [10, 14, 24, 25]
