package clients

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

var insecurely = grpc.WithTransportCredentials(insecure.NewCredentials())

func flightCancel(t *testing.T) {
	client := tenantFlight(t, newTenant())
	ended := func(ctx context.Context, sql string) chan error {
		ended := make(chan error, 1)
		go func() {
			info, err := client.Execute(client.in(ctx), sql)
			_, err = readAll(client.in(ctx), client.Client, info, err)
			ended <- err
		}()
		return ended
	}
	t.Run("a query that has answered nothing yet", func(t *testing.T) {
		before := server.counted(t, "jammi_requests_total", doGet, `code="CANCELLED"`)
		ctx, cancel := contextWithCancel(t)
		answer := ended(ctx, endless)
		computes(t)
		cancel()
		refused(t, <-answer, codes.Canceled)
		require.NoError(t, server.reaches(before+1, "jammi_requests_total", doGet, `code="CANCELLED"`))
		server.comesToRest(t)
	})
	t.Run("a query by its deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		refused(t, <-ended(ctx, endless), codes.DeadlineExceeded)
		server.comesToRest(t)
	})
	t.Run("a result that is left halfway", func(t *testing.T) {
		ctx, cancel := contextWithCancel(t)
		info, err := client.Execute(client.in(ctx), "SELECT value FROM generate_series(1, 1000000000000)")
		require.NoError(t, err)
		reader, err := client.DoGet(client.in(ctx), info.Endpoint[0].Ticket)
		require.NoError(t, err)
		require.True(t, reader.Next())
		cancel()
		reader.Release()
		server.comesToRest(t)
	})
	t.Run("a write, of which nothing is left", func(t *testing.T) {
		client.update(t, "CREATE TABLE t (id BIGINT)")
		ctx, cancel := contextWithCancel(t)
		answer := make(chan error, 1)
		go func() {
			_, err := client.ExecuteUpdate(client.in(ctx), "INSERT INTO t "+endless)
			answer <- err
		}()
		computes(t)
		cancel()
		refused(t, <-answer, codes.Canceled)
		server.comesToRest(t)
		require.EqualValues(t, 1, client.update(t, "INSERT INTO t VALUES (1)"))
		require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT count(*) FROM t"))
	})
	t.Run("an ingest, of which nothing is left", func(t *testing.T) {
		ctx, cancel := contextWithCancel(t)
		stream := &endlessReader{schema: columns("id", arrow.PrimitiveTypes.Int64), after: 20, then: cancel}
		_, err := client.ExecuteIngest(client.in(ctx), stream, ingestInto("t"))
		require.Error(t, err)
		require.NoError(t, server.reaches(0, "jammi_requests_active"))
		require.NoError(t, server.reaches(0, "jammi_transactions"))
		require.EqualValues(t, 1, client.update(t, "INSERT INTO t VALUES (2)"))
		require.Equal(t, [][]string{{"2"}}, client.query(t, "SELECT count(*) FROM t"))
	})
	require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT 1"))
}

