package clients

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// walk is each catalog, schema, table and column that a filter of catalogs and of
// tables lets through, as paths.
func (a *ADBC) walk(t *testing.T, depth adbc.ObjectDepth, catalog, table *string, kinds ...string) []string {
	t.Helper()
	reader, err := a.GetObjects(t.Context(), depth, catalog, nil, table, nil, kinds)
	require.NoError(t, err)
	defer reader.Release()
	require.True(t, adbc.GetObjectsSchema.Equal(reader.Schema()), "%s", reader.Schema())
	var catalogs []struct {
		Name    string `json:"catalog_name"`
		Schemas []struct {
			Name   string `json:"db_schema_name"`
			Tables []struct {
				Name    string `json:"table_name"`
				Columns []struct {
					Name string `json:"column_name"`
				} `json:"table_columns"`
			} `json:"db_schema_tables"`
		} `json:"catalog_db_schemas"`
	}
	var paths []string
	for reader.Next() {
		text, err := reader.RecordBatch().MarshalJSON()
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &catalogs))
		for _, catalog := range catalogs {
			paths = append(paths, catalog.Name)
			for _, schema := range catalog.Schemas {
				paths = append(paths, catalog.Name+"."+schema.Name)
				for _, table := range schema.Tables {
					path := catalog.Name + "." + schema.Name + "." + table.Name
					paths = append(paths, path)
					for _, column := range table.Columns {
						paths = append(paths, path+"."+column.Name)
					}
				}
			}
		}
	}
	require.NoError(t, reader.Err())
	return paths
}

