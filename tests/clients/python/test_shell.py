"""The interactive shell, on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest
from serving import DEADLINE_SECONDS, JAMMI, environment

CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"


class Terminal:
    """`jammi` on a terminal of its own."""

    def __init__(self, *args, history):
        self.controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [JAMMI, *map(str, args)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment(TERM="xterm", JAMMI_HISTORY=str(history)),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.seen = ""

    def type(self, text):
        os.write(self.controller, text.encode())

    def expect(self, pattern):
        """Waits until what is written since the last match has `pattern` in it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.controller], [], [], 1)
            if ready:
                try:
                    chunk = os.read(self.controller, 65536)
                except OSError:
                    chunk = b""
                assert chunk, f"no {pattern!r} in {self.seen!r}"
                # The line editor asks where the cursor is, as of any terminal.
                for _ in range(chunk.count(b"\x1b[6n")):
                    os.write(self.controller, b"\x1b[1;1R")
                self.seen += re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", chunk.decode(errors="replace"))
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
        self.seen = self.seen[match.end() :]
        return match

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.controller)


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
