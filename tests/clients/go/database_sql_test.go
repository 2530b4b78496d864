package clients

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// database/sql has no words for ingest.
func TestDatabaseSQL(t *testing.T) {
	features{
		connect:      sqlConnect,
		session:      sqlSession,
		token:        sqlWays.byToken,
		password:     sqlWays.byPassword,
		certificate:  sqlWays.byCertificate,
		encryption:   sqlWays.encrypted,
		query:        sqlQuery,
		parameters:   sqlParameters,
		prepared:     sqlPrepared,
		batch:        sqlBatch,
		transactions: sqlTransactions,
		metadata:     sqlMetadata,
		cancel:       sqlCancel,
		errors:       sqlErrors,
		isolation:    sqlIsolation,
		types:        sqlTypes,
		streaming:    sqlStreaming,
	}.test(t, "Go database/sql (arrow-go)")
}

// open is a pool of the driver, which ends with the test.
func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("flightsql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// tenantDB is a pool of a session of the tenant, or of an unbound one.
func tenantDB(t *testing.T, tenant string) *sql.DB {
	t.Helper()
	return open(t, newSession(t, tenant).dsn())
}

// querier is what runs queries: a pool, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// fetch reads a result to its end.
func fetch(rows *sql.Rows, err error) ([][]any, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	found := [][]any{}
	for rows.Next() {
		row, pointers := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			pointers[i] = &row[i]
		}
		if err := rows.Scan(pointers...); err != nil {
			return nil, err
		}
		found = append(found, row)
	}
	return found, rows.Err()
}

func fetched(t *testing.T, from querier, query string, args ...any) [][]any {
	t.Helper()
	found, err := fetch(from.QueryContext(t.Context(), query, args...))
	require.NoError(t, err, query)
	return found
}

// fetchError is how a query fails, which it has to.
func fetchError(t *testing.T, from querier, query string, args ...any) error {
	t.Helper()
	found, err := fetch(from.QueryContext(t.Context(), query, args...))
	require.Error(t, err, "%s answered %v", query, found)
	return err
}

// one is the only value of a query's only row.
func one(t *testing.T, from querier, query string, args ...any) any {
	t.Helper()
	found := fetched(t, from, query, args...)
	require.Len(t, found, 1, query)
	require.Len(t, found[0], 1, query)
	return found[0][0]
}

// execute runs a statement and answers how many rows it wrote.
func execute(t *testing.T, on querier, statement string, args ...any) int64 {
	t.Helper()
	result, err := on.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err, statement)
	count, err := result.RowsAffected()
	require.NoError(t, err)
	return count
}

func sqlConnect(t *testing.T) {
	t.Run("by a session of its own", func(t *testing.T) {
		require.NoError(t, tenantDB(t, newTenant()).PingContext(t.Context()))
	})
	t.Run("without a session, to what is shared", func(t *testing.T) {
		name := notes(t, newTenant(), newTenant())
		require.Equal(t, [][]any{{"shared"}}, fetched(t, open(t, dsn()), "SELECT title FROM "+name))
	})
	t.Run("with credentials, which are ignored", func(t *testing.T) {
		session := newSession(t, newTenant())
		require.EqualValues(t, 1, one(t, open(t, session.dsn("token", "None", "timeout", "1m")), "SELECT 1"))
		basic := fmt.Sprintf("flightsql://alice:secret@%s?%s=%s", server.Address, sessionHeader, session.id)
		require.EqualValues(t, 1, one(t, open(t, basic), "SELECT 1"))
	})
	t.Run("on many connections at once", func(t *testing.T) {
		db := tenantDB(t, newTenant())
		for range 8 {
			connection, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer connection.Close()
			require.EqualValues(t, 1, one(t, connection, "SELECT 1"))
		}
	})
}

