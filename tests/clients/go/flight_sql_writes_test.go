package clients

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func stringReader(text string) io.Reader { return strings.NewReader(text) }

// Modes of ingest, as ADBC names them.
var (
	modeCreate       = mode(flightsql.TableDefinitionOptionsTableNotExistOptionCreate, flightsql.TableDefinitionOptionsTableExistsOptionFail)
	modeAppend       = mode(flightsql.TableDefinitionOptionsTableNotExistOptionFail, flightsql.TableDefinitionOptionsTableExistsOptionAppend)
	modeReplace      = mode(flightsql.TableDefinitionOptionsTableNotExistOptionCreate, flightsql.TableDefinitionOptionsTableExistsOptionReplace)
	modeCreateAppend = mode(flightsql.TableDefinitionOptionsTableNotExistOptionCreate, flightsql.TableDefinitionOptionsTableExistsOptionAppend)
)

func mode(missing flightsql.TableDefinitionOptionsTableNotExistOption, exists flightsql.TableDefinitionOptionsTableExistsOption) *flightsql.TableDefinitionOptions {
	return &flightsql.TableDefinitionOptions{IfNotExist: missing, IfExists: exists}
}

// ingest streams batches into a table.
func (f *Flight) ingest(t *testing.T, mode *flightsql.TableDefinitionOptions, table string, batches ...arrow.RecordBatch) (int64, error) {
	return f.ingestBy(t, &flightsql.ExecuteIngestOpts{TableDefinitionOptions: mode, Table: table}, batches...)
}

func (f *Flight) ingestBy(t *testing.T, how *flightsql.ExecuteIngestOpts, batches ...arrow.RecordBatch) (int64, error) {
	return f.ExecuteIngest(f.ctx(), reader(t, batches...), how)
}

