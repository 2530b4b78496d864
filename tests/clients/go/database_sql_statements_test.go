package clients

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func sqlParameters(t *testing.T) {
	db := tenantDB(t, newTenant())
	// The driver makes parameters of the types that the server names, out of what
	// database/sql has: there is no NULL among them, and of the numbers there are
	// int64 and float64.
	execute(t, db, "CREATE TABLE kinds (yes BOOLEAN, count BIGINT, ratio DOUBLE, word VARCHAR, at TIME)")
	noon := time.Date(1970, 1, 1, 12, 34, 56, 789, time.UTC)
	for _, bound := range []struct {
		column string
		value  any
		found  any
	}{
		{"yes", true, true},
		{"yes", false, false},
		{"count", int64(-1 << 63), int64(-1 << 63)},
		{"count", int32(7), int64(7)},
		{"ratio", -2.5, -2.5},
		{"ratio", float32(0.5), 0.5},
		{"word", "it's ü 🎉", "it's ü 🎉"},
		{"word", "", ""},
		{"at", noon, noon},
	} {
		t.Run(fmt.Sprintf("of %T", bound.value), func(t *testing.T) {
			execute(t, db, "TRUNCATE kinds")
			require.EqualValues(t, 1, execute(t, db, "INSERT INTO kinds ("+bound.column+") VALUES (?)", bound.value))
			query := fmt.Sprintf("SELECT %[1]s FROM kinds WHERE %[1]s = ?", bound.column)
			require.Equal(t, bound.found, one(t, db, query, bound.value))
		})
	}
	t.Run("are of the types that they are cast to", func(t *testing.T) {
		for _, bound := range []struct {
			kind         string
			value, found any
		}{
			{"BOOLEAN", true, true},
			{"BIGINT", 7, int64(7)},
			{"DOUBLE", 0.5, 0.5},
			{"VARCHAR", "a", "a"},
			{"TIME", noon, noon},
		} {
			require.Equal(t, bound.found, one(t, db, "SELECT CAST(? AS "+bound.kind+")", bound.value))
		}
	})
	t.Run("are of the type that one of their uses tells", func(t *testing.T) {
		execute(t, db, "CREATE TABLE optional (id BIGINT)")
		execute(t, db, "INSERT INTO optional VALUES (7), (10)")
		require.EqualValues(t, 10, one(t, db, "SELECT id FROM optional WHERE id > $1 OR $1 IS NULL", 9))
	})
	t.Run("of other types as text", func(t *testing.T) {
		for typed, texts := range map[string][2]string{
			"DATE":           {"2024-02-29", "2024-02-29"},
			"TIMESTAMP(6)":   {"2024-02-29 12:34:56.789", "2024-02-29T12:34:56.789"},
			"DECIMAL(38, 9)": {"12345678901234567890.123456789", "12345678901234567890.123456789"},
			"INT":            {"-7", "-7"},
		} {
			query := fmt.Sprintf("SELECT CAST(CAST(CAST(? AS VARCHAR) AS %s) AS VARCHAR)", typed)
			require.Equal(t, texts[1], one(t, db, query, texts[0]), typed)
		}
	})
	t.Run("are bound in order and by number", func(t *testing.T) {
		require.Equal(t, [][]any{{"a", "b"}}, fetched(t, db, "SELECT ?, ?", "a", "b"))
		require.Equal(t, [][]any{{"b", "a", "b"}}, fetched(t, db, "SELECT $2, $1, $2 AS again", "a", "b"))
		require.Equal(t, [][]any{{int64(3), "xy"}}, fetched(t, db, "SELECT 1 + ?, 'x' || ?", 2, "y"))
	})
	t.Run("are values and never SQL", func(t *testing.T) {
		execute(t, db, "CREATE TABLE safe (word VARCHAR)")
		hostile := "'); DROP TABLE safe; --"
		require.EqualValues(t, 1, execute(t, db, "INSERT INTO safe VALUES (?)", hostile))
		require.Equal(t, hostile, one(t, db, "SELECT word FROM safe"))
		require.Empty(t, fetched(t, db, "SELECT word FROM safe WHERE word = ?", "' OR 'a' = 'a"))
	})
	t.Run("are columns' where they are compared or written", func(t *testing.T) {
		execute(t, db, "CREATE TABLE kept (id BIGINT PRIMARY KEY, word VARCHAR, ratio DOUBLE, good BOOLEAN)")
		require.EqualValues(t, 1, execute(t, db, "INSERT INTO kept VALUES (?, ?, ?, ?)", 1, "a", 0.5, true))
		require.Equal(t, [][]any{{"a"}}, fetched(t, db,
			"SELECT word FROM kept WHERE id = ? AND ratio < ? AND good = ? LIMIT ?", 1, 0.75, true, 10))
	})
}

