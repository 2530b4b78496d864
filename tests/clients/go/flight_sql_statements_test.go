package clients

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// kinds are the types of columns, each with a value in JSON.
var kinds = []struct {
	kind  arrow.DataType
	value string
}{
	{arrow.FixedWidthTypes.Boolean, `true`},
	{arrow.PrimitiveTypes.Int8, `-128`},
	{arrow.PrimitiveTypes.Int16, `-32768`},
	{arrow.PrimitiveTypes.Int32, `-2147483648`},
	{arrow.PrimitiveTypes.Int64, `-9223372036854775808`},
	{arrow.PrimitiveTypes.Uint8, `255`},
	{arrow.PrimitiveTypes.Uint16, `65535`},
	{arrow.PrimitiveTypes.Uint32, `4294967295`},
	{arrow.PrimitiveTypes.Uint64, `18446744073709551615`},
	{arrow.FixedWidthTypes.Float16, `-1.5`},
	{arrow.PrimitiveTypes.Float32, `0.5`},
	{arrow.PrimitiveTypes.Float64, `0.1`},
	{&arrow.Decimal128Type{Precision: 38, Scale: 9}, `"12345678901234567890.123456789"`},
	{&arrow.Decimal256Type{Precision: 76, Scale: 2}, `"-1.50"`},
	{arrow.BinaryTypes.String, `"it's ü 🎉"`},
	{arrow.BinaryTypes.LargeString, `""`},
	{arrow.BinaryTypes.Binary, `"AP8="`},
	{arrow.BinaryTypes.LargeBinary, `""`},
	{&arrow.FixedSizeBinaryType{ByteWidth: 4}, `"AAECAw=="`},
	{arrow.FixedWidthTypes.Date32, `"2024-02-29"`},
	{arrow.FixedWidthTypes.Date64, `"2024-02-29"`},
	{arrow.FixedWidthTypes.Time32s, `"12:34:56"`},
	{arrow.FixedWidthTypes.Time64ns, `"12:34:56.123456789"`},
	{&arrow.TimestampType{Unit: arrow.Second}, `"1969-12-31 23:59:59"`},
	{&arrow.TimestampType{Unit: arrow.Nanosecond}, `"2024-02-29 12:34:56.123456789"`},
	{&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, `"2024-02-29 12:34:56.123456Z"`},
	{&arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "Europe/Berlin"}, `"2024-02-29 12:34:56.123+01:00"`},
	{arrow.FixedWidthTypes.Duration_ms, `"90061001ms"`},
	{arrow.FixedWidthTypes.MonthDayNanoInterval, `{"months": 1, "days": 2, "nanoseconds": 3}`},
	{arrow.ListOf(arrow.PrimitiveTypes.Int32), `[1, null, 3]`},
	{arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64), `[0.5, null]`},
	{arrow.StructOf(
		arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		arrow.Field{Name: "b", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
	), `{"a": 1, "b": ["x", null]}`},
}

// kindTable makes a table with the one column `v` of the type.
func kindTable(t *testing.T, client *Flight, kind arrow.DataType) string {
	t.Helper()
	table := unique()
	count, err := client.ingest(t, modeCreate, table, records(t, columns("v", kind), `[]`))
	require.NoError(t, err)
	require.Zero(t, count)
	return table
}

