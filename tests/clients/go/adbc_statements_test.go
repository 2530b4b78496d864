package clients

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func adbcQuery(t *testing.T) {
	connection := tenantADBC(t, newTenant())
	t.Run("answers rows", func(t *testing.T) {
		found, err := connection.answer("SELECT 1 AS id, 'a' AS word UNION ALL SELECT 2, NULL ORDER BY id", nil)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"1", "a"}, {"2", "(null)"}}, found.rows)
		require.Equal(t, "id", found.schema.Field(0).Name)
	})
	t.Run("answers an empty result with its schema", func(t *testing.T) {
		found, err := connection.answer("SELECT 1 AS id, [1.5] AS list WHERE false", nil)
		require.NoError(t, err)
		require.Empty(t, found.rows)
		require.Equal(t, []string{"id", "list"}, []string{found.schema.Field(0).Name, found.schema.Field(1).Name})
	})
	t.Run("writes and tells how many rows, by either way", func(t *testing.T) {
		connection.update(t, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
		require.EqualValues(t, 2, connection.update(t, "INSERT INTO words VALUES (1, 'a'), (2, 'b')"))
		require.Equal(t, [][]string{{"1"}}, connection.query(t, "INSERT INTO words VALUES (3, 'c')"))
		require.Equal(t, [][]string{{"a"}}, connection.query(t, "DELETE FROM words WHERE id = 1 RETURNING word"))
		require.Equal(t, [][]string{{"2", "b"}, {"3", "c"}}, connection.query(t, "SELECT id, word FROM words ORDER BY id"))
	})
	t.Run("runs a write once, prepared or not", func(t *testing.T) {
		connection.update(t, "CREATE TABLE once (id BIGINT)")
		_, err := connection.write("INSERT INTO once VALUES (1)", nil)
		require.NoError(t, err)
		require.NoError(t, connection.with("INSERT INTO once VALUES (2)", func(statement adbc.Statement) error {
			require.NoError(t, statement.Prepare(t.Context()))
			_, err := connection.rows(statement)
			return err
		}))
		require.Equal(t, [][]string{{"1"}, {"2"}}, connection.query(t, "SELECT id FROM once ORDER BY id"))
	})
	t.Run("is polled for its partitions", func(t *testing.T) {
		var rows [][]string
		require.NoError(t, connection.with("SELECT value FROM generate_series(1, 3)", func(statement adbc.Statement) error {
			require.NoError(t, statement.SetOption(adbc.OptionKeyIncremental, adbc.OptionValueEnabled))
			for {
				_, partitions, _, err := statement.ExecutePartitions(t.Context())
				if err != nil || partitions.NumPartitions == 0 {
					return err
				}
				for _, partition := range partitions.PartitionIDs {
					reader, err := connection.ReadPartition(t.Context(), partition)
					require.NoError(t, err)
					found := &Result{}
					require.NoError(t, found.drain(reader))
					reader.Release()
					rows = append(rows, found.rows...)
				}
			}
		}))
		require.Equal(t, [][]string{{"1"}, {"2"}, {"3"}}, rows)
	})
}

