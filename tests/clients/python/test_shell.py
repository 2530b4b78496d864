"""The interactive shell, on a terminal."""

import pytest
from serving import DEADLINE_SECONDS
from terminal import Terminal

CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"


@pytest.fixture(params=["embedded", "remote"])
def terminal(request, server, tmp_path):
    flags = {"embedded": ["--artifact-dir", tmp_path / "data"], "remote": ["--url", server.url]}
    opened = []

    def terminal(*args):
        opened.append(Terminal(*flags[request.param], *args, history=tmp_path / "history"))
        opened[-1].expect("> ")
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()


def test_statements_and_commands_are_answered(terminal, alice):
    shell = terminal()
    shell.type("SELECT 40 + 2 AS answer;\r")
    shell.expect(r"\| +answer \|[\s\S]+\| +42 \|[\s\S]+> ")
    # Over two lines.
    shell.type("SELECT 'two'\r")
    shell.type("AS lines;\r")
    shell.expect(r"\| two +\|[\s\S]+> ")
    shell.type("\\d\r")
    shell.expect(r"models[\s\S]+sources[\s\S]+> ")
    shell.type("\\d models\r")
    shell.expect(r"registered_at[\s\S]+> ")
    shell.type(f"\\tenant {alice}\r")
    shell.expect("> ")
    shell.type("\\tenant\r")
    shell.expect(rf"{alice}[\s\S]+> ")
    # An error ends the statement, not the shell.
    shell.type("SELECT * FROM nope;\r")
    shell.expect(r"table `nope` does not exist[\s\S]+> ")
    shell.type("SELECT 7 AS still;\r")
    shell.expect(r"\| +7 \|[\s\S]+> ")
    shell.type("\\q\r")
    assert shell.process.wait(DEADLINE_SECONDS) == 0


def test_ctrl_c_cancels_the_query_and_ctrl_d_leaves(terminal):
    shell = terminal()
    shell.type("SELECT count(*) FROM generate_series(1, 1000000000000);\r")
    # One that is typed before the query runs is an empty line's.
    shell.expect("working, ")
    shell.type(CTRL_C)
    shell.expect(r"cancelled[\s\S]+> ")
    shell.type("SELECT 7 AS still;\r")
    shell.expect(r"\| +7 \|[\s\S]+> ")
    shell.type(CTRL_D)
    assert shell.process.wait(DEADLINE_SECONDS) == 0


def test_names_are_completed(terminal):
    shell = terminal()
    shell.type("SELECT count(*) AS n FROM jammi.catalog.mod" + TAB)
    shell.expect("models")
    shell.type(";\r")
    shell.expect(r"\| +\d+ \|[\s\S]+> ")


def test_history_outlives_the_shell(terminal):
    shell = terminal()
    shell.type("SELECT 12345 AS remembered;\r")
    shell.expect(r"\| +12345 \|[\s\S]+> ")
    shell.type("\\q\r")
    assert shell.process.wait(DEADLINE_SECONDS) == 0
    shell = terminal()
    # Up, past the command that left.
    shell.type("\x1b[A")
    shell.expect(r"\\q")
    shell.type("\x1b[A")
    shell.expect("SELECT 12345")
    shell.type("\r")
    shell.expect(r"\| +12345 \|[\s\S]+> ")