func flightParameters(t *testing.T) {
	client := tenantFlight(t, newTenant())
	for _, kind := range kinds {
		t.Run("of "+kind.kind.String(), func(t *testing.T) {
			table := kindTable(t, client, kind.kind)
			schema := columns("0", kind.kind)
			insert, err := client.Prepare(client.ctx(), "INSERT INTO "+table+" (v) VALUES (?)")
			require.NoError(t, err)
			told := insert.ParameterSchema().Field(0).Type
			require.True(t, arrow.TypeEqual(kind.kind, told), "the server asks for %s", told)
			insert.SetParameters(records(t, schema, fmt.Sprintf(`[{"0": %s}, {"0": null}]`, kind.value)))
			count, err := insert.ExecuteUpdate(client.ctx())
			require.NoError(t, err)
			require.EqualValues(t, 2, count)
			require.NoError(t, insert.Close(client.ctx()))
			require.Equal(t, [][]string{{"1"}}, client.query(t, "SELECT count(*) FROM "+table+" WHERE v IS NULL"))

			read, err := client.Prepare(client.ctx(), "SELECT v FROM "+table+" WHERE v = ?")
			require.NoError(t, err)
			bound := records(t, schema, fmt.Sprintf(`[{"0": %s}]`, kind.value))
			read.SetParameters(bound)
			found, err := client.result(read.Execute(client.ctx()))
			require.NoError(t, err)
			require.Len(t, found.rows, 1)
			require.True(t, array.Equal(bound.Column(0), found.batches[0].Column(0)), "%v", found.rows)
			// Nothing equals NULL.
			read.SetParameters(records(t, schema, `[{"0": null}]`))
			found, err = client.result(read.Execute(client.ctx()))
			require.NoError(t, err)
			require.Empty(t, found.rows)
			require.NoError(t, read.Close(client.ctx()))
		})
	}
	t.Run("of a dictionary, as what it stands for", func(t *testing.T) {
		values, _, err := array.FromJSON(memory.DefaultAllocator, arrow.BinaryTypes.String, stringReader(`["red"]`))
		require.NoError(t, err)
		indices, _, err := array.FromJSON(memory.DefaultAllocator, arrow.PrimitiveTypes.Int8, stringReader(`[0]`))
		require.NoError(t, err)
		kind := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
		column := array.NewDictionaryArray(kind, indices, values)
		statement, err := client.Prepare(client.ctx(), "SELECT 'red' = ?")
		require.NoError(t, err)
		statement.SetParameters(array.NewRecordBatch(columns("0", kind), []arrow.Array{column}, 1))
		found, err := client.result(statement.Execute(client.ctx()))
		require.NoError(t, err)
		require.Equal(t, [][]string{{"true"}}, found.rows)
	})
	t.Run("are bound in order and by number", func(t *testing.T) {
		for sql, want := range map[string][]string{
			"SELECT ?, ?":                {"a", "b"},
			"SELECT $2, $1, $2 AS again": {"b", "a", "b"},
			"SELECT ? || ?":              {"ab"},
		} {
			statement, err := client.Prepare(client.ctx(), sql)
			require.NoError(t, err)
			text := arrow.BinaryTypes.String
			statement.SetParameters(records(t, columns("0", text, "1", text), `[{"0": "a", "1": "b"}]`))
			found, err := client.result(statement.Execute(client.ctx()))
			require.NoError(t, err)
			require.Equal(t, [][]string{want}, found.rows, sql)
		}
	})
	t.Run("are converted where nothing is lost", func(t *testing.T) {
		table := kindTable(t, client, arrow.PrimitiveTypes.Int64)
		read, err := client.Prepare(client.ctx(), "SELECT count(*) FROM "+table+" WHERE v = ?")
		require.NoError(t, err)
		read.SetParameters(records(t, columns("0", arrow.PrimitiveTypes.Int8), `[{"0": 7}]`))
		_, err = client.result(read.Execute(client.ctx()))
		require.NoError(t, err)
		read.SetParameters(records(t, columns("0", arrow.PrimitiveTypes.Float64), `[{"0": 1.5}]`))
		_, err = read.Execute(client.ctx())
		refused(t, err, codes.InvalidArgument, "parameter 1 is Float64 where Int64 is expected")
	})
}

func flightPrepared(t *testing.T) {
	client := tenantFlight(t, newTenant())
	client.update(t, "CREATE TABLE words (id BIGINT PRIMARY KEY, word VARCHAR)")
	client.update(t, "INSERT INTO words SELECT value, CAST(value AS VARCHAR) AS word FROM generate_series(1, 20)")
	schema := columns("0", arrow.PrimitiveTypes.Int64)
	t.Run("tells its schemas before it runs", func(t *testing.T) {
		statement, err := client.Prepare(client.ctx(), "SELECT id, word FROM words WHERE id > ? AND word < ?")
		require.NoError(t, err)
		require.Equal(t, "int64 utf8", fmt.Sprint(statement.DatasetSchema().Field(0).Type, " ", statement.DatasetSchema().Field(1).Type))
		require.Equal(t, "int64 utf8", fmt.Sprint(statement.ParameterSchema().Field(0).Type, " ", statement.ParameterSchema().Field(1).Type))
		require.NoError(t, statement.Close(client.ctx()))
	})
	t.Run("is run again with other values", func(t *testing.T) {
		statement, err := client.Prepare(client.ctx(), "SELECT word FROM words WHERE id = ?")
		require.NoError(t, err)
		for id := range 22 {
			statement.SetParameters(records(t, schema, fmt.Sprintf(`[{"0": %d}]`, id)))
			found, err := client.result(statement.Execute(client.ctx()))
			require.NoError(t, err)
			if want := [][]string{{fmt.Sprint(id)}}; id >= 1 && id <= 20 {
				require.Equal(t, want, found.rows)
			} else {
				require.Empty(t, found.rows)
			}
		}
		require.NoError(t, statement.Close(client.ctx()))
	})
	t.Run("is an update or a query", func(t *testing.T) {
		for sql, update := range map[string]bool{
			"INSERT INTO words VALUES (99, 'z')":                      true,
			"SELECT 1":                                                false,
			"UPDATE words SET word = 'x' WHERE id = 1":                true,
			"DELETE FROM words WHERE id = 99 AND word = 'not at all'": true,
		} {
			statement, err := client.Prepare(client.ctx(), sql)
			require.NoError(t, err)
			if is, told := statement.IsUpdate(); told {
				require.Equal(t, update, is, sql)
			}
			if fields := statement.DatasetSchema(); update {
				require.True(t, fields == nil || fields.NumFields() == 0, "%s: %s", sql, fields)
			}
		}
	})
	t.Run("runs without parameters as an update", func(t *testing.T) {
		statement, err := client.Prepare(client.ctx(), "INSERT INTO words SELECT max(id) + 1, 'more' FROM words")
		require.NoError(t, err)
		for range 3 {
			count, err := statement.ExecuteUpdate(client.ctx())
			require.NoError(t, err)
			require.EqualValues(t, 1, count)
		}
		require.Equal(t, [][]string{{"3"}}, client.query(t, "SELECT count(*) FROM words WHERE word = 'more'"))
	})
}

