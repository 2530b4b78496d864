package clients

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// endless is a query whose first row would come after years.
const endless = "SELECT count(*) FROM generate_series(1, 1000000000000000) WHERE value % 7 = 3"

const doGet = `method="/arrow.flight.protocol.FlightService/DoGet"`

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// The driver says nothing of databases' metadata: what exists is read with SQL.
func sqlMetadata(t *testing.T) {
	tenant, stranger := newTenant(), newTenant()
	db, others := tenantDB(t, tenant), tenantDB(t, stranger)
	execute(t, db, "CREATE TABLE secrets (id BIGINT PRIMARY KEY, word VARCHAR)")
	columns := "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
	require.Equal(t, [][]any{{"id", "Int64", "NO"}, {"word", "Utf8", "YES"}, {"tenant_id", "Utf8", "YES"}},
		fetched(t, db, columns, "secrets"))
	require.Empty(t, fetched(t, others, columns, "secrets"))
	tables := "SELECT table_catalog, table_schema, table_type FROM information_schema.tables WHERE table_name = 'secrets'"
	require.Equal(t, [][]any{{"mutable", "public", "BASE TABLE"}}, fetched(t, db, tables))
	require.Empty(t, fetched(t, others, tables))
}

func sqlCancel(t *testing.T) {
	db := tenantDB(t, newTenant())
	t.Run("a query that has answered nothing yet", func(t *testing.T) {
		before := server.counted(t, "jammi_requests_total", doGet, `code="CANCELLED"`)
		ctx, cancel := contextWithCancel(t)
		ended := make(chan error)
		go func() {
			_, err := fetch(db.QueryContext(ctx, endless))
			ended <- err
		}()
		computes(t)
		cancel()
		require.Error(t, <-ended)
		require.NoError(t, server.reaches(before+1, "jammi_requests_total", doGet, `code="CANCELLED"`))
		server.comesToRest(t)
	})
	t.Run("a query by its deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := fetch(db.QueryContext(ctx, endless))
		require.Error(t, err)
		server.comesToRest(t)
	})
	t.Run("a result that is left halfway", func(t *testing.T) {
		rows, err := db.QueryContext(t.Context(), "SELECT value FROM generate_series(1, 1000000000000)")
		require.NoError(t, err)
		require.True(t, rows.Next())
		require.NoError(t, rows.Close())
		server.comesToRest(t)
	})
	t.Run("a write, of which nothing is left", func(t *testing.T) {
		execute(t, db, "CREATE TABLE t (id BIGINT)")
		ctx, cancel := contextWithCancel(t)
		ended := make(chan error)
		go func() {
			_, err := db.ExecContext(ctx, "INSERT INTO t "+endless)
			ended <- err
		}()
		computes(t)
		cancel()
		refused(t, <-ended, codes.Canceled)
		server.comesToRest(t)
		require.EqualValues(t, 0, one(t, db, "SELECT count(*) FROM t"))
		require.EqualValues(t, 1, execute(t, db, "INSERT INTO t VALUES (1)"))
	})
	require.EqualValues(t, 1, one(t, db, "SELECT 1"))
}

// computes waits until the server is at work on a query, beyond its planning.
func computes(t *testing.T) {
	t.Helper()
	before, err := server.processorTicks()
	require.NoError(t, err)
	give := time.Now().Add(deadline)
	for {
		now, err := server.processorTicks()
		require.NoError(t, err)
		if now-before >= 20 {
			return
		}
		require.True(t, time.Now().Before(give), "the server computes nothing")
		time.Sleep(10 * time.Millisecond)
	}
}

