"""The command that shows a network, and what it says of a genome that is none."""

import json
from typing import Any

import pytest
from commands_data import refused

from eigen_jax.architecture import Architecture, Layer, fingerprint, to_json
from experiments.describe import main

CONV = {"op": "conv", "inputs": [-1], "channels": 16, "kernel": 3, "stride": 1}


def test_a_network_is_shown_with_its_cost(tmp_path, capsys):
    layer = Layer(op="conv", inputs=(-1,), channels=2, kernel=1, stride=1)
    network = Architecture(input_shape=(4, 4, 1), layers=(layer,))
    (tmp_path / "genome.json").write_text(to_json(network))
    assert main([str(tmp_path / "genome.json"), "--num-classes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "convolution", "1", "x", "1", "of", "image", "4", "x", "4", "x", "2"]
    # 2 kernels of 1, 2 scales and 2 biases, a classifier of 2 x 3 + 3; 2 x (16 x 2 + 2 x 3) operations.
    assert lines[-2:] == ["parameters      15", "FLOPs an image  76"]


def test_kinds_that_the_paper_lacks_are_told_in_words(tmp_path, capsys):
    others = {"op": "depthwise", "inputs": [0], "kernel": 5}, {"op": "add", "inputs": [0, 1]}
    (tmp_path / "genome.json").write_text(genome(CONV, *others, {"op": "average_pool", "inputs": [2]}))
    assert main([str(tmp_path / "genome.json"), "--num-classes", "3"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[2:5] == [
        "1 depthwise convolution 5 x 5 of 0 8 x 8 x 16",
        "2 addition of 0, 1 8 x 8 x 16",
        "3 average pooling 2 x 2 of 2 4 x 4 x 16",
    ]
    layers: tuple[dict, ...] = (
        {"op": "plain_conv", "inputs": [-1], "channels": 9, "kernel": 31, "activation": "sigmoid"},
        {"op": "linear_conv", "inputs": [0], "channels": 9, "kernel_height": 31, "kernel_width": 31, "stride": 1024},
        {"op": "vertex", "inputs": [1], "activation": "norm_relu"},
        {"op": "vertex", "inputs": [2], "activation": "linear"},
        {"op": "add_resized", "inputs": [0, 3]},
        {"op": "pool_any", "inputs": [4], "side": 3},
        {"op": "pool3", "inputs": [5]},
        {"op": "dropout", "inputs": [6], "rate": 0.37},
        {"op": "dense", "inputs": [7], "units": 12, "activation": "sigmoid"},
    )
    (tmp_path / "genome.json").write_text(genome(*layers))
    assert main([str(tmp_path / "genome.json"), "--num-classes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-3]
    assert [" ".join(line.split()) for line in lines] == [
        "0 plain conv 31 x 31, sigmoid of image 8 x 8 x 9",
        "1 linear conv 31 x 31, stride 1024 of 0 1 x 1 x 9",
        "2 batch normalisation, ReLU of 1 1 x 1 x 9",
        "3 identity of 2 1 x 1 x 9",
        "4 addition, resized of 0, 3 8 x 8 x 9",
        "5 max pooling 3 x 3 of 4 3 x 3 x 9",
        "6 max pooling 3 x 3, stride 2 of 5 2 x 2 x 9",
        "7 dropout 0.37 of 6 2 x 2 x 9",
        "8 dense, sigmoid of 7 1 x 1 x 12",
    ]
    assert len({line.index(" of ") for line in lines}) == 1  # no name is longer than its column


def test_the_classes_are_those_of_the_run_that_a_genome_lies_in(tmp_path, capsys):
    layer = Layer(op="conv", inputs=(-1,), channels=2, kernel=1, stride=1)
    network = Architecture(input_shape=(4, 4, 1), layers=(layer,))
    (tmp_path / "run" / "network").mkdir(parents=True)
    genome = tmp_path / "run" / "network" / "genome.json"
    genome.write_text(to_json(network))
    result = tmp_path / "run" / "result.json"

    def shown(*argv: str) -> tuple[str, str]:
        """Parameters, and what is said beside the network."""
        assert main([str(genome), *argv]) == 0
        out, error = capsys.readouterr()
        return out.splitlines()[-2].split()[1], error

    # 2 kernels of 1, 2 scales, 2 biases, and 2 + 1 for each class.
    found = {"fingerprint": fingerprint(network), "layers": 1, "parameters": 6 + 3 * 3, "flops": 76}
    others: dict[str, Any] = {"schema_version": 2, "test_accuracy": 0.5, "seconds": {"final": 1.0}, "mimicry": None}
    result.write_text(json.dumps({**others, "network": found}))
    assert shown() == ("15", "")
    assert shown("--num-classes", "4") == ("18", "")
    note = (
        f"nothing says how many classes the network of {genome} tells apart: 10 are assumed; --num-classes says another"
        " number\n"
    )
    wrong: list[Any] = [found | {"fingerprint": "0"}, found | {"parameters": 16}, found | {"parameters": 6}, [], None]
    for network_record in wrong:
        result.write_text(json.dumps({**others, "network": network_record}))
        assert shown() == ("36", note)
    result.write_text("{")
    assert shown() == ("36", note)


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
    line = refused(capsys, main, str(path))
    assert line.startswith(f"{path}: ")
    assert part in line


UNREADABLE = "; name the genome.json of a network"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{folder}/none"], f"cannot read {{folder}}/none: No such file or directory{UNREADABLE}"),
        (["{folder}"], f"cannot read {{folder}}: Is a directory{UNREADABLE}"),
        (["{folder}/binary"], "{folder}/binary: the architecture is not valid JSON: it is no text in UTF-8"),
        (["{folder}/list"], "{folder}/list: "),
        (
            ["x", "--num-classes", "0"],
            "--num-classes: is '0'; it must be a whole number of at least 1; --help explains every setting",
        ),
        ([], "the following arguments are required: genome; --help explains every setting"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_exit_code_2(tmp_path, capsys, arguments, line):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "list").write_text("[]")
    shown = refused(capsys, main, *(each.format(folder=tmp_path) for each in arguments))
    assert shown.startswith(line.format(folder=tmp_path))
