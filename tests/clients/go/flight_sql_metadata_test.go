package clients

import (
	"bytes"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// primaryKeys is the answer to GetPrimaryKeys as the specification's
// FlightSql.proto has it: arrow-go's own turns the last two columns about.
var primaryKeys = func() *arrow.Schema {
	fields := slices.Clone(schema_ref.PrimaryKeys.Fields())
	slices.Reverse(fields[4:])
	return arrow.NewSchema(fields, nil)
}()

// sqlInfo is arrow-go's, but for whether the kinds of values may be NULL, of
// which the specification says nothing.
var sqlInfo = func() *arrow.Schema {
	fields := slices.Clone(schema_ref.SqlInfo.Fields())
	union := fields[1].Type.(*arrow.DenseUnionType)
	kinds := slices.Clone(union.Fields())
	kinds[4].Nullable, kinds[5].Nullable = true, true
	fields[1].Type = arrow.DenseUnionOf(kinds, union.TypeCodes())
	return arrow.NewSchema(fields, nil)
}()

var closeSession = &flight.CloseSessionRequest{}

// ask reads a metadata command, whose schema has to be the standard's as
// arrow-go knows it.
func (f *Flight) ask(t *testing.T, want *arrow.Schema, info *flight.FlightInfo, err error) [][]string {
	t.Helper()
	found, err := f.result(info, err)
	require.NoError(t, err)
	require.True(t, want.Equal(found.schema), "want %s\nfound %s", want, found.schema)
	announced, err := flight.DeserializeSchema(info.Schema, memory.DefaultAllocator)
	require.NoError(t, err)
	require.True(t, want.Equal(announced), "want %s\nannounced %s", want, announced)
	return found.rows
}

func flightMetadata(t *testing.T) {
	alice, bob := newTenant(), newTenant()
	client, others := tenantFlight(t, alice), tenantFlight(t, bob)
	source, own := notes(t, alice, bob), unique()
	source = source[:len(unique())]
	client.update(t, "CREATE TABLE "+own+" (a BIGINT, b VARCHAR NOT NULL, price DECIMAL(10, 2), PRIMARY KEY (b, a))")
	client.update(t, "CREATE VIEW "+own+"_view AS SELECT a FROM "+own)
	mutable, public := "mutable", "public"

	t.Run("of catalogs", func(t *testing.T) {
		info, err := client.GetCatalogs(client.ctx())
		found := client.ask(t, schema_ref.Catalogs, info, err)
		for _, catalog := range []string{"jammi", mutable, source} {
			require.Contains(t, found, []string{catalog})
		}
		require.True(t, slices.IsSortedFunc(found, slices.Compare), "%v", found)
	})
	t.Run("of schemas", func(t *testing.T) {
		for _, of := range []struct {
			options *flightsql.GetDBSchemasOpts
			want    [][]string
		}{
			{&flightsql.GetDBSchemasOpts{Catalog: &source}, [][]string{{source, public}}},
			{&flightsql.GetDBSchemasOpts{Catalog: &mutable, DbSchemaFilterPattern: pointer("pub%")}, [][]string{{mutable, public}}},
			{&flightsql.GetDBSchemasOpts{Catalog: &mutable, DbSchemaFilterPattern: pointer("nope")}, [][]string{}},
			{&flightsql.GetDBSchemasOpts{Catalog: pointer("nope")}, [][]string{}},
		} {
			info, err := client.GetDBSchemas(client.ctx(), of.options)
			require.Equal(t, of.want, client.ask(t, schema_ref.DBSchemas, info, err))
		}
	})
	t.Run("of tables", func(t *testing.T) {
		table, view := []string{mutable, public, own, "TABLE"}, []string{mutable, public, own + "_view", "VIEW"}
		for _, of := range []struct {
			options *flightsql.GetTablesOpts
			want    [][]string
		}{
			{&flightsql.GetTablesOpts{TableNameFilterPattern: &own}, [][]string{table}},
			{&flightsql.GetTablesOpts{TableNameFilterPattern: pointer(own + "%")}, [][]string{table, view}},
			{&flightsql.GetTablesOpts{TableNameFilterPattern: pointer(own + "%"), TableTypes: []string{"VIEW"}}, [][]string{view}},
			{&flightsql.GetTablesOpts{Catalog: &source}, [][]string{{source, public, source, "TABLE"}}},
			{&flightsql.GetTablesOpts{Catalog: pointer("nope")}, [][]string{}},
			{&flightsql.GetTablesOpts{TableNameFilterPattern: pointer("SELECT * FROM t WHERE 'it''s' = $1 _[\\")}, [][]string{}},
		} {
			info, err := client.GetTables(client.ctx(), of.options)
			require.Equal(t, of.want, client.ask(t, schema_ref.Tables, info, err))
		}
		client.update(t, "CREATE TEMPORARY TABLE "+own+"_scratch (id INT)")
		info, err := client.GetTables(client.ctx(), &flightsql.GetTablesOpts{TableTypes: []string{"LOCAL TEMPORARY"}})
		found := client.ask(t, schema_ref.Tables, info, err)
		require.Len(t, found, 1)
		require.Equal(t, []string{own + "_scratch", "LOCAL TEMPORARY"}, found[0][2:])
		_, err = client.CloseSession(client.ctx(), closeSession)
		require.NoError(t, err)
	})
	t.Run("of columns", func(t *testing.T) {
		info, err := client.GetTables(client.ctx(), &flightsql.GetTablesOpts{TableNameFilterPattern: &own, IncludeSchema: true})
		client.ask(t, schema_ref.TablesWithIncludedSchema, info, err)
		found, err := client.result(info, err)
		require.NoError(t, err)
		encoded := found.batches[0].Column(4).(*array.Binary).Value(0)
		schema, err := flight.DeserializeSchema(bytes.Clone(encoded), memory.DefaultAllocator)
		require.NoError(t, err)
		var names []string
		for _, field := range schema.Fields() {
			names = append(names, field.Name)
		}
		require.Equal(t, []string{"a", "b", "price", "tenant_id"}, names)
		require.False(t, schema.Field(1).Nullable)
		price := flightsql.ColumnMetadata{Data: &schema.Fields()[2].Metadata}
		for _, asked := range []struct {
			of   func() (string, bool)
			want string
		}{{price.CatalogName, mutable}, {price.SchemaName, public}, {price.TableName, own}, {price.TypeName, "DECIMAL"}} {
			value, told := asked.of()
			require.True(t, told)
			require.Equal(t, asked.want, value)
		}
		precision, _ := price.Precision()
		scale, _ := price.Scale()
		require.Equal(t, [2]int32{10, 2}, [2]int32{precision, scale})
	})
	t.Run("of types of tables", func(t *testing.T) {
		info, err := client.GetTableTypes(client.ctx())
		require.Equal(t, [][]string{{"LOCAL TEMPORARY"}, {"SYSTEM TABLE"}, {"TABLE"}, {"VIEW"}},
			client.ask(t, schema_ref.TableTypes, info, err))
	})
	t.Run("of keys", func(t *testing.T) {
		table := flightsql.TableRef{Catalog: &mutable, DBSchema: &public, Table: own}
		info, err := client.GetPrimaryKeys(client.ctx(), table)
		require.Equal(t, [][]string{
			{mutable, public, own, "b", own + "_pkey", "1"},
			{mutable, public, own, "a", own + "_pkey", "2"},
		}, client.ask(t, primaryKeys, info, err))
		// There are no foreign keys.
		info, err = client.GetImportedKeys(client.ctx(), table)
		require.Empty(t, client.ask(t, schema_ref.ImportedKeys, info, err))
		info, err = client.GetExportedKeys(client.ctx(), table)
		require.Empty(t, client.ask(t, schema_ref.ExportedKeys, info, err))
		info, err = client.GetCrossReference(client.ctx(), table, table)
		require.Empty(t, client.ask(t, schema_ref.CrossReference, info, err))
		// Another tenant's are none.
		info, err = others.GetPrimaryKeys(others.ctx(), table)
		require.Empty(t, others.ask(t, primaryKeys, info, err))
	})
	t.Run("of the server", func(t *testing.T) {
		asked := []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerName, flightsql.SqlInfoFlightSqlServerTransaction, flightsql.SqlInfoFlightSqlServerBulkIngestion}
		info, err := client.GetSqlInfo(client.ctx(), asked)
		require.Len(t, client.ask(t, sqlInfo, info, err), len(asked))
		found, err := client.result(info, err)
		require.NoError(t, err)
		values := map[uint32]any{}
		for _, batch := range found.batches {
			for row := range int(batch.NumRows()) {
				values[batch.Column(0).(*array.Uint32).Value(row)] = unionValue(batch.Column(1).(*array.DenseUnion), row)
			}
		}
		require.Equal(t, map[uint32]any{
			uint32(flightsql.SqlInfoFlightSqlServerName):          "Jammi",
			uint32(flightsql.SqlInfoFlightSqlServerTransaction):   int32(flightsql.SqlTransactionSavepoint),
			uint32(flightsql.SqlInfoFlightSqlServerBulkIngestion): true,
		}, values)
		// Nothing asked is everything asked, and no session is needed.
		all, err := client.GetSqlInfo(t.Context(), nil)
		require.Greater(t, len(client.ask(t, sqlInfo, all, err)), 50)
	})
	t.Run("of types", func(t *testing.T) {
		info, err := client.GetXdbcTypeInfo(client.ctx(), nil)
		all := client.ask(t, schema_ref.XdbcTypeInfo, info, err)
		require.Greater(t, len(all), 10)
		bigint := int32(-5)
		info, err = client.GetXdbcTypeInfo(client.ctx(), &bigint)
		found := client.ask(t, schema_ref.XdbcTypeInfo, info, err)
		require.NotEmpty(t, found)
		require.Less(t, len(found), len(all))
		for _, row := range found {
			require.Equal(t, "-5", row[1])
		}
	})
	t.Run("of another tenant is not told", func(t *testing.T) {
		for _, stranger := range []*Flight{others, tenantFlight(t, "")} {
			info, err := stranger.GetTables(stranger.ctx(), &flightsql.GetTablesOpts{IncludeSchema: true})
			found := stranger.ask(t, schema_ref.TablesWithIncludedSchema, info, err)
			require.NotEmpty(t, found)
			for _, row := range found {
				require.NotContains(t, row[2], own)
			}
		}
	})
	t.Run("has the schemas that are announced for it", func(t *testing.T) {
		for _, of := range []struct {
			want *arrow.Schema
			get  func() (*flight.SchemaResult, error)
		}{
			{schema_ref.Catalogs, func() (*flight.SchemaResult, error) { return client.GetCatalogsSchema(client.ctx()) }},
			{schema_ref.DBSchemas, func() (*flight.SchemaResult, error) { return client.GetDBSchemasSchema(client.ctx()) }},
			{schema_ref.TableTypes, func() (*flight.SchemaResult, error) { return client.GetTableTypesSchema(client.ctx()) }},
			{sqlInfo, func() (*flight.SchemaResult, error) { return client.GetSqlInfoSchema(client.ctx()) }},
			{schema_ref.XdbcTypeInfo, func() (*flight.SchemaResult, error) { return client.GetXdbcTypeInfoSchema(client.ctx()) }},
			{primaryKeys, func() (*flight.SchemaResult, error) { return client.GetPrimaryKeysSchema(client.ctx()) }},
			{schema_ref.ImportedKeys, func() (*flight.SchemaResult, error) { return client.GetImportedKeysSchema(client.ctx()) }},
			{schema_ref.ExportedKeys, func() (*flight.SchemaResult, error) { return client.GetExportedKeysSchema(client.ctx()) }},
			{schema_ref.CrossReference, func() (*flight.SchemaResult, error) { return client.GetCrossReferenceSchema(client.ctx()) }},
		} {
			answer, err := of.get()
			require.NoError(t, err)
			found, err := flight.DeserializeSchema(answer.Schema, memory.DefaultAllocator)
			require.NoError(t, err)
			require.True(t, of.want.Equal(found), "want %s\nfound %s", of.want, found)
		}
	})
}

func pointer(text string) *string { return &text }

// unionValue is what a row of GetSqlInfo says, of the kinds that are asked for here.
func unionValue(values *array.DenseUnion, row int) any {
	at := int(values.ValueOffset(row))
	switch child := values.Field(values.ChildID(row)).(type) {
	case *array.String:
		return child.Value(at)
	case *array.Boolean:
		return child.Value(at)
	case *array.Int32:
		return child.Value(at)
	case *array.Int64:
		return child.Value(at)
	default:
		return child.ValueStr(at)
	}
}
