"""What is installed: by both ways the same packages, and of this project the library alone."""

import configparser
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def requirements(text: str) -> set[str]:
    """The lines of a list of packages, without comments."""
    return {line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")}


def test_requirements_txt_is_all_that_the_package_needs_with_jax_for_a_gpu():
    listed = requirements((ROOT / "requirements.txt").read_text())
    gpu = SETUP["options.extras_require"]["cuda12"]
    assert gpu.startswith("jax[cuda12]")
    plain = gpu.replace("[cuda12]", "")
    needed = requirements(SETUP["options"]["install_requires"])
    assert plain in needed
    assert listed == needed - {plain} | {gpu}


def test_only_the_library_is_installed_and_commands_are_of_the_clone():
    assert SETUP["options.packages.find"]["include"].split() == ["eigen_jax", "eigen_jax.*"]
    assert Path(str(importlib.import_module("experiments").__file__)).parents[1] == ROOT


def test_the_pythons_that_are_claimed_are_those_that_make_looks_for():
    claimed = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    (names,) = re.findall(r"for name in (.*); do", (ROOT / "Makefile").read_text())
    assert {f"python{version}" for version in claimed} == set(names.split()) - {"python3"}
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in claimed


def test_every_file_that_is_no_module_is_installed_with_its_package():
    listed = SETUP["options.package_data"]
    package = ROOT / "eigen_jax"
    files = [each for each in package.rglob("*") if each.is_file() and each.suffix not in (".py", ".pyc")]
    assert {"page.html", "page.css", "page.js", "py.typed"} <= {each.name for each in files}
    for each in files:
        patterns = listed[".".join(each.relative_to(ROOT).parts[:-1])].split(", ")
        assert any(each.match(pattern) for pattern in patterns), each