func sqlSession(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	name := notes(t, alice, bob)
	titles := "SELECT title FROM " + name + " ORDER BY id"
	ofAlice, ofBob, ofNobody := [][]any{{"a1"}, {"a2"}, {"shared"}}, [][]any{{"b1"}, {"shared"}}, [][]any{{"shared"}}

	t.Run("is bound, bound anew and cleared", func(t *testing.T) {
		session := newSession(t, alice)
		db := open(t, session.dsn())
		require.Equal(t, ofAlice, fetched(t, db, titles))
		session.bind(t, bob)
		require.Equal(t, ofBob, fetched(t, db, titles))
		session.clear(t)
		require.Empty(t, session.bound(t))
		require.Equal(t, ofNobody, fetched(t, db, titles))
	})
	t.Run("is bound by SQL", func(t *testing.T) {
		session := newSession(t, "")
		db := open(t, session.dsn())
		for range 2 {
			execute(t, db, "SET app.current_tenant_id = '"+alice+"'")
			require.Equal(t, ofAlice, fetched(t, db, titles))
			require.Equal(t, alice, one(t, db, "SHOW app.current_tenant_id"))
			execute(t, db, "SET app.current_tenant_id = ?", bob)
			require.Equal(t, ofBob, fetched(t, db, titles))
			require.Equal(t, bob, one(t, db, "SELECT current_setting('app.current_tenant_id')"))
			execute(t, db, "RESET app.current_tenant_id")
			require.Equal(t, ofNobody, fetched(t, db, titles))
		}
		require.Empty(t, session.bound(t))
	})
	t.Run("is shared by its connections, whose closing leaves it bound", func(t *testing.T) {
		session := newSession(t, alice)
		first, second := open(t, session.dsn()), open(t, session.dsn())
		require.Equal(t, ofAlice, fetched(t, first, titles))
		require.NoError(t, first.Close())
		require.Equal(t, ofAlice, fetched(t, second, titles))
		require.Equal(t, alice, session.bound(t))
	})
	t.Run("ends what was prepared when it is bound anew", func(t *testing.T) {
		session := newSession(t, alice)
		db := open(t, session.dsn())
		statement, err := db.PrepareContext(t.Context(), "SELECT title FROM "+name+" WHERE id > ? ORDER BY id")
		require.NoError(t, err)
		found, err := fetch(statement.QueryContext(t.Context(), 0))
		require.NoError(t, err)
		require.Equal(t, ofAlice, found)
		session.bind(t, bob)
		_, err = fetch(statement.QueryContext(t.Context(), 0))
		refused(t, err, codes.FailedPrecondition, "prepare the statement again")
	})
	t.Run("may not have two names in one call", func(t *testing.T) {
		db, other := tenantDB(t, alice), newSession(t, bob)
		_, err := fetch(db.QueryContext(other.ctx(), titles))
		refused(t, err, codes.InvalidArgument, "different values: send one value")
	})
}

func sqlQuery(t *testing.T) {
	db := tenantDB(t, newTenant())
	t.Run("answers rows and columns", func(t *testing.T) {
		rows, err := db.QueryContext(t.Context(), "SELECT 1 AS id, 'a' AS word UNION ALL SELECT 2, 'b' ORDER BY id")
		require.NoError(t, err)
		columns, err := rows.Columns()
		require.NoError(t, err)
		require.Equal(t, []string{"id", "word"}, columns)
		found, err := fetch(rows, nil)
		require.NoError(t, err)
		require.Equal(t, [][]any{{int64(1), "a"}, {int64(2), "b"}}, found)
	})
	t.Run("answers an empty result with its columns", func(t *testing.T) {
		rows, err := db.QueryContext(t.Context(), "SELECT 1 AS id, 'a' AS word WHERE false")
		require.NoError(t, err)
		columns, err := rows.Columns()
		require.NoError(t, err)
		require.Equal(t, []string{"id", "word"}, columns)
		require.False(t, rows.Next())
		require.NoError(t, rows.Err())
	})
	t.Run("scans into what the caller has", func(t *testing.T) {
		var id int
		var word sql.NullString
		row := db.QueryRowContext(t.Context(), "SELECT 7, CAST(NULL AS VARCHAR)")
		require.NoError(t, row.Scan(&id, &word))
		require.Equal(t, 7, id)
		require.False(t, word.Valid)
		missing := db.QueryRowContext(t.Context(), "SELECT 1 WHERE false").Scan(&id)
		require.ErrorIs(t, missing, sql.ErrNoRows)
	})
	t.Run("writes and tells how many rows", func(t *testing.T) {
		execute(t, db, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
		require.EqualValues(t, 2, execute(t, db, "INSERT INTO words VALUES (1, 'a'), (2, 'b')"))
		require.EqualValues(t, 1, execute(t, db, "UPDATE words SET word = 'c' WHERE id = 2"))
		// A write that is asked as a query is run once.
		require.Equal(t, [][]any{{int64(1)}}, fetched(t, db, "INSERT INTO words VALUES (3, 'd')"))
		require.Equal(t, [][]any{{"a"}}, fetched(t, db, "DELETE FROM words WHERE id = 1 RETURNING word"))
		require.Equal(t, [][]any{{int64(2), "c"}, {int64(3), "d"}}, fetched(t, db, "SELECT id, word FROM words ORDER BY id"))
		execute(t, db, "DROP TABLE words")
		refused(t, fetchError(t, db, "SELECT * FROM words"), codes.NotFound, "table `words` does not exist")
	})
}
