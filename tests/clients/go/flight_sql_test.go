package clients

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"jammi/tests/clients/go/session"
)

func TestFlightSQL(t *testing.T) {
	features{
		connect:      flightConnect,
		session:      flightSession,
		token:        flightWays.byToken,
		password:     flightWays.byPassword,
		certificate:  flightWays.byCertificate,
		encryption:   flightWays.encrypted,
		query:        flightQuery,
		parameters:   flightParameters,
		prepared:     flightPrepared,
		batch:        flightBatch,
		ingest:       flightIngest,
		transactions: flightTransactions,
		metadata:     flightMetadata,
		cancel:       flightCancel,
		errors:       flightErrors,
		isolation:    flightIsolation,
		types:        flightTypes,
		streaming:    flightStreaming,
	}.test(t, "Go flightsql.Client (arrow-go)")
}

// Flight is a client whose calls are a session's.
type Flight struct {
	*flightsql.Client
	*Session
}

// newClient is a client of the server, which ends with the test.
func newClient(t *testing.T) *flightsql.Client {
	t.Helper()
	client, err := flightsql.NewClient(server.Address, nil, nil, insecurely)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// tenantFlight is a client of a session of the tenant, or of an unbound one.
func tenantFlight(t *testing.T, tenant string) *Flight {
	t.Helper()
	return &Flight{newClient(t), newSession(t, tenant)}
}

// Result is what a query answered: its schema, and its rows as text.
type Result struct {
	schema  *arrow.Schema
	rows    [][]string
	batches []arrow.RecordBatch
}

// result reads what `info` announces to its end.
func (f *Flight) result(info *flight.FlightInfo, err error) (*Result, error) {
	return readAll(f.ctx(), f.Client, info, err)
}

func readAll(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	found := &Result{rows: [][]string{}}
	for _, endpoint := range info.Endpoint {
		if err := found.read(ctx, client, endpoint.Ticket); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (r *Result) read(ctx context.Context, client *flightsql.Client, ticket *flight.Ticket) error {
	reader, err := client.DoGet(ctx, ticket)
	if err != nil {
		return err
	}
	defer reader.Release()
	return r.drain(reader)
}

// drain reads to the end.
func (r *Result) drain(reader array.RecordReader) error {
	r.schema = reader.Schema()
	for reader.Next() {
		batch := reader.RecordBatch()
		batch.Retain()
		r.batches = append(r.batches, batch)
		for at := range int(batch.NumRows()) {
			row := make([]string, batch.NumCols())
			for column := range row {
				row[column] = batch.Column(column).ValueStr(at)
			}
			r.rows = append(r.rows, row)
		}
	}
	return reader.Err()
}

// query runs a query, which has to succeed, and answers its rows.
func (f *Flight) query(t *testing.T, sql string) [][]string {
	t.Helper()
	found, err := f.result(f.Execute(f.ctx(), sql))
	require.NoError(t, err, sql)
	return found.rows
}

// fails is how a query fails, which it has to.
func (f *Flight) fails(t *testing.T, sql string) error {
	t.Helper()
	found, err := f.result(f.Execute(f.ctx(), sql))
	require.Error(t, err, "%s answered %v", sql, found)
	return err
}

// update runs a statement and answers how many rows it wrote.
func (f *Flight) update(t *testing.T, sql string) int64 {
	t.Helper()
	count, err := f.ExecuteUpdate(f.ctx(), sql)
	require.NoError(t, err, sql)
	return count
}

// records are rows in JSON as a batch of the schema.
func records(t *testing.T, schema *arrow.Schema, rows string) arrow.RecordBatch {
	t.Helper()
	batch, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	require.NoError(t, err)
	return batch
}

// reader streams the batches.
func reader(t *testing.T, batches ...arrow.RecordBatch) array.RecordReader {
	t.Helper()
	reader, err := array.NewRecordReader(batches[0].Schema(), batches)
	require.NoError(t, err)
	t.Cleanup(reader.Release)
	return reader
}

// columns is a schema of nullable columns, named in pairs with their types.
func columns(namesAndTypes ...any) *arrow.Schema {
	var fields []arrow.Field
	for i := 0; i < len(namesAndTypes); i += 2 {
		fields = append(fields, arrow.Field{
			Name:     namesAndTypes[i].(string),
			Type:     namesAndTypes[i+1].(arrow.DataType),
			Nullable: true,
		})
	}
	return arrow.NewSchema(fields, nil)
}

func flightConnect(t *testing.T) {
	t.Run("by a session of its own", func(t *testing.T) {
		require.Equal(t, [][]string{{"1"}}, tenantFlight(t, newTenant()).query(t, "SELECT 1"))
	})
	t.Run("without a session, to what is shared", func(t *testing.T) {
		name := notes(t, newTenant(), newTenant())
		client := newClient(t)
		info, err := client.Execute(t.Context(), "SELECT title FROM "+name)
		found, err := readAll(t.Context(), client, info, err)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"shared"}}, found.rows)
	})
	t.Run("with credentials, which are ignored", func(t *testing.T) {
		client := tenantFlight(t, newTenant())
		ctx, err := client.Client.Client.AuthenticateBasicToken(client.ctx(), "alice", "secret")
		require.NoError(t, err)
		info, err := client.Execute(ctx, "SELECT 1")
		found, err := readAll(ctx, client.Client, info, err)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"1"}}, found.rows)
	})
	t.Run("with cookies", func(t *testing.T) {
		client, err := flightsql.NewClient(server.Address, nil,
			[]flight.ClientMiddleware{flight.NewClientCookieMiddleware()}, insecurely)
		require.NoError(t, err)
		defer client.Close()
		flights := &Flight{client, newSession(t, newTenant())}
		require.Equal(t, [][]string{{"1"}}, flights.query(t, "SELECT 1"))
	})
}