func flightIngest(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	client, others := tenantFlight(t, alice), tenantFlight(t, bob)
	schema := columns("id", arrow.PrimitiveTypes.Int64, "word", arrow.BinaryTypes.String)
	ten := numbered(schema, 0, 10)
	count := `SELECT count(*), sum(id) FROM "Bulk"`

	t.Run("in every mode", func(t *testing.T) {
		_, err := client.ingest(t, modeAppend, "Bulk", ten)
		refused(t, err, codes.NotFound, "table `Bulk` does not exist")
		for _, step := range []struct {
			mode *flightsql.TableDefinitionOptions
			want string
		}{
			{modeCreate, "[[10 45]]"},
			{modeAppend, "[[20 90]]"},
			{modeCreateAppend, "[[30 135]]"},
			{modeReplace, "[[10 45]]"},
		} {
			written, err := client.ingest(t, step.mode, "Bulk", ten)
			require.NoError(t, err)
			require.EqualValues(t, 10, written)
			require.Equal(t, step.want, fmt.Sprint(client.query(t, count)))
		}
		_, err = client.ingest(t, modeCreate, "Bulk", ten)
		refused(t, err, codes.AlreadyExists, "`Bulk` exists already")
		for _, mode := range []*flightsql.TableDefinitionOptions{modeReplace, modeCreateAppend} {
			_, err = client.ingest(t, mode, unique(), ten)
			require.NoError(t, err)
		}
	})
	t.Run("is the tenant's alone", func(t *testing.T) {
		refused(t, others.fails(t, count), codes.NotFound)
		written, err := others.ingest(t, modeCreate, "Bulk", ten)
		require.NoError(t, err)
		require.EqualValues(t, 10, written)
		_, err = client.ingest(t, modeReplace, "Bulk", numbered(schema, 0, 1))
		require.NoError(t, err)
		require.Equal(t, [][]string{{"10", "45"}}, others.query(t, count))
	})
	t.Run("of rows of another tenant leaves nothing", func(t *testing.T) {
		owned := columns("id", arrow.PrimitiveTypes.Int64, "word", arrow.BinaryTypes.String, "tenant_id", arrow.BinaryTypes.String)
		row := `[{"id": 70, "word": "x", "tenant_id": %q}]`
		mine, theirs := records(t, owned, fmt.Sprintf(row, alice)), records(t, owned, fmt.Sprintf(row, bob))
		before := client.query(t, count)
		for _, mode := range []*flightsql.TableDefinitionOptions{modeAppend, modeReplace, modeCreateAppend} {
			_, err := client.ingest(t, mode, "Bulk", mine, theirs)
			refused(t, err, codes.PermissionDenied, "another tenant")
			require.Equal(t, before, client.query(t, count))
		}
		require.Equal(t, [][]string{{"10", "45"}}, others.query(t, count))
	})
	t.Run("matches columns by name and converts what loses nothing", func(t *testing.T) {
		client.update(t, "CREATE TABLE named (id BIGINT PRIMARY KEY, word VARCHAR, more VARCHAR DEFAULT 'none')")
		turned := columns("word", arrow.BinaryTypes.LargeString, "id", arrow.PrimitiveTypes.Int16)
		written, err := client.ingest(t, modeAppend, "named", records(t, turned, `[{"id": 1, "word": "a"}]`))
		require.NoError(t, err)
		require.EqualValues(t, 1, written)
		require.Equal(t, [][]string{{"1", "a", "none"}}, client.query(t, "SELECT id, word, more FROM named"))
		for _, wrong := range []*arrow.Schema{
			columns("id", arrow.PrimitiveTypes.Int64, "nope", arrow.BinaryTypes.String),
			columns("id", arrow.BinaryTypes.String),
		} {
			_, err := client.ingest(t, modeAppend, "named", records(t, wrong, `[{"id": null}]`))
			refused(t, err, codes.InvalidArgument)
		}
		require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT count(*) FROM named"))
	})
	t.Run("of a large stream is written whole or not at all", func(t *testing.T) {
		var batches []arrow.RecordBatch
		for from := 0; from < 100_000; from += 10_000 {
			batches = append(batches, numbered(schema, from, from+10_000))
		}
		client.update(t, "CREATE TABLE keyed (id BIGINT PRIMARY KEY, word VARCHAR)")
		_, err := client.ingest(t, modeAppend, "keyed", append(batches, ten)...)
		refused(t, err, codes.AlreadyExists, "id = 0")
		require.Equal(t, [][]string{{"0"}}, client.query(t, "SELECT count(*) FROM keyed"))
		written, err := client.ingest(t, modeAppend, "keyed", batches...)
		require.NoError(t, err)
		require.EqualValues(t, 100_000, written)
		require.Equal(t, [][]string{{"100000"}}, client.query(t, "SELECT count(*) FROM keyed"))
	})
	t.Run("into a temporary table, in every mode", func(t *testing.T) {
		sibling := tenantFlight(t, alice)
		temporary := func(mode *flightsql.TableDefinitionOptions) (int64, error) {
			return client.ingestBy(t, &flightsql.ExecuteIngestOpts{TableDefinitionOptions: mode, Table: "scratch", Temporary: true}, ten)
		}
		_, err := temporary(modeAppend)
		refused(t, err, codes.NotFound, "scratch")
		for _, mode := range []*flightsql.TableDefinitionOptions{modeCreate, modeAppend, modeCreateAppend} {
			_, err := temporary(mode)
			require.NoError(t, err)
		}
		require.Equal(t, [][]string{{"30"}}, client.query(t, "SELECT count(*) FROM scratch"))
		_, err = temporary(modeReplace)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"10"}}, client.query(t, "SELECT count(*) FROM scratch"))
		_, err = temporary(modeCreate)
		refused(t, err, codes.AlreadyExists)
		// No other session has it, of the same tenant or not.
		refused(t, sibling.fails(t, "SELECT * FROM scratch"), codes.NotFound)
		refused(t, others.fails(t, "SELECT * FROM scratch"), codes.NotFound)
		_, err = client.CloseSession(client.ctx(), closeSession)
		require.NoError(t, err)
		refused(t, client.fails(t, "SELECT * FROM scratch"), codes.NotFound)
	})
	t.Run("inside a transaction", func(t *testing.T) {
		client.update(t, "CREATE TABLE within (id BIGINT PRIMARY KEY, word VARCHAR)")
		for _, end := range []struct {
			commit bool
			want   string
		}{{false, "0"}, {true, "10"}} {
			transaction, err := client.BeginTransaction(client.ctx())
			require.NoError(t, err)
			how := &flightsql.ExecuteIngestOpts{TableDefinitionOptions: modeAppend, Table: "within", TransactionId: transaction.ID()}
			written, err := client.ingestBy(t, how, ten)
			require.NoError(t, err)
			require.EqualValues(t, 10, written)
			require.Equal(t, [][]string{{"0"}}, client.query(t, "SELECT count(*) FROM within"))
			if end.commit {
				require.NoError(t, transaction.Commit(client.ctx()))
			} else {
				require.NoError(t, transaction.Rollback(client.ctx()))
			}
			require.Equal(t, [][]string{{end.want}}, client.query(t, "SELECT count(*) FROM within"))
		}
	})
}

