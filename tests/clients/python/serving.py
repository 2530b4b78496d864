"""The real server, as a process of its own.

Each server listens on free loopback ports and keeps its data in a temporary
directory; whoever starts one stops it.
"""

import os
import queue
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

JAMMI = os.environ.get("JAMMI_BIN") or str(
    Path(__file__).resolve().parents[3] / "target" / "debug" / "jammi"
)

# Far beyond what a start or a stop takes on a loaded machine: what takes
# longer hangs.
DEADLINE_SECONDS = 120


def environment(**more):
    """This process's environment without what configures Jammi or object stores."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAMMI_", "AWS_"))
    }
    return {**kept, "RUST_BACKTRACE": "0", **more}


class Server:
    """`jammi serve` on `artifact_dir`, with `flags` and `env` on top; `grpc` and `http` are
    the schemes that it listens by."""

    def __init__(
        self, artifact_dir, *flags, env=None, listen="127.0.0.1:0", grpc="grpc", http="http"
    ):
        self.artifact_dir = Path(artifact_dir)
        self.log = self.artifact_dir.with_name(self.artifact_dir.name + ".log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    JAMMI, "serve",
                    "--artifact-dir", str(self.artifact_dir),
                    "--listen", listen,
                    "--http-listen", "127.0.0.1:0",
                    *flags,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(**(env or {})),
                cwd=self.artifact_dir.parent,
            )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read_stdout)
        self._reader.start()
        self.url = self._listening(grpc)
        self.http = self._listening(http)
        self.address = self.url.removeprefix(f"{grpc}://")

    def _read_stdout(self):
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _listening(self, scheme):
        line = self._lines.get(timeout=DEADLINE_SECONDS)
        prefix = f"listening {scheme}://"
        if line is None or not line.startswith(prefix):
            self.kill()
            raise AssertionError(f"expected {prefix!r}, got {line!r}:\n{self.stderr()}")
        return line.removeprefix("listening ").rstrip("\n")

    def rest_of_stdout(self):
        """What the server, which has ended, wrote after it was ready."""
        return list(iter(self._lines.get, None))

    def stderr(self):
        return self.log.read_text()

    def wait_for_stderr(self, pattern):
        """The first match of `pattern`, once the server has written it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (match := re.search(pattern, self.stderr(), re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.stderr()}"
            time.sleep(0.02)
        return match

    def stop(self):
        """Asks the server to stop; it has to end in order."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        assert code == 0, f"exit code {code}:\n{self.stderr()}"
        assert "panicked" not in self.stderr(), self.stderr()

    def kill(self):
        """Ends the server as a power cut would."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        self._reader.join()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            self.stop()


def jammi(*args, code=0, stdin=None, env=None, cwd=None, text=True):
    """Runs the command, which has to end with `code`."""
    done = subprocess.run(
        [JAMMI, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=text,
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == code, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
