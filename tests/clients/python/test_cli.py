"""The command line: what scripts rely on, embedded and through a server."""

import io
import json
import re
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from connecting import refused
from grpc import StatusCode
from serving import DEADLINE_SECONDS, JAMMI, Server, environment, jammi

ROWS = "SELECT id, text FROM (VALUES (1, 'one'), (2, NULL), (3, 'th,r\"ee')) AS t(id, text) ORDER BY id"


@pytest.fixture(scope="module", params=["embedded", "remote"])
def target(request, tmp_path_factory):
    """The flags that name where commands work."""
    directory = tmp_path_factory.mktemp(request.param) / "data"
    if request.param == "embedded":
        yield ["--artifact-dir", str(directory)]
    else:
        with Server(directory) as server:
            yield ["--url", server.url]


@pytest.fixture
def both(start, tmp_path):
    """The flags of both targets, each on a directory of its own."""
    return [["--artifact-dir", str(tmp_path / "embedded")], ["--url", start("remote").url]]


def times_aside(text):
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


# Sources and models


def test_embedded_and_remote_print_the_same(both, alice, tmp_path):
    """One script, twice: every command's exit code, stdout and stderr are the same."""
    csv = tmp_path / "inbox.csv"
    csv.write_text("id,subject\n1,hello\n2,again\n")
    notes = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"tenant_id": [alice, None], "title": ["own", "shared"]}), notes)
    own = ["--tenant", alice]
    script = [
        ([], "sources", "list"),
        ([], "models", "list"),
        ([], "sources", "add", "notes", notes),
        (own, "sources", "add", "inbox", csv),
        (own, "sources", "add", "plain", notes, "--no-tenant-column"),
        (own, "sources", "add", "forced", csv, "--format", "csv"),
        *((own, "sources", "list", "--format", kind) for kind in ("table", "csv", "json", "ndjson")),
        *((own, "sources", "describe", "inbox", "--format", kind) for kind in ("table", "json")),
        (own, "sources", "describe", "notes"),
        ([], "sources", "list"),
        (own, "sources", "refresh", "inbox"),
        (own, "models", "register", "ranker", "1", "s3://models/ranker/1"),
        (own, "models", "register", "ranker", "2", "file:///m", "--metadata", '{"rows": 3}'),
        *((own, "models", "list", "--format", kind) for kind in ("table", "csv", "json", "ndjson")),
        (own, "models", "list", "ranker"),
        (own, "models", "describe", "ranker"),
        (own, "models", "describe", "ranker", "1"),
        ([], "models", "list"),
        *((own, "query", "--format", kind, ROWS) for kind in ("table", "csv", "json", "ndjson")),
        (own, "query", "SELECT title FROM notes.public.notes ORDER BY title"),
        ([], "query", "SELECT title FROM notes.public.notes ORDER BY title"),
        (own, "query", "SELECT name FROM sources ORDER BY name"),
        (own, "query", "SHOW TABLES"),
        (own, "query", "DESCRIBE notes.public.notes"),
        (own, "query", "EXPLAIN SELECT 1"),
        (own, "models", "drop", "ranker", "1"),
        (own, "sources", "drop", "inbox"),
        # What fails.
        (own, "sources", "drop", "inbox"),
        (own, "sources", "drop", "notes"),
        (own, "sources", "describe", "nope"),
        (own, "sources", "add", "plain", csv),
        (own, "sources", "add", "x", tmp_path / "missing.csv"),
        (own, "sources", "add", "a.b", csv),
        (own, "models", "drop", "ranker", "1"),
        (own, "models", "register", "ranker", "2", "file:///m"),
        (own, "models", "register", "ranker", "3", "file:///m", "--metadata", "["),
        (own, "query", "SELECT * FROM nope"),
        (own, "query", "SELEC 1"),
        (own, "query", "SELECT 1 / 0"),
        (own, "query", "INSERT INTO t VALUES (1)"),
        (own, "query", "SELECT 1; SELEC 2"),
    ]
    for flags, *command in script:
        results = []
        for target in both:
            done = subprocess.run(
                [JAMMI, *target, *flags, *map(str, command)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
            )
            results.append((done.returncode, times_aside(done.stdout), times_aside(done.stderr)))
        assert results[0] == results[1], command
        code, stdout, stderr = results[0]
        assert code in (0, 1)
        assert bool(stderr.startswith("error: ")) is (code == 1), (command, stderr)
        if code == 1 and "SELECT 1; SELEC 2" not in command:
            assert stdout == "", command
            assert stderr.count("\n") == 1, command


def test_the_lane_is_the_tenants(target, alice, bob, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("a\n1\n")

    def names(*flags):
        done = jammi(*target, *flags, "sources", "list", "--format", "json")
        return [source["name"] for source in json.loads(done.stdout)]

    jammi(*target, "--tenant", alice, "sources", "add", "inbox", file)
    assert names("--tenant", alice) == ["inbox"]
    assert names("--tenant", bob) == names() == []
    done = jammi(*target, "--tenant", bob, "query", "SELECT * FROM inbox.public.inbox", code=1)
    assert "table `inbox.public.inbox` does not exist" in done.stderr


def test_a_tenant_column_is_named_on_the_command_line(target, alice, unique, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(f"owner,n\n{alice},1\n,2\n")
    jammi(*target, "sources", "add", unique, file, "--tenant-column", "owner")
    sql = f"SELECT n FROM {unique}.public.{unique}"
    assert jammi(*target, "query", "--format", "csv", sql).stdout == "n\n2\n"
    done = jammi(*target, "--tenant", alice, "query", "--format", "csv", f"{sql} ORDER BY n")
    assert done.stdout == "n\n1\n2\n"
    done = jammi(*target, "sources", "add", f"{unique}x", file, "--tenant-column", "nope", code=1)
    assert '"nope"' in done.stderr


def test_a_relative_path_starts_where_the_command_runs(target, alice, unique, tmp_path):
    (tmp_path / "day").mkdir()
    for name in ("x.csv", "day/y.csv"):
        (tmp_path / name).write_text("a\n1\n")
    on_target = [*target, "--tenant", alice]
    for number, location in enumerate(("x.csv", "./x.csv", "day", "day/", "day/*.csv", "day/../x.csv")):
        name = f"{unique}{number}"
        jammi(*on_target, "sources", "add", name, location, cwd=tmp_path)
        done = jammi(*on_target, "query", "--format", "csv", f"SELECT a FROM {name}.public.{name}")
        assert done.stdout == "a\n1\n", location


# Output


def test_rows_alone_are_on_stdout_in_every_format(target):
    def query(kind, text=True):
        done = jammi(*target, "query", "--format", kind, ROWS, text=text)
        assert len(done.stderr) == 0
        return done.stdout

    expected = [{"id": 1, "text": "one"}, {"id": 2, "text": None}, {"id": 3, "text": 'th,r"ee'}]
    assert query("csv") == 'id,text\n1,one\n2,\n3,"th,r""ee"\n'
    assert json.loads(query("json")) == expected
    assert [json.loads(line) for line in query("ndjson").splitlines()] == expected
    arrow = pa.ipc.open_stream(query("arrow", text=False)).read_all()
    assert arrow.to_pylist() == expected
    parquet = pq.read_table(io.BytesIO(query("parquet", text=False)))
    assert parquet.to_pylist() == expected
    assert parquet.schema.names == arrow.schema.names == ["id", "text"]
    assert query("table").splitlines()[1].split("|")[1:3] == [" id ", " text    "]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("csv", "a\n"), ("json", "[]\n"), ("ndjson", "")],
)
def test_no_rows_are_still_a_result(target, kind, expected):
    done = jammi(*target, "query", "--format", kind, "SELECT 1 AS a WHERE false")
    assert done.stdout == expected


def test_no_rows_are_still_a_file(target):
    for kind, read in (
        ("arrow", lambda bytes: pa.ipc.open_stream(bytes).read_all()),
        ("parquet", lambda bytes: pq.read_table(io.BytesIO(bytes))),
    ):
        done = jammi(
            *target, "query", "--format", kind, "SELECT 1 AS a WHERE false", text=False
        )
        table = read(done.stdout)
        assert (table.column_names, table.num_rows) == (["a"], 0)


def test_a_file_of_statements_runs_in_order(target, tmp_path):
    script = tmp_path / "script.sql"
    script.write_text("-- two statements; one comment\nSELECT 1 AS a;\nSELECT ';' AS b;\n")
    for source, stdin in ((script, None), ("-", script.read_text())):
        done = jammi(*target, "query", "--format", "ndjson", "-f", source, stdin=stdin)
        assert done.stdout == '{"a":1}\n{"b":";"}\n'
    script.write_text("SELECT 1 AS a; SELEC 2; SELECT 3")
    done = jammi(*target, "query", "--format", "ndjson", "-f", script, code=1)
    assert done.stdout == '{"a":1}\n'
    assert done.stderr.startswith("error: statement 2: ")


def test_a_file_is_written_whole_or_not_at_all(target, tmp_path):
    out = tmp_path / "out.csv"
    done = jammi(*target, "query", "--format", "csv", "-o", out, ROWS)
    assert done.stdout == ""
    assert out.read_text().startswith("id,text\n")
    before = out.read_bytes()
    failing = "SELECT 1 / (value - 5) FROM generate_series(1, 9)"
    jammi(*target, "query", "--format", "csv", "-o", out, failing, code=1)
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_a_large_result_goes_through(target, tmp_path):
    out = tmp_path / "out.parquet"
    sql = "SELECT value AS n FROM generate_series(1, 1000000)"
    jammi(*target, "query", "--format", "parquet", "-o", out, sql)
    assert pq.read_table(out).column("n").to_pylist()[-1] == 1_000_000


def test_a_reader_that_leaves_is_no_error(target):
    command = [JAMMI, *target, "query", "--format", "csv"]
    command.append("SELECT value FROM generate_series(1, 100000000)")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout.readline() == "value\n"
        process.stdout.close()
        assert process.wait(DEADLINE_SECONDS) == 141
        assert process.stderr.read() == ""


# Exit codes


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (0, ["--version"], "jammi "),
        (0, ["--help"], "sources"),
        (0, ["query", "SELECT 1"], ""),
        (1, ["query", "SELECT nope"], "nope"),
        (1, ["sources", "describe", "nope"], "source `nope` does not exist"),
        (2, ["nope"], "unrecognized subcommand"),
        (2, ["query"], "required"),
        (2, ["query", " "], "there is no statement"),
        (2, ["query", "--format", "xml", "SELECT 1"], "possible values"),
        (2, ["query", "-f", "/no/such/file"], "/no/such/file"),
        (2, ["--tenant", "alice", "sources", "list"], "UUID"),
        (2, ["--tenant", "00000000-0000-0000-0000-000000000000", "sources", "list"], "nil"),
        (2, ["sources", "add", "x"], "required"),
        (2, ["sources", "add", "x", "y", "--format", "xml"], "parquet"),
        (2, ["query", "--format", "arrow", "SELECT 1; SELECT 2"], "one result"),
    ],
)
def test_exit_codes_tell_failures_apart(target, code, arguments, says):
    done = jammi(*target, *arguments, code=code)
    assert says in (done.stderr if code else done.stdout)
    if code:
        assert done.stdout == ""