func flightSession(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	name := notes(t, alice, bob)
	titles := "SELECT title FROM " + name + " ORDER BY id"
	ofAlice, ofBob, ofNobody := [][]string{{"a1"}, {"a2"}, {"shared"}}, [][]string{{"b1"}, {"shared"}}, [][]string{{"shared"}}

	t.Run("is bound, bound anew and cleared", func(t *testing.T) {
		client := tenantFlight(t, alice)
		require.Equal(t, ofAlice, client.query(t, titles))
		client.bind(t, bob)
		require.Equal(t, ofBob, client.query(t, titles))
		client.clear(t)
		require.Empty(t, client.bound(t))
		require.Equal(t, ofNobody, client.query(t, titles))
	})
	t.Run("refuses tenants that are none", func(t *testing.T) {
		client := newSession(t, alice)
		for _, wrong := range []string{"", "alice", "00000000-0000-0000-0000-000000000000"} {
			_, err := client.sessions.SetTenant(client.ctx(), &session.SetTenantRequest{Tenant: &session.Tenant{Id: wrong}})
			refused(t, err, codes.InvalidArgument)
		}
		require.Equal(t, alice, client.bound(t))
	})
	t.Run("ends tickets and handles when it is bound anew", func(t *testing.T) {
		client := tenantFlight(t, alice)
		info, err := client.Execute(client.ctx(), titles)
		require.NoError(t, err)
		statement, err := client.Prepare(client.ctx(), titles)
		require.NoError(t, err)
		client.bind(t, bob)
		_, err = client.result(info, nil)
		refused(t, err, codes.FailedPrecondition, "prepare the statement again")
		_, err = statement.Execute(client.ctx())
		refused(t, err, codes.FailedPrecondition, "prepare the statement again")
	})
	t.Run("has a current catalog and schema", func(t *testing.T) {
		client := tenantFlight(t, alice)
		catalog, _, _ := strings.Cut(name, ".")
		set, err := client.SetSessionOptions(client.ctx(), options(t, map[string]any{"catalog": catalog}))
		require.NoError(t, err)
		require.Empty(t, set.Errors)
		got, err := client.GetSessionOptions(client.ctx(), &flight.GetSessionOptionsRequest{})
		require.NoError(t, err)
		require.Equal(t, catalog, got.SessionOptions["catalog"].GetStringValue())
		require.Equal(t, ofAlice, client.query(t, "SELECT title FROM "+catalog+" ORDER BY id"))
		// A session of the same tenant has its own.
		refused(t, tenantFlight(t, alice).fails(t, "SELECT title FROM "+catalog), codes.NotFound)
	})
	t.Run("is bound by SQL and by option", func(t *testing.T) {
		client := tenantFlight(t, "")
		client.update(t, "SET app.current_tenant_id = '"+alice+"'")
		require.Equal(t, alice, client.bound(t))
		require.Equal(t, ofAlice, client.query(t, titles))
		client.query(t, "SET app.current_tenant_id = '"+bob+"'")
		require.Equal(t, ofBob, client.query(t, titles))
		require.Equal(t, [][]string{{bob}}, client.query(t, "SHOW app.current_tenant_id"))
		set, err := client.SetSessionOptions(client.ctx(), options(t, map[string]any{"tenant": alice}))
		require.NoError(t, err)
		require.Empty(t, set.Errors)
		require.Equal(t, ofAlice, client.query(t, titles))
		got, err := client.GetSessionOptions(client.ctx(), &flight.GetSessionOptionsRequest{})
		require.NoError(t, err)
		require.Equal(t, alice, got.SessionOptions["tenant"].GetStringValue())
		set, err = client.SetSessionOptions(client.ctx(), options(t, map[string]any{"tenant": nil}))
		require.NoError(t, err)
		require.Empty(t, set.Errors)
		require.Empty(t, client.bound(t))
		require.Equal(t, ofNobody, client.query(t, titles))
	})
	t.Run("is given to a client that keeps cookies", func(t *testing.T) {
		for _, tenant := range []string{alice, bob} {
			cookies := []flight.ClientMiddleware{flight.NewClientCookieMiddleware()}
			client, err := flightsql.NewClient(server.Address, nil, cookies, insecurely)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			ctx := t.Context()
			_, err = client.ExecuteUpdate(ctx, "SET app.current_tenant_id = '"+tenant+"'")
			refused(t, err, codes.InvalidArgument, sessionHeader)
			_, err = client.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})
			require.NoError(t, err)
			_, err = client.ExecuteUpdate(ctx, "SET app.current_tenant_id = '"+tenant+"'")
			require.NoError(t, err)
			info, err := client.Execute(ctx, titles)
			found, err := readAll(ctx, client, info, err)
			require.NoError(t, err)
			require.Equal(t, map[string][][]string{alice: ofAlice, bob: ofBob}[tenant], found.rows)
		}
	})
	t.Run("is closed, and stays bound for its siblings", func(t *testing.T) {
		client := tenantFlight(t, alice)
		client.update(t, "CREATE TEMPORARY TABLE brief (id INT)")
		_, err := client.CloseSession(client.ctx(), &flight.CloseSessionRequest{})
		require.NoError(t, err)
		require.Equal(t, alice, client.bound(t))
		require.Equal(t, ofAlice, client.query(t, titles))
		refused(t, client.fails(t, "SELECT * FROM brief"), codes.NotFound)
	})
	t.Run("may not have two names in one call", func(t *testing.T) {
		client, other := tenantFlight(t, alice), newSession(t, bob)
		_, err := client.Execute(other.in(client.ctx()), titles)
		refused(t, err, codes.InvalidArgument, "different values: send one value")
	})
}