func adbcMetadata(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	connection, others := tenantADBC(t, alice), tenantADBC(t, bob)
	source, own := notes(t, alice, bob)[:len(unique())], unique()
	connection.update(t, "CREATE TABLE "+own+" (id BIGINT PRIMARY KEY, word VARCHAR)")

	t.Run("of objects at every depth", func(t *testing.T) {
		expected := []string{}
		for _, step := range []struct {
			depth adbc.ObjectDepth
			more  []string
		}{
			{adbc.ObjectDepthCatalogs, []string{source}},
			{adbc.ObjectDepthDBSchemas, []string{source + ".public"}},
			{adbc.ObjectDepthTables, []string{source + ".public." + source}},
			{adbc.ObjectDepthColumns, []string{
				source + ".public." + source + ".id",
				source + ".public." + source + ".tenant_id",
				source + ".public." + source + ".title",
			}},
		} {
			expected = append(expected, step.more...)
			found := connection.walk(t, step.depth, nil, nil)
			require.Subset(t, found, expected)
			ofSource := found[:0]
			for _, path := range found {
				if strings.HasPrefix(path, source) {
					ofSource = append(ofSource, path)
				}
			}
			require.ElementsMatch(t, expected, ofSource)
		}
	})
	t.Run("of objects that are asked for", func(t *testing.T) {
		table := "mutable.public." + own
		require.Contains(t, connection.walk(t, adbc.ObjectDepthTables, pointer("mutable"), &own), table)
		require.Contains(t, connection.walk(t, adbc.ObjectDepthTables, nil, &own, "TABLE"), table)
		require.NotContains(t, connection.walk(t, adbc.ObjectDepthTables, nil, &own, "VIEW"), table)
		odd := "SELECT * FROM t WHERE 'it''s' = $1 %_[\\"
		for _, path := range connection.walk(t, adbc.ObjectDepthTables, nil, &odd) {
			require.LessOrEqual(t, strings.Count(path, "."), 1, path)
		}
	})
	t.Run("of a table's schema", func(t *testing.T) {
		for _, of := range [][2]*string{{nil, nil}, {pointer("mutable"), pointer("public")}} {
			schema, err := connection.GetTableSchema(t.Context(), of[0], of[1], own)
			require.NoError(t, err)
			require.Len(t, schema.Fields(), 3)
			name, _ := schema.Field(0).Metadata.GetValue(flightsql.TypeNameKey)
			require.Equal(t, "BIGINT", name)
		}
		_, err := connection.GetTableSchema(t.Context(), nil, nil, "nope")
		requireStatus(t, err, adbc.StatusNotFound)
	})
	t.Run("of another tenant is not told", func(t *testing.T) {
		for _, stranger := range []*ADBC{others, tenantADBC(t, "")} {
			for _, depth := range []adbc.ObjectDepth{
				adbc.ObjectDepthCatalogs, adbc.ObjectDepthDBSchemas, adbc.ObjectDepthTables, adbc.ObjectDepthColumns,
			} {
				found := stranger.walk(t, depth, nil, nil)
				require.NotEmpty(t, found)
				require.NotContains(t, fmt.Sprint(found), own)
			}
			_, err := stranger.GetTableSchema(t.Context(), nil, nil, own)
			requireStatus(t, err, adbc.StatusNotFound)
		}
	})
	t.Run("of types of tables", func(t *testing.T) {
		reader, err := connection.GetTableTypes(t.Context())
		require.NoError(t, err)
		defer reader.Release()
		found := &Result{}
		require.NoError(t, found.drain(reader))
		require.True(t, adbc.TableTypesSchema.Equal(found.schema), "%s", found.schema)
		require.Equal(t, [][]string{{"LOCAL TEMPORARY"}, {"SYSTEM TABLE"}, {"TABLE"}, {"VIEW"}}, found.rows)
	})
	t.Run("of the server", func(t *testing.T) {
		for _, asked := range [][]adbc.InfoCode{{adbc.InfoVendorName, adbc.InfoVendorSql}, nil} {
			reader, err := connection.GetInfo(t.Context(), asked)
			require.NoError(t, err)
			require.True(t, adbc.GetInfoSchema.Equal(reader.Schema()), "%s", reader.Schema())
			values := map[adbc.InfoCode]any{}
			for reader.Next() {
				batch := reader.RecordBatch()
				for row := range int(batch.NumRows()) {
					code := adbc.InfoCode(batch.Column(0).(*array.Uint32).Value(row))
					values[code] = unionValue(batch.Column(1).(*array.DenseUnion), row)
				}
			}
			require.NoError(t, reader.Err())
			reader.Release()
			require.Equal(t, "Jammi", values[adbc.InfoVendorName])
			require.Equal(t, true, values[adbc.InfoVendorSql])
		}
	})
}