def test_targets_that_are_none_are_exit_code_2(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for flags, says in (
        (["--url", "grpc://127.0.0.1:1"], "127.0.0.1:1"),
        (["--url", "http://127.0.0.1:1"], "use grpc://HOST:PORT"),
        (["--url", "grpc://127.0.0.1:1", "--artifact-dir", str(tmp_path)], "cannot be used with"),
        (["--artifact-dir", str(file)], str(file)),
        (["--config", str(tmp_path / "none.toml")], "none.toml"),
    ):
        done = jammi(*flags, "query", "SELECT 1", code=2)
        assert says in done.stderr
        assert done.stdout == ""


# Settings


def test_settings_are_layered_and_unknown_ones_are_errors(tmp_path):
    file = tmp_path / "jammi.toml"
    file.write_text('[server]\nlisten = "127.0.0.1:1"\nhttp_listen = "127.0.0.1:2"\n')

    def show(*flags, env=None, code=0):
        return jammi(*flags, "config", "show", cwd=tmp_path, env=env, code=code)

    shown = show().stdout
    assert 'listen = "127.0.0.1:1"' in shown and "jammi.toml" in shown
    shown = show(env={"JAMMI_SERVER__LISTEN": "127.0.0.1:3"}).stdout
    assert 'listen = "127.0.0.1:3"' in shown and "JAMMI_SERVER__LISTEN" in shown
    assert 'http_listen = "127.0.0.1:2"' in shown
    shown = show("--artifact-dir", "elsewhere", env={"JAMMI_ARTIFACT_DIR": "here"}).stdout
    assert 'artifact_dir = "elsewhere"  # --artifact-dir' in shown

    done = show(env={"JAMMI_SERVER__LISTENN": "x"}, code=2)
    assert "JAMMI_SERVER__LISTENN" in done.stderr
    file.write_text("[server]\nlistenn = 1\n")
    done = show(code=2)
    assert "listenn" in done.stderr and "jammi.toml" in done.stderr
    file.write_text("[server]\nlisten = 1\n")
    assert "server.listen" in show(code=2).stderr


def test_what_is_shown_is_a_configuration(tmp_path):
    shown = jammi("config", "show", cwd=tmp_path).stdout
    (tmp_path / "jammi.toml").write_text(shown)
    again = jammi("config", "show", cwd=tmp_path).stdout
    strip = lambda text: re.sub(r"  #.*", "", text)
    assert strip(shown) == strip(again)


# The server's own output


def test_serve_prints_two_lines_on_stdout(start):
    server = start()
    server.stop()
    assert re.fullmatch(r"grpc://127\.0\.0\.1:\d+", server.url)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.http)
    assert server.rest_of_stdout() == []
    for note in ("nothing authenticates", "not encrypted", "loopback only"):
        assert note in server.stderr()


