package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.Date;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Arrays;
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
import org.junit.jupiter.params.provider.ValueSource;

/** Values that are bound to the parameters of a statement. */
@Tag("parameters")
class ParametersTest extends ClientTest {
    private static final String UUID = "018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9a";
    private static final byte[] UUID_BYTES =
            new BigInteger(UUID.replace("-", ""), 16).toByteArray();
    private static final Calendar UTC = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
    private static final Calendar NEW_YORK = Calendar.getInstance(TimeZone.getTimeZone("America/New_York"));
    /** 2026-01-31 12:34:56.123 in UTC. */
    private static final long INSTANT_MS = 1_769_862_896_123L;

    private Connection connection;

    @BeforeEach
    void connect() throws SQLException {
        connection = connection(alice);
    }

    /** Sets parameter 1 of a statement. */
    private interface Binding {
        void bind(PreparedStatement statement) throws SQLException;
    }

    private static Arguments bound(String type, Binding binding, String text) {
        return Arguments.of(type, binding, text);
    }

    static Stream<Arguments> bindings() {
        return Stream.of(
                bound("BOOLEAN", s -> s.setBoolean(1, true), "true"),
                bound("TINYINT", s -> s.setByte(1, Byte.MIN_VALUE), "-128"),
                bound("SMALLINT", s -> s.setShort(1, Short.MIN_VALUE), "-32768"),
                bound("INT", s -> s.setInt(1, Integer.MIN_VALUE), "-2147483648"),
                bound("INT", s -> s.setLong(1, 7), "7"),
                bound("INT", s -> s.setObject(1, 7, Types.INTEGER), "7"),
                bound("BIGINT", s -> s.setLong(1, Long.MIN_VALUE), "-9223372036854775808"),
                bound("BIGINT", s -> s.setByte(1, (byte) 7), "7"),
                bound("BIGINT", s -> s.setObject(1, new BigInteger("7")), "7"),
                bound("BIGINT", s -> s.setBigDecimal(1, new BigDecimal(7)), "7"),
                bound("BIGINT UNSIGNED", s -> s.setLong(1, -1), "18446744073709551615"),
                bound("REAL", s -> s.setFloat(1, 1.5f), "1.5"),
                bound("DOUBLE", s -> s.setDouble(1, -0.1), "-0.1"),
                bound("DOUBLE", s -> s.setDouble(1, Double.NaN), "NaN"),
                bound("DOUBLE", s -> s.setInt(1, 2), "2.0"),
                bound("DECIMAL(20, 4)", s -> s.setBigDecimal(1, new BigDecimal("-1234567890123456.7891")),
                        "-1234567890123456.7891"),
                bound("VARCHAR", s -> s.setString(1, "héllo 🚀\0'\""), "héllo 🚀\0'\""),
                bound("VARCHAR", s -> s.setString(1, ""), ""),
                bound("VARCHAR", s -> s.setNString(1, "n"), "n"),
                bound("BYTEA", s -> s.setBytes(1, "bytes".getBytes(StandardCharsets.UTF_8)), "bytes"),
                bound("DATE", s -> s.setDate(1, Date.valueOf("2026-01-31")), "2026-01-31"),
                bound("DATE", s -> s.setDate(1, Date.valueOf("1969-12-31")), "1969-12-31"),
                bound("DATE", s -> s.setDate(1, new Date(INSTANT_MS), UTC), "2026-01-31"),
                bound("TIMESTAMP(3)", s -> s.setTimestamp(1, new Timestamp(INSTANT_MS), UTC),
                        "2026-01-31T12:34:56.123"),
                bound("TIMESTAMP(3)", s -> s.setTimestamp(1, new Timestamp(INSTANT_MS), NEW_YORK),
                        "2026-01-31T07:34:56.123"),
                bound("TIMESTAMP(3)", s -> s.setTimestamp(1, Timestamp.valueOf("2026-01-31 12:34:56.123")),
                        "2026-01-31T12:34:56.123"),
                bound("TIMESTAMP(3)", s -> s.setObject(1, Timestamp.valueOf("1969-12-31 23:59:59.999")),
                        "1969-12-31T23:59:59.999"),
                bound("TIMESTAMP(3) WITH TIME ZONE", s -> s.setTimestamp(1, new Timestamp(INSTANT_MS), UTC),
                        "2026-01-31T12:34:56.123Z"),
                bound("UUID", s -> s.setBytes(1, UUID_BYTES), UUID),
                bound("JSON", s -> s.setString(1, "{\"a\": [1]}"), "{\"a\": [1]}"),
                bound("INT[]", s -> s.setArray(1, array(s, "INTEGER", 1, null, 3)), "[1, , 3]"),
                bound("VARCHAR[]", s -> s.setArray(1, array(s, "VARCHAR", "a", null)), "[a, ]"));
    }

    private static java.sql.Array array(PreparedStatement statement, String type, Object... items) throws SQLException {
        return statement.getConnection().createArrayOf(type, items);
    }

