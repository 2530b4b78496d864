package clients

import (
	"context"
	"errors"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

func TestADBC(t *testing.T) {
	features{
		connect:      adbcConnect,
		session:      adbcSession,
		token:        adbcWays.byToken,
		password:     adbcWays.byPassword,
		certificate:  adbcWays.byCertificate,
		encryption:   adbcWays.encrypted,
		query:        adbcQuery,
		parameters:   adbcParameters,
		prepared:     adbcPrepared,
		batch:        adbcBatch,
		ingest:       adbcIngest,
		transactions: adbcTransactions,
		metadata:     adbcMetadata,
		cancel:       adbcCancel,
		errors:       adbcErrors,
		isolation:    adbcIsolation,
		types:        adbcTypes,
		streaming:    adbcStreaming,
	}.test(t, "Go ADBC driver (arrow-adbc)")
}

const (
	adbcHeader    = flightsql.OptionRPCCallHeaderPrefix + sessionHeader
	tenantOption  = flightsql.OptionSessionOptionPrefix + "tenant"
	tenantErasure = flightsql.OptionEraseSessionOptionPrefix + "tenant"
)

// ADBC is a connection of the driver, which ends with the test.
type ADBC struct {
	adbc.Connection
	ctx context.Context
}

// adbcDatabase is the server as the driver is told of it.
func adbcDatabase(t *testing.T, options map[string]string) adbc.Database {
	t.Helper()
	all := map[string]string{adbc.OptionKeyURI: "grpc://" + server.Address}
	for name, value := range options {
		all[name] = value
	}
	database, err := flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(all)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, database.Close()) })
	return database
}

func adbcOpen(t *testing.T, options map[string]string) *ADBC {
	t.Helper()
	connection, err := adbcDatabase(t, options).Open(t.Context())
	require.NoError(t, err)
	opened := &ADBC{connection, t.Context()}
	t.Cleanup(func() { require.NoError(t, opened.end()) })
	return opened
}

// adbcOf is a connection whose calls are the session's.
func adbcOf(t *testing.T, session *Session) *ADBC {
	t.Helper()
	return adbcOpen(t, map[string]string{adbcHeader: session.id})
}

// tenantADBC is a connection in a session of the tenant, or in an unbound one.
func tenantADBC(t *testing.T, tenant string) *ADBC {
	t.Helper()
	return adbcOf(t, newSession(t, tenant))
}

// in is the connection, whose calls have the context.
func (a *ADBC) in(ctx context.Context) *ADBC {
	return &ADBC{a.Connection, ctx}
}

// end closes the connection, unless it is closed.
func (a *ADBC) end() error {
	var closed adbc.Error
	if err := a.Close(); !errors.As(err, &closed) || closed.Code != adbc.StatusInvalidState {
		return err
	}
	return nil
}

// set sets an option of the connection.
func (a *ADBC) set(name, value string) error {
	return a.Connection.(adbc.PostInitOptions).SetOption(name, value)
}

// option is an option of the connection.
func (a *ADBC) option(t *testing.T, name string) string {
	t.Helper()
	value, err := a.Connection.(adbc.GetSetOptions).GetOption(name)
	require.NoError(t, err)
	return value
}

// with runs `use` with a statement of the text, and closes the statement.
func (a *ADBC) with(sql string, use func(statement adbc.Statement) error) error {
	statement, err := a.NewStatement()
	if err != nil {
		return err
	}
	if err = statement.SetSqlQuery(sql); err == nil {
		err = use(statement)
	}
	return errors.Join(err, statement.Close())
}

// rows reads what a statement answers, to its end.
func (a *ADBC) rows(statement adbc.Statement) (*Result, error) {
	reader, _, err := statement.ExecuteQuery(a.ctx)
	if err != nil {
		return nil, err
	}
	defer reader.Release()
	found := &Result{rows: [][]string{}}
	return found, found.drain(reader)
}

// bound prepares a statement and binds the parameters to it, if any.
func (a *ADBC) bound(statement adbc.Statement, parameters arrow.RecordBatch) error {
	if err := statement.Prepare(a.ctx); err != nil || parameters == nil {
		return err
	}
	return statement.Bind(a.ctx, parameters)
}

// answer is what a query answers, with parameters if they are not nil.
func (a *ADBC) answer(sql string, parameters arrow.RecordBatch) (found *Result, err error) {
	err = a.with(sql, func(statement adbc.Statement) error {
		if parameters != nil {
			if err := a.bound(statement, parameters); err != nil {
				return err
			}
		}
		found, err = a.rows(statement)
		return err
	})
	return found, err
}

// query runs a query, which has to succeed, and answers its rows.
func (a *ADBC) query(t *testing.T, sql string) [][]string {
	t.Helper()
	found, err := a.answer(sql, nil)
	require.NoError(t, err, sql)
	return found.rows
}