func flightErrors(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	client, others := tenantFlight(t, alice), tenantFlight(t, bob)
	for name, wrong := range map[string]struct {
		sql  string
		code codes.Code
		says string
	}{
		"bad SQL":                   {"SELEC 1", codes.InvalidArgument, "the statement does not parse"},
		"an unknown table":          {"SELECT * FROM nope", codes.NotFound, "table `nope` does not exist"},
		"an unknown catalog":        {"SELECT * FROM nope.public.nope", codes.NotFound, "table `nope.public.nope` does not exist"},
		"an unknown column":         {"SELECT nope FROM jammi.catalog.models", codes.InvalidArgument, "column nope does not exist"},
		"two statements":            {"SELECT 1; SELECT 2", codes.InvalidArgument, "more than one statement"},
		"a statement unserved":      {"SET datafusion.execution.batch_size = 1", codes.Unimplemented, "SET"},
		"a file":                    {"SELECT * FROM '/etc/passwd'", codes.NotFound, "does not exist"},
		"in the midst of a result":  {"SELECT 1 / (value - 500000) FROM generate_series(1, 1000000)", codes.InvalidArgument, "division by zero"},
		"at the beginning of one":   {"SELECT 1 / 0", codes.InvalidArgument, "division by zero"},
		"no value of its parameter": {"SELECT ?", codes.InvalidArgument, "the statement has 1 parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, client.fails(t, wrong.sql), wrong.code, wrong.says)
			require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT 1"))
		})
	}
	t.Run("wrong parameters", func(t *testing.T) {
		number, text := arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String
		for _, wrong := range []struct {
			bound arrow.RecordBatch
			says  string
		}{
			{nil, "the statement has 1 parameter"},
			{records(t, columns("0", number, "1", number), `[{"0": 1, "1": 2}]`), "the statement has 1 parameter and 2 values are bound"},
			{records(t, columns("0", text), `[{"0": "many"}]`), "parameter 1 is Utf8 where Int64 is expected"},
			{records(t, columns("0", number), `[{"0": 1}, {"0": 2}]`), "takes one row of parameters"},
		} {
			statement, err := client.Prepare(client.ctx(), "SELECT 1 + ?")
			require.NoError(t, err)
			statement.SetParameters(wrong.bound)
			_, err = client.result(statement.Execute(client.ctx()))
			refused(t, err, codes.InvalidArgument, wrong.says)
		}
	})
	t.Run("no session where one is needed", func(t *testing.T) {
		for _, sql := range []string{"BEGIN", "CREATE TEMPORARY TABLE t (id INT)"} {
			_, err := client.ExecuteUpdate(t.Context(), sql)
			refused(t, err, codes.InvalidArgument, sessionHeader)
		}
	})
	t.Run("a row of another tenant", func(t *testing.T) {
		client.update(t, "CREATE TABLE t (id BIGINT)")
		_, err := client.ExecuteUpdate(client.ctx(), "INSERT INTO t (id, tenant_id) VALUES (1, NULL), (2, '"+bob+"')")
		refused(t, err, codes.PermissionDenied, "another tenant")
		require.Equal(t, [][]string{{"0"}}, client.query(t, "SELECT count(*) FROM t"))
	})
	t.Run("a table of another tenant is as one that never was", func(t *testing.T) {
		hidden, never := unique(), unique()
		client.update(t, "CREATE TABLE "+hidden+" (id BIGINT)")
		for _, sql := range []string{"SELECT * FROM %s", "INSERT INTO %s (id) VALUES (1)", "DROP TABLE %s"} {
			told := others.fails(t, fmt.Sprintf(sql, hidden))
			refused(t, told, codes.NotFound)
			require.Equal(t, others.fails(t, fmt.Sprintf(sql, never)).Error(), strings.ReplaceAll(told.Error(), hidden, never))
		}
	})
	t.Run("a handle of another session, or of none", func(t *testing.T) {
		info, err := client.Execute(client.ctx(), "SELECT 1")
		require.NoError(t, err)
		statement, err := client.Prepare(client.ctx(), "SELECT 1")
		require.NoError(t, err)
		for _, stranger := range []*Flight{others, tenantFlight(t, alice), tenantFlight(t, "")} {
			_, err := stranger.result(info, nil)
			refused(t, err, codes.FailedPrecondition, "to another session")
			_, err = statement.Execute(stranger.ctx())
			refused(t, err, codes.FailedPrecondition, "to another session")
		}
		forged := &flight.Ticket{Ticket: append([]byte{}, info.Endpoint[0].Ticket.Ticket...)}
		forged.Ticket[len(forged.Ticket)-1] ^= 1
		refused(t, (&Result{}).read(client.ctx(), client.Client, forged), codes.InvalidArgument)
	})
	t.Run("a descriptor that is no command", func(t *testing.T) {
		_, err := client.Client.Client.GetFlightInfo(client.ctx(), &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{"notes"}})
		refused(t, err, codes.InvalidArgument, "send a Flight SQL command")
		_, err = client.Client.Client.GetFlightInfo(client.ctx(), &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: []byte("nonsense")})
		refused(t, err, codes.InvalidArgument)
	})
	t.Run("an action that is none", func(t *testing.T) {
		stream, err := client.Client.Client.DoAction(client.ctx(), &flight.Action{Type: "Nonsense"})
		require.NoError(t, err)
		_, err = stream.Recv()
		refused(t, err, codes.Unimplemented, "Nonsense")
	})
}

