"""A page that is served: what is told at which address, when it is made again, and what a browser does then."""

import contextlib
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from browser import CHROMIUM, open_browser
from report_data import reached
from test_report_page import FIRST, RECORD, born, run

from eigen_jax.errors import EigenError
from eigen_jax.report.page import make_page
from experiments import serving
from experiments.serving import ServingError, serve


class Source:
    """What is served: a page that changes when its version does, until it is ended as by Ctrl-C."""

    def __init__(self, make: Callable[[], str]) -> None:
        self.make, self.version, self.is_over = make, "first", False

    def told(self) -> str:
        if self.is_over:
            raise KeyboardInterrupt
        return self.version


@contextlib.contextmanager
def served(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Gives the address where it is served."""
    shown: list[str] = []
    monkeypatch.setattr(serving, "show", shown.append)
    monkeypatch.setattr(serving, "_SECONDS", 0.05)
    thread = threading.Thread(target=lambda: serve(lambda: source.make(), source.told, ports=range(1)))
    thread.start()
    try:
        until = time.monotonic() + 30
        while not shown:
            assert time.monotonic() < until
            time.sleep(0.01)
        (address,) = re.findall(r"^http://localhost:\d+", shown[0])
        yield address
    finally:
        source.is_over = True
        thread.join(30)
    assert not thread.is_alive()


def fetch(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.read().decode()


def wait_for(expected: object, ask: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while ask() != expected:
        assert time.monotonic() < until, f"{ask()!r}, not {expected!r}"
        time.sleep(0.05)


def test_a_page_is_made_again_when_its_version_changes_and_says_what_went_wrong(monkeypatch):
    source = Source(lambda: make_page(run(name="one")))
    with served(source, monkeypatch) as address:
        assert "<h1>one</h1>" in fetch(address)
        assert fetch(f"{address}/version") == "first"

        def fail() -> str:
            raise EigenError("lineage.jsonl is <damaged>")

        source.make, source.version = fail, "second"
        wait_for("second", lambda: fetch(f"{address}/version"))
        assert "lineage.jsonl is &lt;damaged&gt;" in fetch(address)
        for url, headers, code in ((f"{address}/settings.json", {}, 404), (address, {"Host": "elsewhere.org"}, 403)):
            with pytest.raises(urllib.error.HTTPError) as refusal:
                fetch(url, **headers)
            assert refusal.value.code == code
            refusal.value.close()


def test_what_cannot_be_served_is_refused():
    def fail() -> str:
        raise EigenError("is no run folder")

    with pytest.raises(EigenError, match="is no run folder"):
        serve(fail, lambda: "first")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ServingError, match=rf"^ports {port} to {port} of 127.0.0.1 cannot be had \(Address already"
        ):
            serve(lambda: "<body></body>", lambda: "first", ports=range(port, port + 1))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium")
def test_a_browser_follows_the_run_and_keeps_the_individual_that_was_chosen(monkeypatch):
    later = born(2, 0, 0.75, parents=(FIRST,), landmarks=reached(0.3, 0.75, thresholds=(0.25,)))
    source = Source(lambda: make_page(run(individuals=RECORD)))
    with served(source, monkeypatch) as address, open_browser() as browser:
        browser.open(address, width=1000)
        before = browser.run("document.querySelectorAll('#tree-plot .node').length")
        browser.click(".node[data-position='3']")
        chosen = browser.run("document.querySelector('#individual h3').textContent")
        assert chosen == "Individual 1.1"
        source.make = lambda: make_page(run(individuals=(*RECORD, later)))
        source.version = "second"

        def shown() -> list[object] | None:
            with contextlib.suppress(AssertionError):  # raised between two pages
                return browser.run(
                    "[document.querySelectorAll('#tree-plot .node').length,"
                    " document.querySelector('#individual h3')?.textContent]"
                )
            return None

        wait_for([before + 1, chosen], shown)
        assert browser.complaints() == []
        assert {url.removeprefix(address) for url in browser.requests()} == {"/", "/version"}