def test_serve_beyond_loopback_warns_and_registers_nothing(start, client, alice, unique, tmp_path):
    server = start(listen="0.0.0.0:0")
    server.wait_for_stderr("warning: listening beyond loopback")
    server.address = server.address.replace("0.0.0.0", "127.0.0.1")
    file = tmp_path / "x.csv"
    file.write_text("a\n1\n")
    with refused(StatusCode.PERMISSION_DENIED, "sources.roots"):
        client(alice, of=server).add_source(unique, file)


def test_json_logs_are_json(start, client, alice):
    log = {"JAMMI_LOG__FORMAT": "json", "JAMMI_LOG__FILTER": "info,jammi_db::server::observe=debug"}
    server = start("data", "--sample", env=log)
    client(alice, of=server).bound()
    server.wait_for_stderr("GetTenant")
    server.stop()
    lines = [json.loads(line) for line in server.stderr().splitlines()]
    ended = [line for line in lines if line.get("message") == "request ended"]
    assert ended and all("request_id" in json.dumps(line) for line in ended)
    assert any("nothing authenticates" in line["message"] for line in lines)


# The shell


def test_statements_from_a_pipe_run_one_by_one(target):
    done = jammi(*target, "shell", "--format", "csv", stdin="SELECT 1 AS a;\nSELECT 2 AS b;\n")
    assert done.stdout == "a\n1\nb\n2\n"