// fails is how a query fails, which it has to.
func (a *ADBC) fails(t *testing.T, sql string) error {
	t.Helper()
	found, err := a.answer(sql, nil)
	require.Error(t, err, "%s answered %v", sql, found)
	return err
}

// write runs a statement with parameters if they are not nil, and answers how many rows it wrote.
func (a *ADBC) write(sql string, parameters arrow.RecordBatch) (count int64, err error) {
	err = a.with(sql, func(statement adbc.Statement) error {
		if parameters != nil {
			if err := a.bound(statement, parameters); err != nil {
				return err
			}
		}
		count, err = statement.ExecuteUpdate(a.ctx)
		return err
	})
	return count, err
}

func (a *ADBC) update(t *testing.T, sql string) int64 {
	t.Helper()
	count, err := a.write(sql, nil)
	require.NoError(t, err, sql)
	return count
}

// told tells that the error is the server's, of this code, and that its text
// holds the parts.
func told(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	var failed adbc.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, code.String(), codes.Code(failed.VendorCode).String(), "%v", err)
	for _, part := range parts {
		require.Contains(t, err.Error(), part)
	}
}

// requireStatus tells how ADBC names the error.
func requireStatus(t *testing.T, err error, status adbc.Status) {
	t.Helper()
	var failed adbc.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, status.String(), failed.Code.String(), "%v", err)
}

func adbcConnect(t *testing.T) {
	session := newSession(t, newTenant())
	header := func(more ...string) map[string]string {
		options := map[string]string{adbcHeader: session.id}
		for i := 0; i < len(more); i += 2 {
			options[more[i]] = more[i+1]
		}
		return options
	}
	for name, options := range map[string]map[string]string{
		"by a session of its own": header(),
		"with a user's name":      {adbc.OptionKeyUsername: "alice", adbc.OptionKeyPassword: "secret"},
		"with a credential":       header(flightsql.OptionAuthorizationHeader, "Bearer None"),
		"with cookies":            header(flightsql.OptionCookieMiddleware, adbc.OptionValueEnabled),
		"with deadlines":          header(flightsql.OptionTimeoutQuery, "60", flightsql.OptionTimeoutFetch, "60"),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, [][]string{{"1"}}, adbcOpen(t, options).query(t, "SELECT 1"))
		})
	}
	t.Run("without a session, to what is shared", func(t *testing.T) {
		name := notes(t, newTenant(), newTenant())
		require.Equal(t, [][]string{{"shared"}}, adbcOpen(t, nil).query(t, "SELECT title FROM "+name))
	})
	t.Run("and once more for each that is closed", func(t *testing.T) {
		database := adbcDatabase(t, header())
		for range 3 {
			connection, err := database.Open(t.Context())
			require.NoError(t, err)
			opened := &ADBC{connection, t.Context()}
			require.Equal(t, adbc.OptionValueEnabled, opened.option(t, adbc.OptionKeyAutoCommit))
			require.Equal(t, [][]string{{"1"}}, opened.query(t, "SELECT 1"))
			require.NoError(t, connection.Close())
		}
		require.NotEmpty(t, session.bound(t))
	})
}