func options(t *testing.T, values map[string]any) *flight.SetSessionOptionsRequest {
	t.Helper()
	found := map[string]*flight.SessionOptionValue{}
	for name, value := range values {
		option, err := flight.NewSessionOptionValue(value)
		require.NoError(t, err)
		found[name] = &option
	}
	return &flight.SetSessionOptionsRequest{SessionOptions: found}
}

func flightQuery(t *testing.T) {
	client := tenantFlight(t, newTenant())
	t.Run("answers rows in the schema that was announced", func(t *testing.T) {
		sql := "SELECT 1 AS id, 'a' AS word UNION ALL SELECT 2, NULL ORDER BY id"
		info, err := client.Execute(client.ctx(), sql)
		require.NoError(t, err)
		announced, err := flight.DeserializeSchema(info.Schema, memory.DefaultAllocator)
		require.NoError(t, err)
		found, err := client.result(info, nil)
		require.NoError(t, err)
		require.Equal(t, [][]string{{"1", "a"}, {"2", "(null)"}}, found.rows)
		require.True(t, announced.Equal(found.schema), "%s\n%s", announced, found.schema)
		schema, err := client.GetExecuteSchema(client.ctx(), sql)
		require.NoError(t, err)
		told, err := flight.DeserializeSchema(schema.Schema, memory.DefaultAllocator)
		require.NoError(t, err)
		require.True(t, announced.Equal(told), "%s\n%s", announced, told)
	})
	t.Run("answers an empty result with its schema", func(t *testing.T) {
		found, err := client.result(client.Execute(client.ctx(), "SELECT 1 AS id, [1.5] AS list, named_struct('a', 'b') AS pair WHERE false"))
		require.NoError(t, err)
		require.Empty(t, found.rows)
		var names, types []string
		for _, field := range found.schema.Fields() {
			names, types = append(names, field.Name), append(types, field.Type.Name())
		}
		require.Equal(t, []string{"id", "list", "pair"}, names)
		require.Equal(t, []string{"int64", "list", "struct"}, types)
	})
	t.Run("writes and tells how many rows, by either way", func(t *testing.T) {
		client.update(t, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
		require.EqualValues(t, 2, client.update(t, "INSERT INTO words VALUES (1, 'a'), (2, 'b')"))
		require.Equal(t, [][]string{{"1"}}, client.query(t, "INSERT INTO words VALUES (3, 'c')"))
		require.Equal(t, [][]string{{"a"}}, client.query(t, "DELETE FROM words WHERE id = 1 RETURNING word"))
		require.Equal(t, [][]string{{"2", "b"}, {"3", "c"}}, client.query(t, "SELECT id, word FROM words ORDER BY id"))
	})
	t.Run("runs a write once for its ticket", func(t *testing.T) {
		info, err := client.Execute(client.ctx(), "INSERT INTO words VALUES (4, 'd')")
		require.NoError(t, err)
		require.Equal(t, [][]string{{"0"}}, client.query(t, "SELECT count(*) FROM words WHERE id = 4"))
		_, err = client.result(info, nil)
		require.NoError(t, err)
		_, err = client.result(info, nil)
		refused(t, err, codes.FailedPrecondition)
		require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT count(*) FROM words WHERE id = 4"))
	})
}