func flightIsolation(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	shared := unique()
	tenantFlight(t, "").update(t, "CREATE TABLE "+shared+" (id BIGINT, owner VARCHAR)")
	owns := func(tenant, owner string, count int) {
		tenantFlight(t, tenant).update(t, fmt.Sprintf("INSERT INTO %s (id, owner) SELECT value, '%s' FROM generate_series(1, %d)", shared, owner, count))
	}
	owns(alice, "alice", 100)
	owns(bob, "bob", 50)
	seen := map[string]string{alice: "[[alice 100]]", bob: "[[bob 50]]", "": "[]"}

	t.Run("two tenants at once over one connection", func(t *testing.T) {
		client := newClient(t)
		var workers sync.WaitGroup
		wrong := make(chan string, 1000)
		for tenant, want := range seen {
			session := newSession(t, tenant)
			check := func(found *Result, err error) {
				if err != nil || fmt.Sprint(found.rows) != want {
					wrong <- fmt.Sprintf("%v, %v and not %v", found, err, want)
				}
			}
			workers.Go(func() {
				ctx := session.ctx()
				sql := "SELECT owner, count(*) FROM " + shared + " WHERE owner <> ? OR tenant_id = '" + bob + "' GROUP BY owner"
				statement, err := client.Prepare(ctx, sql)
				if err != nil {
					wrong <- err.Error()
					return
				}
				for range 25 {
					info, err := client.Execute(ctx, strings.Replace(sql, "?", "'nobody'", 1))
					check(readAll(ctx, client, info, err))
					statement.SetParameters(records(t, columns("0", arrow.BinaryTypes.String), `[{"0": "nobody"}]`))
					info, err = statement.Execute(ctx)
					check(readAll(ctx, client, info, err))
				}
			})
		}
		workers.Wait()
		close(wrong)
		for answer := range wrong {
			t.Error(answer)
		}
	})
	t.Run("two tenants in transactions over one connection", func(t *testing.T) {
		client := newClient(t)
		first, second := newSession(t, alice), newSession(t, bob)
		hers, err := client.BeginTransaction(first.ctx())
		require.NoError(t, err)
		his, err := client.BeginTransaction(second.ctx())
		require.NoError(t, err)
		// Neither waits for the other.
		_, err = hers.ExecuteUpdate(first.ctx(), "DELETE FROM "+shared)
		require.NoError(t, err)
		count, err := his.ExecuteUpdate(second.ctx(), "UPDATE "+shared+" SET owner = 'still bob'")
		require.NoError(t, err)
		require.EqualValues(t, 50, count)
		_, err = his.ExecuteUpdate(first.ctx(), "DELETE FROM "+shared)
		refused(t, err, codes.NotFound, "does not exist, or has ended")
		require.NoError(t, hers.Commit(first.ctx()))
		require.NoError(t, his.Commit(second.ctx()))
		owners := "SELECT DISTINCT owner FROM " + shared
		require.Empty(t, tenantFlight(t, alice).query(t, owners))
		require.Equal(t, [][]string{{"still bob"}}, tenantFlight(t, bob).query(t, owners))
	})
	t.Run("rows of a source", func(t *testing.T) {
		name := notes(t, alice, bob)
		titles := "SELECT title FROM " + name + " WHERE tenant_id = '" + alice + "' OR true ORDER BY id"
		require.Equal(t, [][]string{{"b1"}, {"shared"}}, tenantFlight(t, bob).query(t, titles))
		require.Equal(t, [][]string{{"shared"}}, tenantFlight(t, "").query(t, titles))
	})
}