func adbcErrors(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	connection, others := tenantADBC(t, alice), tenantADBC(t, bob)
	for name, wrong := range map[string]struct {
		sql    string
		code   codes.Code
		status adbc.Status
		says   string
	}{
		"bad SQL":                  {"SELEC 1", codes.InvalidArgument, adbc.StatusInvalidArgument, "the statement does not parse"},
		"an unknown table":         {"SELECT * FROM nope", codes.NotFound, adbc.StatusNotFound, "table `nope` does not exist"},
		"an unknown catalog":       {"SELECT * FROM nope.public.nope", codes.NotFound, adbc.StatusNotFound, "table `nope.public.nope` does not exist"},
		"an unknown column":        {"SELECT nope FROM jammi.catalog.models", codes.InvalidArgument, adbc.StatusInvalidArgument, "column nope does not exist"},
		"two statements":           {"SELECT 1; SELECT 2", codes.InvalidArgument, adbc.StatusInvalidArgument, "more than one statement"},
		"a statement unserved":     {"COPY t TO '/tmp/t.parquet'", codes.Unimplemented, adbc.StatusNotImplemented, "COPY"},
		"a file":                   {"SELECT * FROM '/etc/passwd'", codes.NotFound, adbc.StatusNotFound, "does not exist"},
		"in the midst of a result": {"SELECT 1 / (value - 500000) FROM generate_series(1, 1000000)", codes.InvalidArgument, adbc.StatusInvalidArgument, "division by zero"},
		"at the beginning of one":  {"SELECT 1 / 0", codes.InvalidArgument, adbc.StatusInvalidArgument, "division by zero"},
	} {
		t.Run(name, func(t *testing.T) {
			err := connection.fails(t, wrong.sql)
			told(t, err, wrong.code, wrong.says)
			requireStatus(t, err, wrong.status)
			require.Equal(t, [][]string{{"1"}}, connection.query(t, "SELECT 1"))
		})
	}
	t.Run("no session where one is needed", func(t *testing.T) {
		unnamed := adbcOpen(t, nil)
		for _, sql := range []string{"BEGIN", "CREATE TEMPORARY TABLE t (id INT)"} {
			_, err := unnamed.write(sql, nil)
			told(t, err, codes.InvalidArgument, sessionHeader)
		}
	})
	t.Run("a session of a name that is none", func(t *testing.T) {
		wrong := adbcOpen(t, map[string]string{adbcHeader: "two words"})
		told(t, wrong.fails(t, "SELECT 1"), codes.InvalidArgument, sessionHeader)
	})
	t.Run("a row of another tenant", func(t *testing.T) {
		connection.update(t, "CREATE TABLE t (id BIGINT)")
		_, err := connection.write("INSERT INTO t (id, tenant_id) VALUES (1, NULL), (2, '"+bob+"')", nil)
		told(t, err, codes.PermissionDenied, "another tenant")
		requireStatus(t, err, adbc.StatusUnauthorized)
		require.Equal(t, [][]string{{"0"}}, connection.query(t, "SELECT count(*) FROM t"))
	})
	t.Run("a table of another tenant is as one that never was", func(t *testing.T) {
		hidden, never := unique(), unique()
		connection.update(t, "CREATE TABLE "+hidden+" (id BIGINT)")
		for _, sql := range []string{"SELECT * FROM %s", "INSERT INTO %s (id) VALUES (1)", "DROP TABLE %s"} {
			found := others.fails(t, fmt.Sprintf(sql, hidden))
			told(t, found, codes.NotFound)
			require.Equal(t, others.fails(t, fmt.Sprintf(sql, never)).Error(), strings.ReplaceAll(found.Error(), hidden, never))
		}
	})
	t.Run("a partition that is none", func(t *testing.T) {
		_, err := connection.ReadPartition(t.Context(), []byte("nonsense"))
		requireStatus(t, err, adbc.StatusInvalidArgument)
	})
	t.Run("a server that is not there", func(t *testing.T) {
		absent := adbcOpen(t, map[string]string{adbc.OptionKeyURI: "grpc://127.0.0.1:1"})
		told(t, absent.fails(t, "SELECT 1"), codes.Unavailable)
	})
}