func sqlErrors(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	db := tenantDB(t, alice)
	for name, wrong := range map[string]struct {
		query string
		code  codes.Code
		says  string
	}{
		"bad SQL":              {"SELEC 1", codes.InvalidArgument, "the statement does not parse"},
		"an unknown table":     {"SELECT * FROM nope", codes.NotFound, "table `nope` does not exist"},
		"an unknown column":    {"SELECT nope FROM jammi.catalog.models", codes.InvalidArgument, "column nope does not exist"},
		"an unknown function":  {"SELECT no_such_function(1)", codes.InvalidArgument, "no_such_function"},
		"two statements":       {"SELECT 1; SELECT 2", codes.InvalidArgument, "more than one statement"},
		"no statement":         {"-- nothing", codes.InvalidArgument, "holds no statement"},
		"a statement unserved": {"COPY t TO '/tmp/t.parquet'", codes.Unimplemented, "COPY"},
		"a division by zero":   {"SELECT 1 / 0", codes.InvalidArgument, "division by zero"},
		"a failing cast":       {"SELECT CAST('x' AS INT)", codes.InvalidArgument, "Cannot cast string 'x'"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, fetchError(t, db, wrong.query), wrong.code, wrong.says)
			require.EqualValues(t, 1, one(t, db, "SELECT 1"))
		})
	}
	t.Run("a wrong number of parameters", func(t *testing.T) {
		// The driver counts them before anything is sent.
		for _, args := range [][]any{{1}, {1, 2, 3}} {
			err := fetchError(t, db, "SELECT ?, ?", args...)
			require.ErrorContains(t, err, "expected 2 arguments")
		}
		refused(t, fetchError(t, db, "SELECT ?"), codes.InvalidArgument, "the statement has 1 parameter")
	})
	t.Run("a parameter of a wrong type", func(t *testing.T) {
		err := fetchError(t, db, "SELECT 1 + ?", "many")
		require.ErrorContains(t, err, "invalid value type string")
	})
	t.Run("no session where one is needed", func(t *testing.T) {
		unnamed := open(t, dsn())
		_, err := unnamed.ExecContext(t.Context(), "BEGIN")
		refused(t, err, codes.InvalidArgument, sessionHeader)
		_, err = unnamed.ExecContext(t.Context(), "CREATE TEMPORARY TABLE t (id INT)")
		refused(t, err, codes.InvalidArgument, sessionHeader)
	})
	t.Run("a session of a name that is none", func(t *testing.T) {
		refused(t, fetchError(t, open(t, dsn(sessionHeader, "two words")), "SELECT 1"), codes.InvalidArgument, sessionHeader)
	})
	t.Run("a row of another tenant", func(t *testing.T) {
		execute(t, db, "CREATE TABLE t (id BIGINT)")
		_, err := db.ExecContext(t.Context(), "INSERT INTO t (id, tenant_id) VALUES (?, ?), (?, ?)", 1, alice, 2, bob)
		refused(t, err, codes.PermissionDenied, "another tenant")
		require.EqualValues(t, 0, one(t, db, "SELECT count(*) FROM t"))
	})
	t.Run("a table of another tenant is as one that never was", func(t *testing.T) {
		others := tenantDB(t, bob)
		name := unique()
		execute(t, db, "CREATE TABLE "+name+" (id BIGINT)")
		hidden, never := fetchError(t, others, "SELECT * FROM "+name), fetchError(t, others, "SELECT * FROM "+unique())
		require.Len(t, hidden.Error(), len(never.Error()))
		refused(t, hidden, codes.NotFound, "does not exist")
	})
	t.Run("a server that is not there", func(t *testing.T) {
		_, err := fetch(open(t, "flightsql://127.0.0.1:1?timeout=5s").QueryContext(t.Context(), "SELECT 1"))
		refused(t, err, codes.Unavailable)
	})
}