func flightTypes(t *testing.T) {
	client := tenantFlight(t, newTenant())
	for _, kind := range kinds {
		t.Run(kind.kind.String(), func(t *testing.T) {
			table := unique()
			batch := records(t, columns("id", arrow.PrimitiveTypes.Int64, "v", kind.kind),
				fmt.Sprintf(`[{"id": 1, "v": %s}, {"id": 2, "v": null}]`, kind.value))
			_, err := client.ingest(t, modeCreate, table, batch)
			require.NoError(t, err)
			for _, filter := range []string{"", " WHERE false"} {
				found, err := client.result(client.Execute(client.ctx(), "SELECT id, v FROM "+table+filter+" ORDER BY id"))
				require.NoError(t, err)
				// Empty results keep their types too.
				require.True(t, arrow.TypeEqual(kind.kind, found.schema.Field(1).Type), "found %s", found.schema)
				if filter == "" {
					require.Len(t, found.batches, 1)
					require.True(t, array.Equal(batch.Column(1), found.batches[0].Column(1)), "%v", found.rows)
				} else {
					require.Empty(t, found.rows)
				}
			}
		})
	}
	// Few clients read these layouts, so that they are sent as what they stand for.
	t.Run("a dictionary, as what it stands for", func(t *testing.T) {
		kind := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: arrow.BinaryTypes.String}
		words := array.NewDictionaryBuilder(memory.DefaultAllocator, kind).(*array.BinaryDictionaryBuilder)
		for _, word := range []string{"red", "green", "red"} {
			require.NoError(t, words.AppendString(word))
		}
		words.AppendNull()
		batch := array.NewRecordBatch(columns("v", kind), []arrow.Array{words.NewArray()}, 4)
		table := unique()
		_, err := client.ingest(t, modeCreate, table, batch)
		require.NoError(t, err)
		found, err := client.result(client.Execute(client.ctx(), "SELECT v FROM "+table))
		require.NoError(t, err)
		require.Equal(t, "utf8", found.schema.Field(0).Type.String())
		require.ElementsMatch(t, [][]string{{"red"}, {"green"}, {"red"}, {"(null)"}}, found.rows)
	})
	t.Run("a view, as what it stands for", func(t *testing.T) {
		table := unique()
		_, err := client.ingest(t, modeCreate, table, records(t, columns("v", arrow.BinaryTypes.StringView), `[{"v": "longer than twelve bytes"}]`))
		require.NoError(t, err)
		found, err := client.result(client.Execute(client.ctx(), "SELECT v FROM "+table))
		require.NoError(t, err)
		require.Equal(t, "utf8", found.schema.Field(0).Type.String())
		require.Equal(t, [][]string{{"longer than twelve bytes"}}, found.rows)
	})
}

func flightStreaming(t *testing.T) {
	client := tenantFlight(t, newTenant())
	t.Run("many rows", func(t *testing.T) {
		const count = 5_000_000
		info, err := client.Execute(client.ctx(), fmt.Sprintf("SELECT value, value %% 3 = 0 FROM generate_series(1, %d)", count))
		require.NoError(t, err)
		var found, sum int64
		var batches int
		for _, endpoint := range info.Endpoint {
			reader, err := client.DoGet(client.ctx(), endpoint.Ticket)
			require.NoError(t, err)
			for reader.Next() {
				values := reader.RecordBatch().Column(0).(*array.Int64).Int64Values()
				for _, value := range values {
					sum += value
				}
				found, batches = found+int64(len(values)), batches+1
			}
			require.NoError(t, reader.Err())
			reader.Release()
		}
		require.Equal(t, [2]int64{count, count * (count + 1) / 2}, [2]int64{found, sum})
		require.Greater(t, batches, 100)
	})
	t.Run("long rows, in messages that a client takes", func(t *testing.T) {
		found, err := client.result(client.Execute(client.ctx(), "SELECT value, repeat('x', 500000) FROM generate_series(1, 64) ORDER BY value"))
		require.NoError(t, err)
		require.Len(t, found.rows, 64)
		for at, row := range found.rows {
			require.Equal(t, fmt.Sprint(at+1), row[0])
			require.Len(t, row[1], 500_000)
		}
	})
}

// endlessReader streams batches without an end, and calls `then` after some.
type endlessReader struct {
	schema *arrow.Schema
	after  int
	then   func()
	batch  arrow.RecordBatch
	sent   int
}

func (r *endlessReader) Retain()                        {}
func (r *endlessReader) Release()                       {}
func (r *endlessReader) Schema() *arrow.Schema          { return r.schema }
func (r *endlessReader) RecordBatch() arrow.RecordBatch { return r.batch }
func (r *endlessReader) Record() arrow.RecordBatch      { return r.batch }
func (r *endlessReader) Err() error                     { return nil }

func (r *endlessReader) Next() bool {
	if r.sent++; r.sent == r.after {
		r.then()
	}
	rows := array.NewInt64Builder(memory.DefaultAllocator)
	defer rows.Release()
	for number := range int64(1000) {
		rows.Append(number)
	}
	r.batch = array.NewRecordBatch(r.schema, []arrow.Array{rows.NewArray()}, 1000)
	return true
}
