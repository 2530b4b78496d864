"""Every command and program in the documentation runs, and answers what is printed under it.

A document is one conversation: its blocks run in order in one shell, beside a
fresh server with the sample loaded. What a block's fence says decides what
happens to it:

    ```sh           runs in the shell
    ```sh serve     starts the server
    ```sh test      is the command that runs this test
    ```python       runs as a program in the shell's directory and environment
    ```text         is what the block before it wrote to stdout; with none before it,
                    what the server wrote
    ```toml         is a configuration file that has to be accepted
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from jammi.v1.session import session_pb2
from serving import DEADLINE_SECONDS, JAMMI, Server, environment, jammi

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STUBS = Path(session_pb2.__file__).parents[3]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

FENCE = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"sh", "sh serve", "sh test", "python", "text", "toml"}


def blocks(document):
    text = document.read_text()
    found = [(kind.strip(), body) for kind, body in FENCE.findall(text)]
    assert len(found) * 2 == len(re.findall(r"^```", text, re.MULTILINE)), "a fence names no kind"
    assert {kind for kind, _ in found} <= KINDS
    return found


def conversation(found, here, server_wrote):
    """The shell script of the blocks to run, and what each of them has to print."""
    script, expected = ["set -euo pipefail"], []
    for number, (kind, body) in enumerate(found):
        if kind == "sh":
            script.append(body)
        elif kind == "python":
            program = here / f"block-{number}.py"
            program.write_text(body)
            script.append(f"PYTHONPATH=${{PYTHONPATH:-}}:$PWD python {program}")
        elif kind == "text":
            if expected:
                expected[-1] = body
            else:
                assert body == server_wrote
            continue
        else:
            continue
        script.append(f"echo '--- end of block {number}'")
        expected.append(None)
    return "\n".join(script), expected


def checkout(here):
    """Makes `here` a directory that has what a checkout with a built binary has."""
    (here / "target" / "debug").mkdir(parents=True)
    (here / "target" / "debug" / "jammi").symlink_to(JAMMI)
    (here / "proto").symlink_to(ROOT / "proto")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_says_to_type_works(document, tmp_path):
    here = tmp_path / "checkout"
    checkout(here)
    found = blocks(document)
    with Server(here / "jammi-data", "--sample") as server:
        http = server.http.removeprefix("http://")

        def here_and_now(text):
            text = text.replace("127.0.0.1:50051", server.address)
            return text.replace("127.0.0.1:50052", http)

        script, expected = conversation(
            [(kind, here_and_now(body)) for kind, body in found],
            tmp_path,
            server_wrote=f"listening {server.url}\nlistening {server.http}\n",
        )
        commands = [Path(sys.executable).parent, here / "target" / "debug", os.environ["PATH"]]
        path = os.pathsep.join(map(str, commands))
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=here,
            env=environment(PATH=path, PIP_CONSTRAINT=str(REQUIREMENTS), PYTHONPATH=str(STUBS)),
            capture_output=True,
            text=True,
            timeout=3 * DEADLINE_SECONDS,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # Symptom: the samples' data was left among the sources.
    left = {path.name for path in here.iterdir()}
    assert left <= {"target", "proto", "jammi-data", "jammi-data.log", ".venv"}
    printed = re.split(r"^--- end of block \d+\n", done.stdout, flags=re.MULTILINE)
    assert len(printed) == len(expected) + 1
    for actual, text in zip(printed, expected):
        if text is not None:
            assert actual == text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_configuration_in_a_document_is_accepted(document, tmp_path):
    for kind, body in blocks(document):
        if kind == "toml":
            file = tmp_path / "jammi.toml"
            file.write_text(body)
            jammi("--config", file, "config", "show")


def test_the_two_commands_of_the_readme_are_what_this_test_stands_for():
    commands = {kind: body for kind, body in blocks(ROOT / "README.md")}
    assert commands["sh serve"] == "cargo run -- serve --sample\n"
    assert commands["sh test"] == "make test\n"


def test_every_setting_is_documented_with_its_default(tmp_path):
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.+?) \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE
    )
    documented = {name: default.strip("`") for name, default in rows}
    table, actual = "", {}
    for line in jammi("config", "show", cwd=tmp_path).stdout.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif match := re.fullmatch(r"(?:# (\w+) is not set|(\w+) = (.+)  # default)", line):
            unset, name, default = match.groups()
            default = {"[]": "none", None: "unset"}.get(default, default)
            actual[table + (unset or name)] = default.strip('"')
    assert documented == actual


def test_the_documented_metrics_are_those_that_exist():
    text = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"`(jammi_\w+)", text))
    source = (ROOT / "src" / "server" / "telemetry.rs").read_text()
    assert documented == set(re.findall(r'"(jammi_\w+)"', source))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_program_that_the_server_prints_runs_as_printed(start, tmp_path):
    server = start("data", "--sample")
    example = server.wait_for_stderr(r"pip install ([^\n]+)\n\n(import .*cursor\.fetchall\(\)\]\))\n")
    packages, program = example.groups()
    pinned = {line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines()}
    assert set(packages.split()) <= pinned
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        """alice reads ['Welcome to Jammi', "Alice's groceries", "Alice's ideas", "Alice's plan"]""",
        """bob reads ['Welcome to Jammi', "Bob's groceries", "Bob's ideas", "Bob's plan"]""",
    ]
