"""The command that shows a network, and what it says of a genome that is none."""

import json

import pytest

from eigen_jax.architecture import Architecture, Layer, to_json
from experiments.describe import main

CONV = {"op": "conv", "inputs": [-1], "channels": 16, "kernel": 3, "stride": 1}


def test_a_network_is_shown_with_its_cost(tmp_path, capsys):
    network = Architecture(
        input_shape=(4, 4, 1), layers=(Layer(op="conv", inputs=(-1,), channels=2, kernel=1, stride=1),)
    )
    (tmp_path / "genome.json").write_text(to_json(network))
    assert main([str(tmp_path / "genome.json"), "--num-classes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "convolution", "1", "x", "1", "of", "image", "4", "x", "4", "x", "2"]
    # 2 kernels of 1, 2 scales and 2 biases, a classifier of 2 x 3 + 3; 2 x (16 x 2 + 2 x 3) operations.
    assert lines[-2:] == ["parameters      15", "FLOPs an image  76"]


def genome(*layers: dict, **fields: object) -> str:
    return json.dumps({"schema_version": 1, "input_shape": [8, 8, 1], "layers": list(layers), **fields})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("{", "JSON", id="malformed"),
        pytest.param(genome(CONV, schema_version=7), "schema_version is 7", id="unknown schema version"),
        pytest.param(genome(CONV | {"inputs": [1]}, CONV | {"inputs": [0]}), "cyclic", id="cyclic"),
        pytest.param(
            genome(CONV, {"op": "pool", "inputs": [0]}, {"op": "concat", "inputs": [0, 1]}),
            "8 x 8",
            id="a concatenation of two sizes",
        ),
        pytest.param(
            genome(
                CONV, *({"op": "conv", "inputs": [i], "channels": 1, "kernel": 1, "stride": 1} for i in range(16_384))
            ),
            "16385 layers",
            id="over capacity",
        ),
    ],
)
def test_a_genome_that_is_none_gets_one_line_and_exit_code_2(tmp_path, capsys, text, part):
    path = tmp_path / "genome.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    line, end = shown.err.split("\n")
    assert end == ""
    assert line.startswith(f"error: {path}: ")
    assert part in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["no/such.json"],
            "error: cannot read no/such.json: No such file or directory; name the genome.json of a network",
        ),
        (
            ["x", "--num-classes", "0"],
            "error: --num-classes: is '0'; it must be a whole number of at least 1; --help explains every setting",
        ),
        ([], "error: the following arguments are required: genome; --help explains every setting"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_exit_code_2(capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr().err == line + "\n"
