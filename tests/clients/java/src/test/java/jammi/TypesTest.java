package jammi;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.Date;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Time;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Duration;
import java.util.Calendar;
import java.util.List;
import java.util.TimeZone;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Values and NULLs of every type, as objects and by the getters of their type. */
@Tag("types")
class TypesTest extends ClientTest {
    private Connection connection;
    private Statement statement;

    @BeforeEach
    void connect() throws SQLException {
        connection = connection(alice);
        statement = closing(connection.createStatement());
    }

    /** What a typed getter says of column 1. */
    private interface Getter {
        Object get(ResultSet rows) throws SQLException;
    }

    private static Arguments read(String sql, int type, Object object, Getter getter, Object value) {
        return Arguments.of(sql, type, object, getter, value);
    }

    private static Calendar utc() {
        return Calendar.getInstance(TimeZone.getTimeZone("UTC"));
    }

    static Stream<Arguments> values() {
        return Stream.of(
                read("true", Types.BOOLEAN, true, r -> r.getBoolean(1), true),
                read("CAST(-128 AS TINYINT)", Types.TINYINT, (byte) -128, r -> r.getByte(1), (byte) -128),
                read("CAST(-32768 AS SMALLINT)", Types.SMALLINT, (short) -32768, r -> r.getShort(1), (short) -32768),
                read("CAST(-7 AS INT)", Types.INTEGER, -7, r -> r.getInt(1), -7),
                read("9223372036854775807", Types.BIGINT, Long.MAX_VALUE, r -> r.getLong(1), Long.MAX_VALUE),
                // The driver gets the upper half of TINYINT UNSIGNED and INT UNSIGNED wrong.
                read("CAST(127 AS TINYINT UNSIGNED)", Types.TINYINT, (byte) 127, r -> r.getInt(1), 127),
                read("CAST(65535 AS SMALLINT UNSIGNED)", Types.SMALLINT, (short) 65535, r -> r.getInt(1), 65535),
                read("CAST(18446744073709551615 AS BIGINT UNSIGNED)", Types.BIGINT, -1L, r -> r.getString(1),
                        "18446744073709551615"),
                read("CAST(1.5 AS REAL)", Types.FLOAT, 1.5, r -> r.getFloat(1), 1.5f),
                read("0.1", Types.DOUBLE, 0.1, r -> r.getDouble(1), 0.1),
                read("CAST('NaN' AS DOUBLE)", Types.DOUBLE, Double.NaN, r -> r.getDouble(1), Double.NaN),
                read("CAST('-inf' AS DOUBLE)", Types.DOUBLE, Double.NEGATIVE_INFINITY, r -> r.getDouble(1),
                        Double.NEGATIVE_INFINITY),
                read("CAST('-1234567890123456.7890' AS DECIMAL(20, 4))", Types.DECIMAL,
                        new BigDecimal("-1234567890123456.7890"), r -> r.getBigDecimal(1),
                        new BigDecimal("-1234567890123456.7890")),
                read("CAST('12345678901234567890123456789012345678901234567.89' AS DECIMAL(60, 2))", Types.DECIMAL,
                        new BigDecimal("12345678901234567890123456789012345678901234567.89"), r -> r.getBigDecimal(1),
                        new BigDecimal("12345678901234567890123456789012345678901234567.89")),
                read("'héllo 🚀'", Types.VARCHAR, "héllo 🚀", r -> r.getString(1), "héllo 🚀"),
                read("''", Types.VARCHAR, "", r -> r.getString(1), ""),
                read("arrow_cast('x', 'Utf8View')", Types.VARCHAR, "x", r -> r.getString(1), "x"),
                read("arrow_cast('x', 'LargeUtf8')", Types.LONGVARCHAR, "x", r -> r.getString(1), "x"),
                read("arrow_cast('x', 'Dictionary(Int32, Utf8)')", Types.VARCHAR, "x", r -> r.getString(1), "x"),
                read("x'00ff'", Types.VARBINARY, new byte[] {0, -1}, r -> r.getBytes(1), new byte[] {0, -1}),
                read("UUID '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a'", Types.BINARY,
                        new byte[] {1, -113, 90, 14, -60, -56, 126, 16, -100, 79, 59, 111, 124, 90, -114, -102},
                        r -> r.getBytes(1).length, 16),
                read("DATE '2026-01-31'", Types.DATE, Date.valueOf("2026-01-31"), r -> r.getDate(1),
                        Date.valueOf("2026-01-31")),
                read("DATE '1582-10-15'", Types.DATE, Date.valueOf("1582-10-15"), r -> r.getString(1), "1582-10-15"),
                read("DATE '9999-12-31'", Types.DATE, Date.valueOf("9999-12-31"), r -> r.getString(1), "9999-12-31"),
                read("TIME '12:34:56.789'", Types.TIME, null, r -> r.getTime(1).toString(), "12:34:56.789"),
                read("TIMESTAMP '2026-01-31 12:34:56.123456789'", Types.TIMESTAMP,
                        Timestamp.valueOf("2026-01-31 12:34:56.123456789"), r -> r.getTimestamp(1),
                        Timestamp.valueOf("2026-01-31 12:34:56.123456789")),
                read("CAST('1969-12-31 23:59:59' AS TIMESTAMP(0))", Types.TIMESTAMP,
                        Timestamp.valueOf("1969-12-31 23:59:59"), r -> r.getString(1), "1969-12-31 23:59:59.0"),
                read("CAST('2026-01-31 12:34:56.123456' AS TIMESTAMP(6))", Types.TIMESTAMP,
                        Timestamp.valueOf("2026-01-31 12:34:56.123456"), r -> r.getTimestamp(1, utc()).getNanos(),
                        123456000),
                read("arrow_cast(90, 'Duration(Second)')", Types.JAVA_OBJECT, Duration.ofSeconds(90),
                        r -> r.getString(1), "PT1M30S"),
                read("INTERVAL '1 year 2 days 3 seconds'", Types.JAVA_OBJECT, null, r -> r.getString(1),
                        "P12M2DT3S"),
                read("{a: 1, b: 'x'}", Types.JAVA_OBJECT, null, r -> r.getString(1),
                        "{\"a\":1,\"b\":\"x\"}"),
                read("MAP {'a': 1}", Types.JAVA_OBJECT, null, r -> r.getString(1), "{\"a\":1}"));
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("values")
    void aValueAndItsNull(String sql, int type, Object object, Getter getter, Object value) throws Exception {
        String both = "SELECT CASE WHEN n = 1 THEN " + sql + " END AS v FROM (VALUES (1), (2)) AS t(n) ORDER BY n";
        try (ResultSet rows = statement.executeQuery(both)) {
            assertEquals(type, rows.getMetaData().getColumnType(1));
            assertTrue(rows.next());
            if (object != null) {
                check(object, rows.getObject(1));
            }
            check(value, getter.get(rows));
            assertFalse(rows.wasNull());
            assertTrue(rows.next());
            assertNull(rows.getObject(1));
            assertTrue(rows.wasNull());
            assertNull(rows.getString("v"));
            assertTrue(rows.wasNull());
            assertFalse(rows.next());
        }
    }

    private static void check(Object expected, Object found) {
        if (expected instanceof byte[] bytes) {
            assertArrayEquals(bytes, (byte[]) found);
        } else {
            assertEquals(expected, found);
        }
    }

    @Test
    void timestampsWithATimeZoneAreInstants() throws Exception {
        // The driver reads them by the getter, and not as objects.
        try (ResultSet rows = statement.executeQuery(
                "SELECT TIMESTAMPTZ '2026-01-31 12:34:56.123456+02:00' AS v UNION ALL SELECT NULL ORDER BY v NULLS LAST")) {
            assertEquals(Types.TIMESTAMP_WITH_TIMEZONE, rows.getMetaData().getColumnType(1));
            assertTrue(rows.next());
            Timestamp instant = rows.getTimestamp(1);
            assertEquals(123456000, instant.getNanos());
            assertTrue(rows.next());
            assertNull(rows.getTimestamp(1));
            assertTrue(rows.wasNull());
        }
    }

    @Test
    void theDigitsOfADecimalAreTold() throws Exception {
        try (ResultSet rows = statement.executeQuery("SELECT CAST(1.5 AS DECIMAL(20, 4)) AS d, 1 AS l")) {
            assertEquals(20, rows.getMetaData().getPrecision(1));
            assertEquals(4, rows.getMetaData().getScale(1));
            assertTrue(rows.next());
            assertEquals(new BigDecimal("1.5000"), rows.getBigDecimal("d"));
        }
    }

    @Test
    void listsAreArrays() throws Exception {
        try (ResultSet rows = statement.executeQuery(
                "SELECT [1, NULL, 3] AS l, [['a'], []] AS n, arrow_cast([1, 2], 'FixedSizeList(2, Int64)') AS f")) {
            assertEquals(Types.ARRAY, rows.getMetaData().getColumnType(1));
            assertTrue(rows.next());
            Array list = rows.getArray("l");
            assertArrayEquals(new Object[] {1L, null, 3L}, (Object[]) list.getArray());
            assertArrayEquals(new Object[] {1L, 2L}, (Object[]) rows.getArray("f").getArray());
            assertEquals("[[\"a\"],[]]", rows.getString("n"));
            try (ResultSet items = list.getResultSet()) {
                int count = 0;
                while (items.next()) {
                    count++;
                }
                assertEquals(3, count);
            }
        }
    }

    @Test
    void aColumnOfNothingIsNull() throws Exception {
        try (ResultSet rows = statement.executeQuery("SELECT NULL AS v")) {
            assertEquals(Types.NULL, rows.getMetaData().getColumnType(1));
            assertTrue(rows.next());
            assertNull(rows.getObject(1));
            assertTrue(rows.wasNull());
            assertNull(rows.getString(1));
        }
    }

    @Test
    void numbersConvertWhereTheyFit() throws Exception {
        try (ResultSet rows = statement.executeQuery("SELECT 7 AS l, 1.5 AS d, '42' AS s, CAST(2.50 AS DECIMAL(5, 2)) AS m")) {
            assertTrue(rows.next());
            assertEquals(7, rows.getByte("l"));
            assertEquals(7.0, rows.getDouble("l"));
            assertEquals(new BigDecimal(7), rows.getBigDecimal("l"));
            assertEquals("7", rows.getString("l"));
            assertEquals(1, rows.getInt("d"));
            assertEquals(42, rows.getInt("s"));
            assertEquals(2.5, rows.getDouble("m"));
        }
    }

    @Test
    void whatIsStoredIsReadAsItWas() throws Exception {
        statement.executeUpdate("CREATE TABLE kept (id BIGINT PRIMARY KEY, b BOOLEAN, d DECIMAL(38, 9), x BYTEA,"
                + " t TIME, ts TIMESTAMP, j JSON, l INT[])");
        statement.executeUpdate("INSERT INTO kept VALUES (1, false, 12345678901234567890.123456789, x'00', '23:59:59.999',"
                + " '2026-01-31 12:34:56.123456789', '{\"a\": 1}', [1, NULL]), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)");
        try (ResultSet rows = statement.executeQuery("SELECT * FROM kept ORDER BY id")) {
            assertTrue(rows.next());
            assertFalse(rows.getBoolean("b"));
            assertFalse(rows.wasNull());
            assertEquals(new BigDecimal("12345678901234567890.123456789"), rows.getBigDecimal("d"));
            assertArrayEquals(new byte[] {0}, rows.getBytes("x"));
            Time time = rows.getTime("t");
            assertEquals("23:59:59.999", time.toString());
            assertEquals(Timestamp.valueOf("2026-01-31 12:34:56.123456789"), rows.getTimestamp("ts"));
            assertEquals("{\"a\": 1}", rows.getString("j"));
            assertArrayEquals(new Object[] {1, null}, (Object[]) rows.getArray("l").getArray());
            assertEquals(alice, rows.getString("tenant_id"));
            assertTrue(rows.next());
            for (String column : List.of("b", "d", "x", "t", "ts", "j", "l")) {
                assertNull(rows.getObject(column), column);
                assertTrue(rows.wasNull(), column);
            }
        }
    }
}
