package clients

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// ingest streams batches into a table, with more options in pairs.
func (a *ADBC) ingest(t *testing.T, mode, table string, batches ...arrow.RecordBatch) (int64, error) {
	t.Helper()
	return a.ingestBy(t, []string{adbc.OptionKeyIngestTargetTable, table, adbc.OptionKeyIngestMode, mode}, batches...)
}

func (a *ADBC) ingestBy(t *testing.T, options []string, batches ...arrow.RecordBatch) (int64, error) {
	t.Helper()
	statement, err := a.NewStatement()
	require.NoError(t, err)
	defer func() { require.NoError(t, statement.Close()) }()
	for i := 0; i < len(options); i += 2 {
		require.NoError(t, statement.SetOption(options[i], options[i+1]))
	}
	require.NoError(t, statement.BindStream(a.ctx, reader(t, batches...)))
	return statement.ExecuteUpdate(a.ctx)
}

func adbcIngest(t *testing.T) {
	const (
		create, appending     = adbc.OptionValueIngestModeCreate, adbc.OptionValueIngestModeAppend
		replace, createAppend = adbc.OptionValueIngestModeReplace, adbc.OptionValueIngestModeCreateAppend
	)
	alice, bob := newTenant(), newTenant()
	session := newSession(t, alice)
	connection, others := adbcOf(t, session), tenantADBC(t, bob)
	schema := columns("id", arrow.PrimitiveTypes.Int64, "word", arrow.BinaryTypes.String)
	ten := numbered(schema, 0, 10)
	count := `SELECT count(*), sum(id) FROM "Bulk"`

	t.Run("in every mode", func(t *testing.T) {
		_, err := connection.ingest(t, appending, "Bulk", ten)
		told(t, err, codes.NotFound, "table `Bulk` does not exist")
		for _, step := range []struct{ mode, want string }{
			{create, "[[10 45]]"}, {appending, "[[20 90]]"}, {createAppend, "[[30 135]]"}, {replace, "[[10 45]]"},
		} {
			written, err := connection.ingest(t, step.mode, "Bulk", ten)
			require.NoError(t, err)
			require.EqualValues(t, 10, written)
			require.Equal(t, step.want, fmt.Sprint(connection.query(t, count)))
		}
		_, err = connection.ingest(t, create, "Bulk", ten)
		told(t, err, codes.AlreadyExists, "`Bulk` exists already")
		for _, mode := range []string{replace, createAppend} {
			_, err = connection.ingest(t, mode, unique(), ten)
			require.NoError(t, err)
		}
	})
	t.Run("is the tenant's alone", func(t *testing.T) {
		told(t, others.fails(t, count), codes.NotFound)
		_, err := others.ingest(t, create, "Bulk", ten)
		require.NoError(t, err)
		_, err = connection.ingest(t, replace, "Bulk", numbered(schema, 0, 1))
		require.NoError(t, err)
		require.Equal(t, [][]string{{"10", "45"}}, others.query(t, count))
	})
	t.Run("of rows of another tenant leaves nothing", func(t *testing.T) {
		owned := columns("id", arrow.PrimitiveTypes.Int64, "word", arrow.BinaryTypes.String, "tenant_id", arrow.BinaryTypes.String)
		row := `[{"id": 70, "word": "x", "tenant_id": %q}]`
		mine, theirs := records(t, owned, fmt.Sprintf(row, alice)), records(t, owned, fmt.Sprintf(row, bob))
		before := connection.query(t, count)
		for _, mode := range []string{appending, replace, createAppend} {
			_, err := connection.ingest(t, mode, "Bulk", mine, theirs)
			told(t, err, codes.PermissionDenied, "another tenant")
			require.Equal(t, before, connection.query(t, count))
		}
		require.Equal(t, [][]string{{"10", "45"}}, others.query(t, count))
	})
	t.Run("of one batch that is bound", func(t *testing.T) {
		statement, err := connection.NewStatement()
		require.NoError(t, err)
		require.NoError(t, statement.SetOption(adbc.OptionKeyIngestTargetTable, "single"))
		require.NoError(t, statement.Bind(t.Context(), ten))
		written, err := statement.ExecuteUpdate(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 10, written)
		require.NoError(t, statement.Close())
	})
	t.Run("of a large stream is written whole or not at all", func(t *testing.T) {
		var batches []arrow.RecordBatch
		for from := 0; from < 100_000; from += 10_000 {
			batches = append(batches, numbered(schema, from, from+10_000))
		}
		connection.update(t, "CREATE TABLE keyed (id BIGINT PRIMARY KEY, word VARCHAR)")
		_, err := connection.ingest(t, appending, "keyed", append(batches, ten)...)
		told(t, err, codes.AlreadyExists, "id = 0")
		require.Equal(t, [][]string{{"0"}}, connection.query(t, "SELECT count(*) FROM keyed"))
		written, err := connection.ingest(t, appending, "keyed", batches...)
		require.NoError(t, err)
		require.EqualValues(t, 100_000, written)
	})
	t.Run("of what does not fit is refused", func(t *testing.T) {
		connection.update(t, "CREATE TABLE narrow (id BIGINT PRIMARY KEY, word VARCHAR)")
		for _, wrong := range []struct {
			options []string
			schema  *arrow.Schema
			says    string
		}{
			{[]string{adbc.OptionValueIngestTargetCatalog, "jammi"}, schema, "leave catalog and schema unset"},
			{[]string{adbc.OptionValueIngestTargetDBSchema, "other"}, schema, "leave catalog and schema unset"},
			{nil, columns("id", arrow.BinaryTypes.String), "column `id` is Utf8 where Int64 is expected"},
			{nil, columns("id", arrow.PrimitiveTypes.Int64, "nope", arrow.PrimitiveTypes.Int64), "`nope` does not exist"},
			{nil, columns("word", arrow.BinaryTypes.String), "column `id` of table `narrow` cannot be NULL"},
		} {
			options := append([]string{adbc.OptionKeyIngestTargetTable, "narrow", adbc.OptionKeyIngestMode, appending}, wrong.options...)
			_, err := connection.ingestBy(t, options, records(t, wrong.schema, `[{"id": null, "word": "x"}]`))
			require.ErrorContains(t, err, wrong.says)
		}
		require.Equal(t, [][]string{{"0"}}, connection.query(t, "SELECT count(*) FROM narrow"))
	})
	t.Run("into a temporary table, in every mode", func(t *testing.T) {
		sibling := tenantADBC(t, alice)
		temporary := func(mode string) error {
			options := []string{
				adbc.OptionKeyIngestTargetTable, "scratch", adbc.OptionKeyIngestMode, mode,
				adbc.OptionValueIngestTemporary, adbc.OptionValueEnabled,
			}
			_, err := connection.ingestBy(t, options, ten)
			return err
		}
		told(t, temporary(appending), codes.NotFound, "scratch")
		for _, step := range []struct{ mode, want string }{{create, "10"}, {appending, "20"}, {createAppend, "30"}, {replace, "10"}} {
			require.NoError(t, temporary(step.mode))
			require.Equal(t, [][]string{{step.want}}, connection.query(t, "SELECT count(*) FROM scratch"))
		}
		told(t, temporary(create), codes.AlreadyExists)
		// No other session has it, of the same tenant or not.
		told(t, sibling.fails(t, "SELECT * FROM scratch"), codes.NotFound)
		told(t, others.fails(t, "SELECT * FROM scratch"), codes.NotFound)
		// The driver closes the session with the connection.
		require.NoError(t, connection.Close())
		told(t, adbcOf(t, session).fails(t, "SELECT * FROM scratch"), codes.NotFound)
	})
	t.Run("inside a transaction", func(t *testing.T) {
		connection := adbcOf(t, session)
		sibling := tenantADBC(t, alice)
		sibling.update(t, "CREATE TABLE within (id BIGINT PRIMARY KEY, word VARCHAR)")
		require.NoError(t, connection.set(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled))
		for _, end := range []struct {
			end  func() error
			want string
		}{
			{func() error { return connection.Rollback(t.Context()) }, "0"},
			{func() error { return connection.Commit(t.Context()) }, "10"},
		} {
			_, err := connection.ingest(t, appending, "within", ten)
			require.NoError(t, err)
			require.Equal(t, [][]string{{"10"}}, connection.query(t, "SELECT count(*) FROM within"))
			require.Equal(t, [][]string{{"0"}}, sibling.query(t, "SELECT count(*) FROM within"))
			require.NoError(t, end.end())
			require.Equal(t, [][]string{{end.want}}, sibling.query(t, "SELECT count(*) FROM within"))
		}
	})
}

