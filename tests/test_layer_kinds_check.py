"""The check of records: that the built-in ones agree with their modules, and which are refused."""

import dataclasses

import jax.numpy as jnp
import pytest

from eigen_jax.errors import ConfigError
from eigen_jax.genome import GenomeSpec
from eigen_jax.layer_kinds import BUILT_IN, KINDS, Choice, LayerKind, check_kind

SPEC = GenomeSpec(kinds=tuple(sorted(BUILT_IN - {"add_resized"})))


def test_the_built_in_records_agree_with_their_modules() -> None:
    for name in BUILT_IN:
        options = SPEC.options.get(name, {})
        check_kind(KINDS.find(name), options, builds=True)
        wrong = dataclasses.replace(KINDS.find(name), parameters=lambda widths, values: 1 + 0 * widths[0])
        with pytest.raises(ConfigError, match=r"has a layer that gives .* where its record says .* and 1 par"):
            check_kind(wrong, options, builds=True)


def nothing(*_: object, **__: object) -> None:
    """In the place of a function that gives something."""


def refused_kinds() -> dict[str, tuple[dict, str]]:
    """What is wrong with a record: the fields that differ from a right one, and the line."""
    kernel = Choice("kernel", (3, 5))
    sizes = {"inputs": 2, "width": lambda widths, values: widths[0]}
    return {
        "no layer": ({"layer": LayerKind(name="x").layer}, "lacks layer"),
        "no look": ({"look": None}, "lacks look"),
        "no function": ({"flops": 3}, "is no sound record (TypeError: the first argument must be callable)"),
        "three inputs": ({"inputs": 3}, "has inputs 3 and agree None; they must be 1 and None, or 2 and 'size', "),
        "two that need not agree": (sizes, "has inputs 2 and agree None; they must be"),
        "one that flattens two": (
            {**sizes, "agree": "size", "flattens": True},
            "has flattens True; it must be True or",
        ),
        "one that flattens and halves": ({"flattens": True}, "has flattens True; it must be True or False, and False"),
        "one that agrees": ({"agree": "size"}, "has inputs 1 and agree 'size'; they must be"),
        "choices in a list": ({"choices": [kernel]}, "is no sound record (TypeError: unhashable type: 'list')"),
        "no values": ({"choices": (Choice("side", ()),)}, "has side (); it must be 1 to 127 different values"),
        "equal values": ({"choices": (Choice("side", (1, 1)),)}, "has side (1, 1); it must be 1 to 127 different"),
        "values in a list": ({"choices": (Choice("side", [1]),)}, "has side [1]; it must be a tuple"),  # type: ignore
        "values of no field": ({"choices": (Choice("side", "sides"),)}, "has side None; it must be a tuple of numbers"),
        "values that JSON lacks": (
            {"choices": (Choice("side", (float("nan"),)),)},
            "has side (nan,); it must be a tup",
        ),
        "a default of none": (
            {"choices": (Choice("side", (1, 2), default=3),)},
            "has side (1, 2), and the default 3 is not among them",
        ),
        "a reserved name": ({"choices": (Choice("inputs", (1,)),)}, "has a choice 'inputs'; choose another name"),
        "two of one name": ({"choices": (kernel, kernel)}, "has two choices of one name"),
        "halves by no choice": (
            {"halves": "stride"},
            "has halves 'stride'; it must be True, False, or a choice of its",
        ),
        "halves by three": (
            {"choices": (Choice("stride", (1, 2, 3)),), "halves": "stride"},
            "has halves 'stride'; it must be True, False, or a choice of its own of the values 1 and 2",
        ),
        "a function that raises": ({"width": lambda widths, values: widths[1]}, "has a function width that raises Ind"),
        "a negative number": ({"parameters": lambda widths, values: -1}, "has a function parameters that gives -1, no"),
        "no number": (
            {"flops": lambda taps, widths, values: float("nan")},
            "has a function flops that gives nan, no w",
        ),
        "no width": ({"width": lambda widths, values: 0}, "has a function width that gives 0, no whole number from 1"),
        "no array code": (
            {"parameters": lambda widths, values: widths[0] if widths[0] > 5 else 1},
            "has a function parameters that raises TracerBoolConversionError",
        ),
        "taps of none": ({"taps": nothing}, "has a function taps that gives None, no whole number"),
        "no look of it": ({"look": nothing}, "has a function look that gives None, no Look"),
        "a layer that raises": ({"layer": lambda inputs: 1 / 0}, "has a layer that raises TypeError"),
        "another shape": (
            {"halves": False},
            "has a layer that gives (1, 3, 2, 3) bfloat16 and 0 parameters, where its record says (1, 5, 4, 3)",
        ),
        "another width": (
            {"width": lambda widths, values: 2 * widths[0]},
            "has a layer that gives (1, 3, 2, 3) bfloat16 and 0 parameters, where its record says (1, 3, 2, 6)",
        ),
        "other parameters": (
            {"parameters": lambda widths, values: 2 * widths[0]},
            "has a layer that gives (1, 3, 2, 3) bfloat16 and 0 parameters, where its record says (1, 3, 2, 3) bf",
        ),
        "another dtype": (
            {"halves": False, "layer": lambda inputs, values, norm, name: inputs[0].astype(jnp.float32)},
            "has a layer that gives (1, 5, 4, 3) float32 and 0 parameters, where",
        ),
        "no name": (
            {"name": "a b"},
            "needs another name, of letters, digits and underscores",
        ),
    }


@pytest.mark.parametrize("wrong", refused_kinds())
def test_a_record_that_is_not_whole_or_contradicts_itself_is_refused(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, message = refused_kinds()[wrong]
    record = dataclasses.replace(KINDS.find("pool"), **{"name": f"wrong_{wrong.replace(' ', '_')}", **changes})
    monkeypatch.setitem(KINDS, record.name, record)
    with pytest.raises(ConfigError) as caught:
        GenomeSpec(kinds=("conv", record.name))
    line = str(caught.value)
    assert line.startswith(f"the layer kind {record.name!r} {message}")
    assert line.endswith("; mend its record")
    assert "\n" not in line