func flightBatch(t *testing.T) {
	client := tenantFlight(t, newTenant())
	client.update(t, "CREATE TABLE many (id BIGINT PRIMARY KEY, word VARCHAR)")
	schema := columns("0", arrow.PrimitiveTypes.Int64, "1", arrow.BinaryTypes.String)
	insert := func(t *testing.T) *flightsql.PreparedStatement {
		statement, err := client.Prepare(client.ctx(), "INSERT INTO many VALUES (?, ?)")
		require.NoError(t, err)
		return statement
	}
	t.Run("of one record batch", func(t *testing.T) {
		statement := insert(t)
		statement.SetParameters(numbered(schema, 0, 10_000))
		count, err := statement.ExecuteUpdate(client.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 10_000, count)
	})
	t.Run("of a stream of them", func(t *testing.T) {
		statement := insert(t)
		statement.SetRecordReader(reader(t, numbered(schema, 10_000, 20_000), numbered(schema, 20_000, 30_000)))
		count, err := statement.ExecuteUpdate(client.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 20_000, count)
		require.Equal(t, [][]string{{"30000", "449985000"}},
			client.query(t, "SELECT count(*), sum(id) FROM many WHERE word = CAST(id AS VARCHAR)"))
	})
	t.Run("is written whole or not at all", func(t *testing.T) {
		statement := insert(t)
		statement.SetRecordReader(reader(t, numbered(schema, 30_000, 31_000), numbered(schema, 29_999, 30_000)))
		_, err := statement.ExecuteUpdate(client.ctx())
		refused(t, err, codes.AlreadyExists, "id = 29999")
		require.Equal(t, [][]string{{"30000"}}, client.query(t, "SELECT count(*) FROM many"))
	})
	t.Run("updates and deletes", func(t *testing.T) {
		update, err := client.Prepare(client.ctx(), "UPDATE many SET word = $2 WHERE id = $1")
		require.NoError(t, err)
		update.SetParameters(records(t, schema, `[{"0": 1, "1": "x"}, {"0": 2, "1": null}, {"0": -1, "1": "z"}]`))
		count, err := update.ExecuteUpdate(client.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 2, count)
		remove, err := client.Prepare(client.ctx(), "DELETE FROM many WHERE id >= ?")
		require.NoError(t, err)
		remove.SetParameters(records(t, columns("0", arrow.PrimitiveTypes.Int64), `[{"0": 29000}, {"0": 3}]`))
		count, err = remove.ExecuteUpdate(client.ctx())
		require.NoError(t, err)
		require.EqualValues(t, 29_997, count)
		require.Equal(t, [][]string{{"0", "0"}, {"1", "x"}, {"2", "(null)"}}, client.query(t, "SELECT id, word FROM many ORDER BY id"))
	})
	t.Run("is not for a query", func(t *testing.T) {
		statement, err := client.Prepare(client.ctx(), "SELECT word FROM many WHERE id = ?")
		require.NoError(t, err)
		statement.SetParameters(records(t, columns("0", arrow.PrimitiveTypes.Int64), `[{"0": 1}, {"0": 2}]`))
		_, err = statement.Execute(client.ctx())
		refused(t, err, codes.InvalidArgument, "takes one row of parameters")
	})
}

// numbered are rows of a number and its text.
func numbered(schema *arrow.Schema, from, to int) arrow.RecordBatch {
	rows := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer rows.Release()
	for number := from; number < to; number++ {
		rows.Field(0).(*array.Int64Builder).Append(int64(number))
		rows.Field(1).(*array.StringBuilder).Append(fmt.Sprint(number))
	}
	return rows.NewRecordBatch()
}