func adbcTransactions(t *testing.T) {
	tenant := newTenant()
	session := newSession(t, tenant)
	other := tenantADBC(t, tenant)
	other.update(t, "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)")
	begun := func(t *testing.T) *ADBC {
		t.Helper()
		connection := adbcOf(t, session)
		require.NoError(t, connection.set(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled))
		return connection
	}
	ids := func(t *testing.T) string {
		t.Helper()
		return fmt.Sprint(other.query(t, "SELECT id FROM t ORDER BY id"))
	}

	t.Run("commit and roll back", func(t *testing.T) {
		connection := begun(t)
		connection.update(t, "INSERT INTO t VALUES (1, 'a')")
		bound := records(t, columns("0", arrow.PrimitiveTypes.Int64), `[{"0": 2}, {"0": 3}]`)
		_, err := connection.write("INSERT INTO t (id) VALUES (?)", bound)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"3"}}, connection.query(t, "SELECT count(*) FROM t"))
		require.Equal(t, "[]", ids(t))
		require.NoError(t, connection.Commit(t.Context()))
		require.Equal(t, "[[1] [2] [3]]", ids(t))
		connection.update(t, "DELETE FROM t")
		connection.update(t, "CREATE TABLE u (id BIGINT)")
		require.NoError(t, connection.Rollback(t.Context()))
		require.Equal(t, "[[1] [2] [3]]", ids(t))
		told(t, connection.fails(t, "SELECT * FROM u"), codes.NotFound)
	})
	t.Run("go on after a statement that fails", func(t *testing.T) {
		connection := begun(t)
		connection.update(t, "INSERT INTO t VALUES (4, 'd')")
		_, err := connection.write("INSERT INTO t VALUES (5, 'e'), (1, 'again')", nil)
		told(t, err, codes.AlreadyExists, "id = 1")
		require.NoError(t, connection.Commit(t.Context()))
		require.Equal(t, "[[1] [2] [3] [4]]", ids(t))
	})
	t.Run("are switched to and from", func(t *testing.T) {
		connection := begun(t)
		connection.update(t, "INSERT INTO t VALUES (6, 'f')")
		// Which commits.
		require.NoError(t, connection.set(adbc.OptionKeyAutoCommit, adbc.OptionValueEnabled))
		require.Equal(t, "[[1] [2] [3] [4] [6]]", ids(t))
		connection.update(t, "DELETE FROM t WHERE id > 3")
		require.Equal(t, "[[1] [2] [3]]", ids(t))
		requireStatus(t, connection.Rollback(t.Context()), adbc.StatusInvalidState)
	})
	t.Run("end with their connection", func(t *testing.T) {
		connection := begun(t)
		connection.update(t, "INSERT INTO t VALUES (7, 'g')")
		require.NoError(t, connection.Close())
		require.NoError(t, server.reaches(0, "jammi_transactions"))
		require.Equal(t, "[[1] [2] [3]]", ids(t))
	})
	t.Run("that conflict are told, and run again", func(t *testing.T) {
		first, second := begun(t), begun(t)
		read, bump := "SELECT count(*) FROM t", "UPDATE t SET word = word || '+' WHERE id = 1"
		require.Equal(t, first.query(t, read), second.query(t, read))
		first.update(t, bump)
		require.NoError(t, first.Commit(t.Context()))
		_, err := second.write(bump, nil)
		told(t, err, codes.Aborted, "run it again")
		require.NoError(t, second.Rollback(t.Context()))
		second.update(t, bump)
		require.NoError(t, second.Commit(t.Context()))
		require.Equal(t, [][]string{{"a++"}}, other.query(t, "SELECT word FROM t WHERE id = 1"))
	})
	t.Run("are left behind by a binding", func(t *testing.T) {
		bob := newTenant()
		rebound := newSession(t, tenant)
		connection := adbcOf(t, rebound)
		require.NoError(t, connection.set(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled))
		connection.update(t, "DELETE FROM t")
		rebound.bind(t, bob)
		err := connection.fails(t, "SELECT 1")
		require.True(t, strings.Contains(err.Error(), "has ended"), "%v", err)
		require.NoError(t, connection.Rollback(t.Context()))
		told(t, connection.fails(t, "SELECT * FROM t"), codes.NotFound)
		require.Equal(t, "[[1] [2] [3]]", ids(t))
	})
}