func adbcIsolation(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	shared := unique()
	tenantADBC(t, "").update(t, "CREATE TABLE "+shared+" (id BIGINT, owner VARCHAR)")
	for tenant, rows := range map[string]string{alice: "'alice' FROM generate_series(1, 100)", bob: "'bob' FROM generate_series(1, 50)"} {
		tenantADBC(t, tenant).update(t, "INSERT INTO "+shared+" (id, owner) SELECT value, "+rows)
	}
	seen := map[string]string{alice: "[[alice 100]]", bob: "[[bob 50]]", "": "[]"}

	t.Run("two tenants at once, each in a connection of one database", func(t *testing.T) {
		database := adbcDatabase(t, nil)
		var workers sync.WaitGroup
		wrong := make(chan string, 1000)
		for tenant, want := range seen {
			session := newSession(t, tenant)
			opened, err := database.Open(t.Context())
			require.NoError(t, err)
			connection := &ADBC{opened, t.Context()}
			t.Cleanup(func() { require.NoError(t, connection.end()) })
			require.NoError(t, connection.set(adbcHeader, session.id))
			sql := "SELECT owner, count(*) FROM " + shared + " WHERE owner <> ? OR tenant_id = '" + bob + "' GROUP BY owner"
			nobody := records(t, columns("0", arrow.BinaryTypes.String), `[{"0": "nobody"}]`)
			workers.Go(func() {
				for range 25 {
					for _, bound := range []arrow.RecordBatch{nil, nobody} {
						text := sql
						if bound == nil {
							text = strings.Replace(sql, "?", "'nobody'", 1)
						}
						found, err := connection.answer(text, bound)
						if err != nil || fmt.Sprint(found.rows) != want {
							wrong <- fmt.Sprintf("%v, %v and not %v", found, err, want)
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
	t.Run("two tenants in transactions, of which neither waits for the other", func(t *testing.T) {
		hers, his := tenantADBC(t, alice), tenantADBC(t, bob)
		for _, connection := range []*ADBC{hers, his} {
			require.NoError(t, connection.set(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled))
		}
		require.EqualValues(t, 100, hers.update(t, "DELETE FROM "+shared))
		require.EqualValues(t, 50, his.update(t, "UPDATE "+shared+" SET owner = 'still bob'"))
		require.NoError(t, hers.Commit(t.Context()))
		require.NoError(t, his.Commit(t.Context()))
		owners := "SELECT DISTINCT owner FROM " + shared
		require.Empty(t, tenantADBC(t, alice).query(t, owners))
		require.Equal(t, [][]string{{"still bob"}}, tenantADBC(t, bob).query(t, owners))
	})
	t.Run("rows of a source", func(t *testing.T) {
		name := notes(t, alice, bob)
		titles := "SELECT title FROM " + name + " WHERE tenant_id = '" + alice + "' OR true ORDER BY id"
		require.Equal(t, [][]string{{"b1"}, {"shared"}}, tenantADBC(t, bob).query(t, titles))
		require.Equal(t, [][]string{{"shared"}}, tenantADBC(t, "").query(t, titles))
	})
}

func adbcTypes(t *testing.T) {
	connection := tenantADBC(t, newTenant())
	for _, kind := range kinds {
		t.Run(kind.kind.String(), func(t *testing.T) {
			table := unique()
			batch := records(t, columns("id", arrow.PrimitiveTypes.Int64, "v", kind.kind),
				fmt.Sprintf(`[{"id": 1, "v": %s}, {"id": 2, "v": null}]`, kind.value))
			_, err := connection.ingest(t, adbc.OptionValueIngestModeCreate, table, batch)
			require.NoError(t, err)
			found, err := connection.answer("SELECT id, v FROM "+table+" ORDER BY id", nil)
			require.NoError(t, err)
			require.True(t, arrow.TypeEqual(kind.kind, found.schema.Field(1).Type), "found %s", found.schema)
			require.Len(t, found.batches, 1)
			require.True(t, array.Equal(batch.Column(1), found.batches[0].Column(1)), "%v", found.rows)
		})
	}
}

func adbcStreaming(t *testing.T) {
	connection := tenantADBC(t, newTenant())
	t.Run("many rows", func(t *testing.T) {
		const count = 3_000_000
		sql := fmt.Sprintf("SELECT value FROM generate_series(1, %d)", count)
		require.NoError(t, connection.with(sql, func(statement adbc.Statement) error {
			reader, _, err := statement.ExecuteQuery(t.Context())
			require.NoError(t, err)
			defer reader.Release()
			var found, sum int64
			for reader.Next() {
				for _, value := range reader.RecordBatch().Column(0).(*array.Int64).Int64Values() {
					found, sum = found+1, sum+value
				}
			}
			require.Equal(t, [2]int64{count, count * (count + 1) / 2}, [2]int64{found, sum})
			return reader.Err()
		}))
	})
	t.Run("long rows, in messages that the driver takes", func(t *testing.T) {
		found, err := connection.answer("SELECT value, repeat('x', 500000) FROM generate_series(1, 64) ORDER BY value", nil)
		require.NoError(t, err)
		require.Len(t, found.rows, 64)
	})
}