func adbcParameters(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	connection := tenantADBC(t, alice)
	name := notes(t, alice, bob)
	number := func(rows string) arrow.RecordBatch {
		return records(t, columns("0", arrow.PrimitiveTypes.Int64), rows)
	}
	for _, placeholder := range []string{"?", "$1"} {
		t.Run("by "+placeholder, func(t *testing.T) {
			sql := "SELECT title FROM " + name + " WHERE id = " + placeholder
			// The last two are another tenant's row, and none.
			for value, want := range map[string][][]string{"1": {{"a1"}}, "3": {}, "null": {}} {
				found, err := connection.answer(sql, number(fmt.Sprintf(`[{"0": %s}]`, value)))
				require.NoError(t, err)
				require.Equal(t, want, found.rows)
			}
		})
	}
	for _, kind := range kinds {
		t.Run("of "+kind.kind.String(), func(t *testing.T) {
			table := unique()
			schema := columns("v", kind.kind)
			count, err := connection.ingest(t, adbc.OptionValueIngestModeCreate, table, records(t, schema, `[]`))
			require.NoError(t, err)
			require.Zero(t, count)
			bound := records(t, columns("0", kind.kind), fmt.Sprintf(`[{"0": %s}, {"0": null}]`, kind.value))
			require.NoError(t, connection.with("INSERT INTO "+table+" (v) VALUES (?)", func(statement adbc.Statement) error {
				require.NoError(t, connection.bound(statement, bound))
				asked, err := statement.GetParameterSchema()
				require.NoError(t, err)
				require.True(t, arrow.TypeEqual(kind.kind, asked.Field(0).Type), "the server asks for %s", asked)
				count, err = statement.ExecuteUpdate(t.Context())
				return err
			}))
			require.EqualValues(t, 2, count)
		})
	}
	t.Run("wrong ones are told apart", func(t *testing.T) {
		int64s, text := arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String
		for _, wrong := range []struct {
			bound arrow.RecordBatch
			says  string
		}{
			{records(t, columns("0", int64s, "1", int64s), `[{"0": 1, "1": 2}]`), "the statement has 1 parameter and 2 values are bound"},
			{records(t, columns("0", text), `[{"0": "many"}]`), "parameter 1 is Utf8 where Int64 is expected"},
			{number(`[{"0": 1}, {"0": 2}]`), "takes one row of parameters"},
		} {
			_, err := connection.answer("SELECT 1 + ?", wrong.bound)
			told(t, err, codes.InvalidArgument, wrong.says)
		}
		told(t, connection.fails(t, "SELECT 1 + ?"), codes.InvalidArgument, "the statement has 1 parameter")
	})
}