func adbcSession(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	name := notes(t, alice, bob)
	titles := "SELECT title FROM " + name + " ORDER BY id"
	seen := map[string][][]string{
		alice: {{"a1"}, {"a2"}, {"shared"}},
		bob:   {{"b1"}, {"shared"}},
		"":    {{"shared"}},
	}
	t.Run("is bound by an option, and by no other", func(t *testing.T) {
		session, other := newSession(t, ""), newSession(t, bob)
		connection := adbcOf(t, session)
		for _, tenant := range []string{alice, bob, alice} {
			require.NoError(t, connection.set(tenantOption, tenant))
			require.Equal(t, tenant, connection.option(t, tenantOption))
			require.Equal(t, tenant, session.bound(t))
			require.Equal(t, seen[tenant], connection.query(t, titles))
		}
		for _, wrong := range []string{"bob", "", "00000000-0000-0000-0000-000000000000"} {
			require.ErrorContains(t, connection.set(tenantOption, wrong), "invalid value")
		}
		for _, unknown := range []string{"Tenant", "tenant_id", "jammi.tenant", "datafusion.catalog.tenant"} {
			require.ErrorContains(t, connection.set(flightsql.OptionSessionOptionPrefix+unknown, bob), "invalid name")
		}
		require.Equal(t, seen[alice], connection.query(t, titles))
		require.NoError(t, connection.set(tenantErasure, ""))
		require.Empty(t, session.bound(t))
		require.Equal(t, seen[""], connection.query(t, titles))
		require.Equal(t, bob, other.bound(t))
	})
	t.Run("is bound by SQL", func(t *testing.T) {
		session := newSession(t, "")
		connection := adbcOf(t, session)
		connection.update(t, "SET app.current_tenant_id = '"+alice+"'")
		require.Equal(t, alice, session.bound(t))
		require.Equal(t, seen[alice], connection.query(t, titles))
		connection.query(t, "SET app.current_tenant_id = '"+bob+"'")
		require.Equal(t, [][]string{{bob}}, connection.query(t, "SHOW app.current_tenant_id"))
		require.Equal(t, seen[bob], connection.query(t, titles))
	})
	t.Run("is given to a connection that keeps cookies", func(t *testing.T) {
		for _, tenant := range []string{alice, bob} {
			connection := adbcOpen(t, map[string]string{flightsql.OptionCookieMiddleware: adbc.OptionValueEnabled})
			require.Equal(t, "mutable", connection.option(t, adbc.OptionKeyCurrentCatalog))
			require.NoError(t, connection.set(tenantOption, tenant))
			require.Equal(t, seen[tenant], connection.query(t, titles))
		}
		// Without cookies there is none to be bound.
		connection := adbcOpen(t, nil)
		told(t, connection.set(tenantOption, alice), codes.InvalidArgument, sessionHeader)
		require.Equal(t, seen[""], connection.query(t, titles))
	})
	t.Run("has a current catalog and schema", func(t *testing.T) {
		connection := tenantADBC(t, alice)
		bare := name[:len(unique())]
		require.NoError(t, connection.set(adbc.OptionKeyCurrentCatalog, bare))
		require.Equal(t, bare, connection.option(t, adbc.OptionKeyCurrentCatalog))
		require.Equal(t, "public", connection.option(t, adbc.OptionKeyCurrentDbSchema))
		require.Equal(t, [][]string{{"3"}}, connection.query(t, "SELECT count(*) FROM "+bare))
		// A session of the same tenant has its own.
		told(t, tenantADBC(t, alice).fails(t, "SELECT * FROM "+bare), codes.NotFound)
	})
	t.Run("stays bound when one of its connections closes", func(t *testing.T) {
		session := newSession(t, alice)
		first, second := adbcOf(t, session), adbcOf(t, session)
		require.Equal(t, seen[alice], first.query(t, titles))
		require.NoError(t, first.Close())
		require.Equal(t, alice, session.bound(t))
		require.Equal(t, seen[alice], second.query(t, titles))
	})
	t.Run("is named at several levels, and by one name", func(t *testing.T) {
		session, other := newSession(t, alice), newSession(t, bob)
		connection := adbcOf(t, session)
		require.NoError(t, connection.set(adbcHeader, session.id))
		require.Equal(t, seen[alice], connection.query(t, titles))
		err := connection.with(titles, func(statement adbc.Statement) error {
			require.NoError(t, statement.SetOption(adbcHeader, other.id))
			_, err := connection.rows(statement)
			return err
		})
		told(t, err, codes.InvalidArgument, "different values: send one value")
	})
	t.Run("ends what it has prepared when it is bound anew", func(t *testing.T) {
		session := newSession(t, alice)
		connection := adbcOf(t, session)
		err := connection.with(titles, func(statement adbc.Statement) error {
			require.NoError(t, statement.Prepare(t.Context()))
			found, err := connection.rows(statement)
			require.NoError(t, err)
			require.Equal(t, seen[alice], found.rows)
			session.bind(t, bob)
			_, err = connection.rows(statement)
			return err
		})
		told(t, err, codes.FailedPrecondition, "prepare the statement again")
		require.Equal(t, seen[bob], connection.query(t, titles))
	})
	t.Run("keeps partitions to itself", func(t *testing.T) {
		session := newSession(t, alice)
		var partitions adbc.Partitions
		require.NoError(t, adbcOf(t, session).with(titles, func(statement adbc.Statement) (err error) {
			_, partitions, _, err = statement.ExecutePartitions(t.Context())
			return err
		}))
		read := func(connection *ADBC) (*Result, error) {
			reader, err := connection.ReadPartition(t.Context(), partitions.PartitionIDs[0])
			if err != nil {
				return nil, err
			}
			defer reader.Release()
			found := &Result{}
			return found, found.drain(reader)
		}
		require.EqualValues(t, 1, partitions.NumPartitions)
		found, err := read(adbcOf(t, session))
		require.NoError(t, err)
		require.Equal(t, seen[alice], found.rows)
		for _, stranger := range []string{alice, bob, ""} {
			_, err := read(tenantADBC(t, stranger))
			told(t, err, codes.FailedPrecondition, "to another session")
		}
	})
}
