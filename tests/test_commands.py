"""Output that cannot be written, or not as it is: what goes on, what ends, and with which line."""

import io
import os
import re
import sys
from pathlib import Path

import pytest

from experiments import commands
from experiments.command_line import Parser, parse
from experiments.commands import BAD_INPUT, command, guarded, make_console, show
from experiments.progress import LiveBars
from experiments.settings import SettingsError

NO_READER = 141  # 128 + SIGPIPE
NASTY = ("a [b]", "[/x]", "[bold red]", ":cat:", "\\[x]", "2 ** 3 'q' http://x")


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def closed_terminal() -> int:
    master, slave = os.openpty()
    os.close(master)
    return slave


GONE = pytest.mark.parametrize(
    ("opened", "why"),
    [
        (pipe_without_reader, "Broken pipe"),
        (closed_terminal, "Input/output error"),
        pytest.param(
            *(full_disk, "No space left on device"),
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full"),
        ),
    ],
)


def replace(monkeypatch: pytest.MonkeyPatch, name: str, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Makes it the process's stream of that name."""
    monkeypatch.setattr(sys, name, stream)
    return stream


@GONE
@pytest.mark.parametrize("interactive", [False, True])
def test_work_goes_on_unseen_after_one_line(monkeypatch, capsys, opened, why, interactive):
    done = []

    def work() -> None:
        console = make_console()
        console.is_interactive = interactive
        with LiveBars(console) as live:
            live.bars.add_task("training", detail="")
            for step in range(3):
                live.print("x" * 20_000)
                live.bars.refresh()
                done.append(step)
        print("the end")

    # Closing it flushes it, as the end of the interpreter does.
    with replace(monkeypatch, "stdout", open(opened(), "w")):
        assert command(work)() == 0
    assert done == [0, 1, 2]
    assert capsys.readouterr().err == f"stdout cannot be written ({why}); going on unseen\n"


def show_settings() -> None:
    parse(["--help"], program="a program", dataset="digits")


@GONE
def test_a_listing_ends(monkeypatch, capsys, opened, why):
    def name_one() -> None:
        show("one")
        raise AssertionError

    for listing in (name_one, Parser(prog="a program").print_help, show_settings):
        with replace(monkeypatch, "stdout", open(opened(), "w")), pytest.raises(SystemExit) as ended:
            sys.exit(command(listing)())
        line = f"error: stdout cannot be written ({why}); redirect it to where there is room\n"
        expected = (NO_READER, "") if why == "Broken pipe" else (BAD_INPUT, line)
        assert (ended.value.code, capsys.readouterr().err) == expected


@GONE
def test_the_exit_code_is_the_same_without_stderr(monkeypatch, capsys, opened, why):
    def mistaken() -> None:
        raise SettingsError("a mistake")

    with replace(monkeypatch, "stderr", open(opened(), "w")):
        assert command(mistaken)() == BAD_INPUT
    assert capsys.readouterr().out == ""


def test_a_process_without_streams_works(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    def three() -> int:
        make_console().print("unseen")
        show("unseen")
        return 3

    assert command(three)() == 3


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"\u65e5 \xe4 \udcff"),
        ("latin-1", b"\\u65e5 \xe4 \\udcff"),
        ("utf-8", b"\xe6\x97\xa5 \xc3\xa4 \\udcff"),
    ],
)
def test_characters_that_a_stream_has_not_are_escaped(monkeypatch, encoding, shown):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        replace(monkeypatch, name, stream)
    with guarded():
        text = "\u65e5 \xe4 \udcff"  # the last is a byte of a path that is no text
        print(text, file=sys.stderr)
        make_console().print(text)
        show(text)
    written = {name: stream.buffer.getvalue() for name, stream in streams.items()}
    assert written == {"stdout": 2 * (shown + b"\n"), "stderr": shown + b"\n"}


@pytest.mark.parametrize(("encoding", "spinner"), [("latin-1", "-"), ("utf-8", "\u280b")])
def test_bars_are_of_characters_that_the_terminal_has(monkeypatch, encoding, spinner):
    stream = replace(monkeypatch, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with guarded():
        console = make_console()
        console.is_interactive = console._force_terminal = True
        with LiveBars(console) as live:
            live.bars.add_task("training", total=4, completed=1, detail="")
            live.bars.refresh()
    shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert f"{spinner} training" in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown)
    assert "\\u" not in shown


@pytest.mark.parametrize("text", NASTY)
def test_text_is_shown_as_it_is(monkeypatch, text):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    console = make_console()
    console.is_interactive = console._force_terminal = True
    console.print(text, style="bold")
    with LiveBars(console) as live:
        live.print(text, "dim")
        live.bars.add_task(text[:14], detail=text)
        live.bars.refresh()
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown.getvalue())
    assert plain.split("\n")[0] == text
    assert plain.count(text) >= 3


def test_there_is_one_place_that_makes_consoles():
    folder = Path(commands.__file__).parent
    makers = [path for path in folder.rglob("*.py") if re.search(r"\bConsole\(|from_markup", path.read_text())]
    assert makers == [Path(commands.__file__)]