func sqlIsolation(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	shared := unique()
	execute(t, tenantDB(t, ""), "CREATE TABLE "+shared+" (id BIGINT, owner VARCHAR)")
	execute(t, tenantDB(t, alice), "INSERT INTO "+shared+" (id, owner) SELECT value, 'alice' FROM generate_series(1, 100)")
	execute(t, tenantDB(t, bob), "INSERT INTO "+shared+" (id, owner) SELECT value, 'bob' FROM generate_series(1, 50)")
	seen := map[string][][]any{alice: {{"alice", int64(100)}}, bob: {{"bob", int64(50)}}, "": {}}
	all := "SELECT owner, count(*) FROM " + shared + " WHERE tenant_id = '" + bob + "' OR id > 0 GROUP BY owner"
	some := "SELECT owner, count(*) FROM " + shared + " WHERE id > ? GROUP BY owner"

	t.Run("two tenants at once over one pool", func(t *testing.T) {
		// One pool, whose calls name their session by the context.
		pool := open(t, dsn())
		pool.SetMaxOpenConns(2)
		var workers sync.WaitGroup
		wrong := make(chan string, 1000)
		for tenant, want := range seen {
			session := newSession(t, tenant)
			workers.Go(func() {
				for range 25 {
					for _, query := range []struct {
						text string
						args []any
					}{{all, nil}, {some, []any{0}}} {
						found, err := fetch(pool.QueryContext(session.ctx(), query.text, query.args...))
						if err != nil || fmt.Sprint(found) != fmt.Sprint(want) {
							wrong <- fmt.Sprintf("%v and not %v: %v", found, want, err)
						}
					}
				}
			})
		}
		workers.Wait()
		close(wrong)
		for answer := range wrong {
			t.Error(answer)
		}
	})
	t.Run("a write reaches its tenant's rows alone", func(t *testing.T) {
		db := tenantDB(t, alice)
		require.EqualValues(t, 100, execute(t, db, "DELETE FROM "+shared))
		require.Empty(t, fetched(t, db, all))
		require.Equal(t, seen[bob], fetched(t, tenantDB(t, bob), all))
	})
	t.Run("rows of a source", func(t *testing.T) {
		name := notes(t, alice, bob)
		titles := "SELECT title FROM " + name + " WHERE tenant_id = '" + alice + "' OR true ORDER BY id"
		require.Equal(t, [][]any{{"b1"}, {"shared"}}, fetched(t, tenantDB(t, bob), titles))
		require.Equal(t, [][]any{{"shared"}}, fetched(t, tenantDB(t, ""), titles))
	})
}

func sqlTypes(t *testing.T) {
	db := tenantDB(t, newTenant())
	for name, value := range map[string]struct {
		sql  string
		want any
	}{
		"NULL":               {"CAST(NULL AS BIGINT)", nil},
		"BOOLEAN":            {"true", true},
		"TINYINT":            {"CAST(-128 AS TINYINT)", int8(-128)},
		"SMALLINT":           {"CAST(-32768 AS SMALLINT)", int16(-32768)},
		"INT":                {"CAST(7 AS INT)", int32(7)},
		"BIGINT":             {"9223372036854775807", int64(9223372036854775807)},
		"REAL":               {"CAST(0.5 AS REAL)", float32(0.5)},
		"DOUBLE":             {"CAST(0.1 AS DOUBLE)", 0.1},
		"DECIMAL":            {"CAST(1.50 AS DECIMAL(10, 2))", 1.5},
		"VARCHAR":            {"'ü'", "ü"},
		"BYTEA":              {"x'00ff'", []byte{0, 255}},
		"DATE":               {"DATE '2024-02-29'", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
		"TIME":               {"TIME '12:34:56'", time.Date(1970, 1, 1, 12, 34, 56, 0, time.UTC)},
		"TIMESTAMP":          {"TIMESTAMP '2024-02-29 12:34:56.789'", time.Date(2024, 2, 29, 12, 34, 56, 789e6, time.UTC)},
		"a dictionary":       {"arrow_cast('a', 'Dictionary(Int32, Utf8)')", "a"},
		"TIMESTAMP and zone": {"TIMESTAMPTZ '2024-02-29 12:34:56+02:00'", time.Date(2024, 2, 29, 10, 34, 56, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, value.want, one(t, db, "SELECT "+value.sql))
		})
	}
	// The driver knows no other types: it says so, and goes on.
	for name, value := range map[string]string{
		"a list":      "[1, 2]",
		"a struct":    "named_struct('a', 1)",
		"an unsigned": "arrow_cast(1, 'UInt64')",
		"an interval": "INTERVAL '1 month'",
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, fetchError(t, db, "SELECT "+value), driver.ErrNotSupported)
			require.Empty(t, fetched(t, db, "SELECT "+value+" WHERE false"))
		})
	}
}

func sqlStreaming(t *testing.T) {
	db := tenantDB(t, newTenant())
	const count = 1_000_000
	rows, err := db.QueryContext(t.Context(), fmt.Sprintf("SELECT value, value %% 3 = 0 FROM generate_series(1, %d)", count))
	require.NoError(t, err)
	defer rows.Close()
	var found, sum, thirds int64
	for rows.Next() {
		var value int64
		var third bool
		require.NoError(t, rows.Scan(&value, &third))
		found, sum = found+1, sum+value
		if third {
			thirds++
		}
	}
	require.NoError(t, rows.Err())
	require.Equal(t, [3]int64{count, count * (count + 1) / 2, count / 3}, [3]int64{found, sum, thirds})
}