    @ParameterizedTest(name = "{0} {2}")
    @MethodSource("bindings")
    void aValueIsWrittenAndFound(String type, Binding binding, String text) throws Exception {
        execute("CREATE TABLE bound (v " + type + ")");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO bound (v) VALUES (?)")) {
            binding.bind(insert);
            assertEquals(1, insert.executeUpdate());
        }
        assertEquals(List.of(List.of(text)), Client.rows(connection, "SELECT CAST(v AS VARCHAR) FROM bound"));
        try (PreparedStatement select = connection.prepareStatement("SELECT count(*) FROM bound WHERE v = ?")) {
            binding.bind(select);
            assertEquals(List.of(List.of(1L)), Client.rows(select.executeQuery()));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "BIGINT UNSIGNED", "REAL", "DOUBLE",
        "DECIMAL(20, 4)", "DECIMAL(60, 2)", "VARCHAR", "BYTEA", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP(0)",
        "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMPTZ", "UUID", "JSON", "INT[]"})
    void aNullIsWrittenWhateverItIsCalled(String type) throws Exception {
        execute("CREATE TABLE bound (v " + type + ")");
        List<Binding> nulls = List.of(
                s -> s.setNull(1, Types.NULL), s -> s.setNull(1, Types.VARCHAR), s -> s.setObject(1, null),
                s -> s.setString(1, null), s -> s.setTimestamp(1, null), s -> s.setBytes(1, null));
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO bound (v) VALUES (?)")) {
            for (Binding binding : nulls) {
                binding.bind(insert);
                assertEquals(1, insert.executeUpdate());
            }
        }
        assertEquals(List.of(List.of((long) nulls.size())),
                Client.rows(connection, "SELECT count(*) FROM bound WHERE v IS NULL"));
    }

    @Test
    void timesThatTheDriverGetsWrongAreSentAsText() throws Exception {
        // The driver puts milliseconds into vectors of every unit, and binds no text to a time.
        execute("CREATE TABLE bound (t TIME, ts TIMESTAMP, tz TIMESTAMPTZ, d DECIMAL(60, 2), u UUID)");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO bound (t, ts, tz, d, u) VALUES ("
                + "CAST(CAST(? AS VARCHAR) AS TIME), CAST(CAST(? AS VARCHAR) AS TIMESTAMP),"
                + "CAST(CAST(? AS VARCHAR) AS TIMESTAMPTZ), CAST(CAST(? AS VARCHAR) AS DECIMAL(60, 2)),"
                + "CAST(CAST(? AS VARCHAR) AS UUID))")) {
            insert.setString(1, "12:34:56.5");
            insert.setString(2, "2026-01-31 12:34:56.123456789");
            insert.setString(3, "2026-01-31 12:34:56+02:00");
            insert.setString(4, "12345678901234567890123456789012345678901234567.89");
            insert.setString(5, UUID);
            assertEquals(1, insert.executeUpdate());
        }
        String texts = "SELECT CAST(t AS VARCHAR), CAST(ts AS VARCHAR), CAST(tz AS VARCHAR), CAST(d AS VARCHAR),"
                + " CAST(u AS VARCHAR) FROM bound";
        assertEquals(List.of(List.of("12:34:56.500", "2026-01-31T12:34:56.123456789", "2026-01-31T10:34:56Z",
                "12345678901234567890123456789012345678901234567.89", UUID)), Client.rows(connection, texts));
    }

    @Test
    void parametersAreBoundInOrder() throws Exception {
        try (PreparedStatement select = connection.prepareStatement("SELECT $2, $1, $2 AS again")) {
            assertEquals(2, select.getParameterMetaData().getParameterCount());
            select.setString(1, "a");
            select.setString(2, "b");
            assertEquals(List.of(List.of("b", "a", "b")), Client.rows(select.executeQuery()));
        }
        try (PreparedStatement select = connection.prepareStatement("SELECT 1 + ?, 'x' || ? LIMIT ?")) {
            select.setLong(1, 2);
            select.setString(2, "y");
            select.setLong(3, 1);
            assertEquals(List.of(List.of(3L, "xy")), Client.rows(select.executeQuery()));
        }
    }

    @Test
    void parametersTellTheirTypes() throws Exception {
        execute("CREATE TABLE bound (b BOOLEAN, i INT, l BIGINT, d DECIMAL(20, 4), s VARCHAR, x BYTEA, day DATE,"
                + " t TIME, ts TIMESTAMP(3), list INT[])");
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO bound (b, i, l, d, s, x, day, t, ts, list) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
            ParameterMetaData parameters = insert.getParameterMetaData();
            int[] types = {Types.BOOLEAN, Types.INTEGER, Types.BIGINT, Types.DECIMAL, Types.VARCHAR, Types.VARBINARY,
                Types.DATE, Types.TIME, Types.TIMESTAMP, Types.ARRAY};
            int[] told = new int[parameters.getParameterCount()];
            for (int parameter = 1; parameter <= told.length; parameter++) {
                told[parameter - 1] = parameters.getParameterType(parameter);
                assertEquals(ParameterMetaData.parameterModeIn, parameters.getParameterMode(parameter));
            }
            assertEquals(Arrays.toString(types), Arrays.toString(told));
            assertEquals("java.math.BigDecimal", parameters.getParameterClassName(4));
            assertTrue(parameters.isSigned(2));
        }
    }

    private void execute(String sql) throws SQLException {
        try (var statement = connection.createStatement()) {
            statement.executeUpdate(sql);
        }
    }

    @Test
    void aValueThatDoesNotFitIsRefusedByTheServer() throws Exception {
        execute("CREATE TABLE bound (v DECIMAL(4, 2), j JSON)");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO bound (j) VALUES (?)")) {
            insert.setString(1, "{no json");
            SQLException error = assertThrows(SQLException.class, insert::executeUpdate);
            assertTrue(error.getMessage().toLowerCase().contains("json"), error::getMessage);
        }
        assertEquals(List.of(List.of(0L)), Client.rows(connection, "SELECT count(*) FROM bound"));
    }
}