func adbcPrepared(t *testing.T) {
	connection := tenantADBC(t, newTenant())
	connection.update(t, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
	connection.update(t, "INSERT INTO words VALUES (1, 'a'), (2, 'b')")
	t.Run("once, and run again", func(t *testing.T) {
		require.NoError(t, connection.with("SELECT word FROM words WHERE id = ?", func(statement adbc.Statement) error {
			require.NoError(t, statement.Prepare(t.Context()))
			for value, want := range map[int][][]string{1: {{"a"}}, 2: {{"b"}}, 3: {}} {
				bound := records(t, columns("0", arrow.PrimitiveTypes.Int64), fmt.Sprintf(`[{"0": %d}]`, value))
				require.NoError(t, statement.Bind(t.Context(), bound))
				for range 2 {
					found, err := connection.rows(statement)
					require.NoError(t, err)
					require.Equal(t, want, found.rows)
				}
			}
			return nil
		}))
	})
	t.Run("with the schema before it runs", func(t *testing.T) {
		for _, prepare := range []bool{false, true} {
			require.NoError(t, connection.with("SELECT id, word FROM words", func(statement adbc.Statement) error {
				if prepare {
					require.NoError(t, statement.Prepare(t.Context()))
				}
				schema, err := statement.(adbc.StatementExecuteSchema).ExecuteSchema(t.Context())
				require.NoError(t, err)
				require.Equal(t, "int64", schema.Field(0).Type.String())
				require.Equal(t, "utf8", schema.Field(1).Type.String())
				return nil
			}))
		}
	})
}

func adbcBatch(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	connection := tenantADBC(t, alice)
	connection.update(t, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
	bound := columns("0", arrow.PrimitiveTypes.Int64, "1", arrow.BinaryTypes.String)
	insert, count := "INSERT INTO words VALUES (?, ?)", "SELECT count(*), sum(id) FROM words"

	t.Run("of one batch, and of a stream of them", func(t *testing.T) {
		written, err := connection.write(insert, numbered(bound, 0, 1000))
		require.NoError(t, err)
		require.EqualValues(t, 1000, written)
		require.NoError(t, connection.with(insert, func(statement adbc.Statement) error {
			require.NoError(t, statement.Prepare(t.Context()))
			stream := reader(t, numbered(bound, 1000, 5000), numbered(bound, 5000, 10_000))
			require.NoError(t, statement.BindStream(t.Context(), stream))
			written, err := statement.ExecuteUpdate(t.Context())
			require.EqualValues(t, 9000, written)
			return err
		}))
		require.Equal(t, [][]string{{"10000", "49995000"}}, connection.query(t, count))
	})
	t.Run("of changes", func(t *testing.T) {
		changes := records(t, columns("0", arrow.BinaryTypes.String, "1", arrow.PrimitiveTypes.Int64),
			`[{"0": "x", "1": 1}, {"0": "y", "1": 2}, {"0": "z", "1": -1}]`)
		written, err := connection.write("UPDATE words SET word = ? WHERE id = ?", changes)
		require.NoError(t, err)
		require.EqualValues(t, 2, written)
	})
	t.Run("is written whole or not at all", func(t *testing.T) {
		before := connection.query(t, count)
		_, err := connection.write(insert, numbered(bound, 9_999, 20_000))
		told(t, err, codes.AlreadyExists, "id = 9999")
		owned := records(t, columns("0", arrow.PrimitiveTypes.Int64, "1", arrow.BinaryTypes.String),
			fmt.Sprintf(`[{"0": 50000, "1": null}, {"0": 50001, "1": %q}]`, bob))
		_, err = connection.write("INSERT INTO words (id, tenant_id) VALUES (?, ?)", owned)
		told(t, err, codes.PermissionDenied, "another tenant")
		require.Equal(t, before, connection.query(t, count))
	})
	t.Run("of a query is refused", func(t *testing.T) {
		_, err := connection.write("SELECT ?", records(t, columns("0", arrow.PrimitiveTypes.Int64), `[{"0": 1}, {"0": 2}]`))
		told(t, err, codes.InvalidArgument, "the statement is a query")
	})
}

// adbcCancel tests cancellation by a statement's context, and by its deadlines.
func adbcCancel(t *testing.T) {
	connection := tenantADBC(t, newTenant())
	t.Run("a query that has answered nothing yet", func(t *testing.T) {
		before := server.counted(t, "jammi_requests_total", doGet, `code="CANCELLED"`)
		ctx, cancel := contextWithCancel(t)
		answer := make(chan error, 1)
		go func() {
			_, err := connection.in(ctx).answer(endless, nil)
			answer <- err
		}()
		computes(t)
		cancel()
		requireStatus(t, <-answer, adbc.StatusCancelled)
		require.NoError(t, server.reaches(before+1, "jammi_requests_total", doGet, `code="CANCELLED"`))
		server.comesToRest(t)
	})
	t.Run("a query by its deadline", func(t *testing.T) {
		err := connection.with(endless, func(statement adbc.Statement) error {
			require.NoError(t, statement.SetOption(flightsql.OptionTimeoutFetch, "0.3"))
			_, err := connection.rows(statement)
			return err
		})
		requireStatus(t, err, adbc.StatusTimeout)
		server.comesToRest(t)
	})
	t.Run("a result that is left halfway", func(t *testing.T) {
		require.NoError(t, connection.with("SELECT value FROM generate_series(1, 1000000000000)", func(statement adbc.Statement) error {
			rows, _, err := statement.ExecuteQuery(t.Context())
			require.NoError(t, err)
			require.True(t, rows.Next())
			rows.Release()
			return nil
		}))
		server.comesToRest(t)
	})
	t.Run("a write, of which nothing is left", func(t *testing.T) {
		connection.update(t, "CREATE TABLE t (id BIGINT)")
		ctx, cancel := contextWithCancel(t)
		answer := make(chan error, 1)
		go func() {
			_, err := connection.in(ctx).write("INSERT INTO t "+endless, nil)
			answer <- err
		}()
		computes(t)
		cancel()
		requireStatus(t, <-answer, adbc.StatusCancelled)
		server.comesToRest(t)
		require.EqualValues(t, 1, connection.update(t, "INSERT INTO t VALUES (1)"))
		require.Equal(t, [][]string{{"1"}}, connection.query(t, "SELECT count(*) FROM t"))
	})
	require.Equal(t, [][]string{{"1"}}, connection.query(t, "SELECT 1"))
}
