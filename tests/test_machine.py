"""What is read of the machine."""

import os

import pytest

from experiments import machine

WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        (None, {}, WHOLE),
        ("0::/\n", {"memory.max": "max\n"}, WHOLE),
        ("0::/slice/unit\n", {"slice/memory.max": "5000000\n", "slice/unit/memory.max": "max\n"}, 5_000_000),
        ("0::/slice/unit\n", {"slice/memory.max": "5000000\n", "slice/unit/memory.max": "4000000\n"}, 4_000_000),
        # Of a container, whose own group is the root that it sees.
        ("0::/outside/container\n", {"memory.max": "3000000\n"}, 3_000_000),
        ("5:cpu:/\n4:memory:/unit\n", {"memory/unit/memory.limit_in_bytes": "2000000\n"}, 2_000_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, WHOLE),
    ],
)
def test_memory_is_what_the_machine_has_or_the_control_group_may_take(monkeypatch, tmp_path, told, files, expected):
    listing = tmp_path / "cgroup"
    if told is not None:
        listing.write_text(told)
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", listing)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "groups")
    assert machine.memory() == expected
