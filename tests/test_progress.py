from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from facetask.progress import Console, Silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Silent()
    reporter.line("a")
    reporter.warn("b")
    with reporter.bar("c", 3) as advance:
        advance(3)
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_lines_come_out_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Console()
    text = "regress age [years] :smile: [bold]: /a/long/path/" + "x" * 200
    reporter.line(text)
    reporter.warn("3 images [red] cannot be read")
    with reporter.bar("responses", 5) as advance:
        advance(5)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"{text}\nwarning: 3 images [red] cannot be read\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_a_terminal_gets_a_bar_with_its_count(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Console().bar("curve age [years]", 4) as advance:
        advance(3)
        advance(1)
    shown = terminal.getvalue()
    assert "curve age [years]" in shown
    assert "4/4" in shown


def test_a_bar_within_another_is_drawn_below_it_and_ends_first(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        console = Console()
        with console.bar("age: epochs", 2) as epoch_done:
            for epoch in (1, 2):
                with console.bar(f"epoch {epoch} of 2: images", 30) as advance:
                    advance(30)
                epoch_done(1)
            console.line("in between")
        with console.bar("afterwards", 1) as advance:
            advance(1)
    shown = terminal.getvalue()
    for text in ("age: epochs", "epoch 2 of 2: images", "2/2", "in between", "afterwards"):
        assert text in shown
    after = shown[shown.rindex("afterwards") :]
    assert "epoch" not in after


def test_a_bar_tells_how_fast_things_go(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Task

    monkeypatch.setattr(Task, "speed", 85.4)
    with redirect_stderr(terminal), Console().bar("images", 4) as advance:
        advance(4)
    assert "85/s" in terminal.getvalue()


def test_nothing_to_do_draws_nothing(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Console().bar("responses", 0) as advance:
        advance(0)
    assert terminal.getvalue() == ""


def test_a_bar_ends_with_its_work_though_that_fails(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        console = Console()
        with pytest.raises(KeyboardInterrupt), console.bar("responses", 4):
            raise KeyboardInterrupt
        console.line("stopped")
    assert terminal.getvalue().endswith("stopped\n")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back