func flightTransactions(t *testing.T) {
	tenant := newTenant()
	client, other := tenantFlight(t, tenant), tenantFlight(t, tenant)
	client.update(t, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
	begin := func(t *testing.T) *flightsql.Txn {
		transaction, err := client.BeginTransaction(client.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 1, server.counted(t, "jammi_transactions"))
		return transaction
	}
	write := func(t *testing.T, in *flightsql.Txn, sql string) {
		_, err := in.ExecuteUpdate(client.ctx(), sql)
		require.NoError(t, err)
	}
	ids := func(t *testing.T) string { return fmt.Sprint(other.query(t, "SELECT id FROM t ORDER BY id")) }

	t.Run("commit", func(t *testing.T) {
		transaction := begin(t)
		write(t, transaction, "INSERT INTO t VALUES (1)")
		found, err := client.result(transaction.Execute(client.ctx(), "SELECT id FROM t"))
		require.NoError(t, err)
		require.Equal(t, [][]string{{"1"}}, found.rows)
		prepared, err := transaction.Prepare(client.ctx(), "INSERT INTO t VALUES (?)")
		require.NoError(t, err)
		prepared.SetParameters(records(t, columns("0", arrow.PrimitiveTypes.Int64), `[{"0": 2}, {"0": 3}]`))
		_, err = prepared.ExecuteUpdate(client.ctx())
		require.NoError(t, err)
		require.Equal(t, "[]", ids(t))
		id := transaction.ID()
		require.NoError(t, transaction.Commit(client.ctx()))
		require.Equal(t, "[[1] [2] [3]]", ids(t))
		// What has ended is not gone on with.
		how := &flightsql.ExecuteIngestOpts{TableDefinitionOptions: modeAppend, Table: "t", TransactionId: id}
		_, err = client.ingestBy(t, how, records(t, columns("id", arrow.PrimitiveTypes.Int64), `[{"id": 9}]`))
		refused(t, err, codes.NotFound, "has ended")
	})
	t.Run("roll back", func(t *testing.T) {
		transaction := begin(t)
		write(t, transaction, "DELETE FROM t")
		write(t, transaction, "CREATE TABLE u (id BIGINT)")
		require.NoError(t, transaction.Rollback(client.ctx()))
		require.Equal(t, "[[1] [2] [3]]", ids(t))
		refused(t, client.fails(t, "SELECT * FROM u"), codes.NotFound)
	})
	t.Run("have savepoints", func(t *testing.T) {
		transaction := begin(t)
		write(t, transaction, "INSERT INTO t VALUES (4)")
		outer, err := transaction.BeginSavepoint(client.ctx(), "outer")
		require.NoError(t, err)
		write(t, transaction, "INSERT INTO t VALUES (5)")
		inner, err := transaction.BeginSavepoint(client.ctx(), "inner")
		require.NoError(t, err)
		write(t, transaction, "INSERT INTO t VALUES (6)")
		require.NoError(t, transaction.ReleaseSavepoint(client.ctx(), inner))
		require.NoError(t, transaction.RollbackSavepoint(client.ctx(), outer))
		err = transaction.RollbackSavepoint(client.ctx(), inner)
		require.Error(t, err)
		write(t, transaction, "INSERT INTO t VALUES (7)")
		require.NoError(t, transaction.Commit(client.ctx()))
		require.Equal(t, "[[1] [2] [3] [4] [7]]", ids(t))
	})
	t.Run("belong to their session", func(t *testing.T) {
		transaction := begin(t)
		write(t, transaction, "INSERT INTO t VALUES (8)")
		for _, stranger := range []*Flight{other, tenantFlight(t, newTenant()), tenantFlight(t, "")} {
			_, err := transaction.ExecuteUpdate(stranger.ctx(), "INSERT INTO t VALUES (9)")
			refused(t, err, codes.NotFound, "does not exist, or has ended")
		}
		require.NoError(t, transaction.Rollback(client.ctx()))
		require.Equal(t, "[[1] [2] [3] [4] [7]]", ids(t))
	})
	t.Run("end with their connection", func(t *testing.T) {
		vanishing, err := flightsql.NewClient(server.Address, nil, nil, insecurely)
		require.NoError(t, err)
		transaction, err := vanishing.BeginTransaction(client.ctx())
		require.NoError(t, err)
		write(t, transaction, "INSERT INTO t VALUES (10)")
		require.NoError(t, vanishing.Close())
		require.NoError(t, server.reaches(0, "jammi_transactions"))
		require.EqualValues(t, 1, client.update(t, "INSERT INTO t VALUES (11)"))
		require.Equal(t, "[[1] [2] [3] [4] [7] [11]]", ids(t))
	})
	t.Run("end with their session", func(t *testing.T) {
		closing := tenantFlight(t, tenant)
		transaction, err := closing.BeginTransaction(closing.ctx())
		require.NoError(t, err)
		_, err = transaction.ExecuteUpdate(closing.ctx(), "INSERT INTO t VALUES (12)")
		require.NoError(t, err)
		_, err = closing.CloseSession(closing.ctx(), closeSession)
		require.NoError(t, err)
		require.NoError(t, server.reaches(0, "jammi_transactions"))
		require.NotContains(t, ids(t), "12")
	})
}

// ingestInto appends to a table.
func ingestInto(table string) *flightsql.ExecuteIngestOpts {
	return &flightsql.ExecuteIngestOpts{TableDefinitionOptions: modeAppend, Table: table}
}