func sqlPrepared(t *testing.T) {
	db := tenantDB(t, newTenant())
	execute(t, db, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
	t.Run("is run again with other values", func(t *testing.T) {
		insert, err := db.PrepareContext(t.Context(), "INSERT INTO words VALUES (?, ?)")
		require.NoError(t, err)
		defer insert.Close()
		read, err := db.PrepareContext(t.Context(), "SELECT word FROM words WHERE id = ?")
		require.NoError(t, err)
		defer read.Close()
		for id := range 20 {
			result, err := insert.ExecContext(t.Context(), id, fmt.Sprint("word ", id))
			require.NoError(t, err)
			count, err := result.RowsAffected()
			require.NoError(t, err)
			require.EqualValues(t, 1, count)
			found, err := fetch(read.QueryContext(t.Context(), id))
			require.NoError(t, err)
			require.Equal(t, [][]any{{fmt.Sprint("word ", id)}}, found)
		}
		found, err := fetch(read.QueryContext(t.Context(), -1))
		require.NoError(t, err)
		require.Empty(t, found)
	})
	t.Run("is run by many at once, each with its own values", func(t *testing.T) {
		read, err := db.PrepareContext(t.Context(), "SELECT word FROM words WHERE id = ?")
		require.NoError(t, err)
		defer read.Close()
		var workers sync.WaitGroup
		wrong := make(chan string, 200)
		for worker := range 4 {
			workers.Go(func() {
				for id := worker; id < 20; id += 4 {
					found, err := fetch(read.QueryContext(t.Context(), id))
					if err != nil || len(found) != 1 || found[0][0] != fmt.Sprint("word ", id) {
						wrong <- fmt.Sprintf("%d: %v, %v", id, found, err)
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
	t.Run("without parameters", func(t *testing.T) {
		for range 2 {
			statement, err := db.PrepareContext(t.Context(), "SELECT count(*) FROM words")
			require.NoError(t, err)
			found, err := fetch(statement.QueryContext(t.Context()))
			require.NoError(t, err)
			require.Equal(t, [][]any{{int64(20)}}, found)
			require.NoError(t, statement.Close())
		}
	})
	t.Run("is refused once what it reads is gone", func(t *testing.T) {
		execute(t, db, "CREATE TABLE brief (id BIGINT)")
		statement, err := db.PrepareContext(t.Context(), "SELECT id FROM brief")
		require.NoError(t, err)
		defer statement.Close()
		execute(t, db, "DROP TABLE brief")
		_, err = fetch(statement.QueryContext(t.Context()))
		refused(t, err, codes.NotFound, "table `brief` does not exist")
	})
}

// database/sql has no batches: many rows are one statement run many times in a
// transaction.
func sqlBatch(t *testing.T) {
	db := tenantDB(t, newTenant())
	execute(t, db, "CREATE TABLE many (id BIGINT PRIMARY KEY, word VARCHAR)")
	insert := func(transaction *sql.Tx, from, to int) error {
		statement, err := transaction.PrepareContext(t.Context(), "INSERT INTO many VALUES (?, ?)")
		if err != nil {
			return err
		}
		defer statement.Close()
		for id := from; id < to; id++ {
			if _, err := statement.ExecContext(t.Context(), id, strings.Repeat("x", id%7)); err != nil {
				return err
			}
		}
		return nil
	}
	t.Run("is written together", func(t *testing.T) {
		transaction, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, insert(transaction, 0, 200))
		require.EqualValues(t, 0, one(t, db, "SELECT count(*) FROM many"))
		require.NoError(t, transaction.Commit())
		require.EqualValues(t, 200, one(t, db, "SELECT count(*) FROM many"))
	})
	t.Run("or not at all", func(t *testing.T) {
		transaction, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, insert(transaction, 200, 210))
		refused(t, insert(transaction, 199, 200), codes.AlreadyExists, "id = 199")
		require.NoError(t, transaction.Rollback())
		require.EqualValues(t, 200, one(t, db, "SELECT count(*) FROM many"))
	})
}

func sqlTransactions(t *testing.T) {
	tenant := newTenant()
	session := newSession(t, tenant)
	db, other := open(t, session.dsn()), tenantDB(t, tenant)
	execute(t, db, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
	begin := func(t *testing.T, on *sql.DB) *sql.Tx {
		transaction, err := on.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		return transaction
	}
	ids := func(t *testing.T) [][]any { return fetched(t, other, "SELECT id FROM t ORDER BY id") }

	t.Run("commit", func(t *testing.T) {
		transaction := begin(t, db)
		require.EqualValues(t, 1, execute(t, transaction, "INSERT INTO t VALUES (?)", 1))
		require.EqualValues(t, 1, one(t, transaction, "SELECT count(*) FROM t"))
		require.EqualValues(t, 1, one(t, transaction, "SELECT count(*) FROM t WHERE id = ?", 1))
		require.Empty(t, ids(t))
		require.NoError(t, transaction.Commit())
		require.Equal(t, [][]any{{int64(1)}}, ids(t))
		require.ErrorIs(t, transaction.Commit(), sql.ErrTxDone)
	})
	t.Run("roll back", func(t *testing.T) {
		transaction := begin(t, db)
		execute(t, transaction, "DELETE FROM t")
		execute(t, transaction, "CREATE TABLE u (id BIGINT)")
		require.EqualValues(t, 0, one(t, transaction, "SELECT count(*) FROM t"))
		require.NoError(t, transaction.Rollback())
		require.Equal(t, [][]any{{int64(1)}}, ids(t))
		refused(t, fetchError(t, db, "SELECT * FROM u"), codes.NotFound, "table `u` does not exist")
	})
	t.Run("roll back to a savepoint", func(t *testing.T) {
		transaction := begin(t, db)
		execute(t, transaction, "INSERT INTO t VALUES (2)")
		execute(t, transaction, "SAVEPOINT s")
		execute(t, transaction, "INSERT INTO t VALUES (3)")
		execute(t, transaction, "ROLLBACK TO s")
		execute(t, transaction, "RELEASE s")
		execute(t, transaction, "INSERT INTO t VALUES (4)")
		require.NoError(t, transaction.Commit())
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}, {int64(4)}}, ids(t))
	})
	t.Run("go on after a statement that fails", func(t *testing.T) {
		transaction := begin(t, db)
		execute(t, transaction, "INSERT INTO t VALUES (5)")
		_, err := transaction.ExecContext(t.Context(), "INSERT INTO t VALUES (6), (5)")
		refused(t, err, codes.AlreadyExists, "id = 5")
		require.NoError(t, transaction.Commit())
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}, {int64(4)}, {int64(5)}}, ids(t))
	})
	t.Run("conflict, and are run again", func(t *testing.T) {
		first, second := begin(t, db), begin(t, other)
		require.EqualValues(t, 4, one(t, first, "SELECT count(*) FROM t"))
		require.EqualValues(t, 4, one(t, second, "SELECT count(*) FROM t"))
		execute(t, first, "DELETE FROM t WHERE id = 5")
		require.NoError(t, first.Commit())
		_, err := second.ExecContext(t.Context(), "DELETE FROM t WHERE id = 4")
		refused(t, err, codes.Aborted, "run it again")
		require.NoError(t, second.Rollback())
		again := begin(t, other)
		execute(t, again, "DELETE FROM t WHERE id = 4")
		require.NoError(t, again.Commit())
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}}, ids(t))
	})
	t.Run("are rolled back by their context", func(t *testing.T) {
		ctx, cancel := contextWithCancel(t)
		transaction, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		execute(t, transaction, "INSERT INTO t VALUES (7)")
		cancel()
		require.NoError(t, server.reaches(0, "jammi_transactions"))
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}}, ids(t))
	})
	t.Run("end when the session is bound to another tenant", func(t *testing.T) {
		transaction := begin(t, db)
		execute(t, transaction, "INSERT INTO t VALUES (8)")
		session.bind(t, newTenant())
		refused(t, fetchError(t, transaction, "SELECT 1"), codes.NotFound, "does not exist, or has ended")
		_ = transaction.Rollback()
		session.bind(t, tenant)
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}}, ids(t))
		require.Equal(t, [][]any{{int64(1)}, {int64(2)}}, fetched(t, db, "SELECT id FROM t ORDER BY id"))
	})
	require.NoError(t, server.reaches(0, "jammi_transactions"))
}
