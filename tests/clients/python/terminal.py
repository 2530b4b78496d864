"""`jammi` on a terminal, as people have it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from serving import DEADLINE_SECONDS, JAMMI, environment


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
        self.seen = self.all = ""

    def type(self, text):
        os.write(self.controller, text.encode())

    def hides(self):
        """Waits until what is typed is not shown."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while termios.tcgetattr(self.controller)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed is shown"
            time.sleep(0.01)

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
                text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", chunk.decode(errors="replace"))
                self.seen += text
                self.all += text
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
        self.seen = self.seen[match.end() :]
        return match

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.controller)
