package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Statements as text: queries, writes and definitions. */
@Tag("query")
class StatementTest extends ClientTest {
    private Connection connection;
    private Statement statement;

    @BeforeEach
    void connect() throws SQLException {
        connection = connection(alice);
        statement = closing(connection.createStatement());
    }

    private List<List<Object>> rows(String sql) throws SQLException {
        return Client.rows(connection, sql);
    }

    @Test
    void rowsComeWithNames() throws Exception {
        try (ResultSet rows = statement.executeQuery("SELECT 1 AS number, 'x' AS \"A text\", NULL AS nothing")) {
            ResultSetMetaData columns = rows.getMetaData();
            assertEquals(3, columns.getColumnCount());
            assertEquals("number", columns.getColumnName(1));
            assertEquals("A text", columns.getColumnLabel(2));
            assertTrue(rows.next());
            assertEquals(1, rows.getLong("number"));
            assertEquals("x", rows.getString("A text"));
            assertNull(rows.getObject("nothing"));
            assertEquals(2, rows.findColumn("A text"));
            assertFalse(rows.next());
        }
    }

    @Test
    void aStatementRunsOneTextAfterTheOther() throws Exception {
        for (long number = 0; number < 20; number++) {
            try (ResultSet rows = statement.executeQuery("SELECT " + number)) {
                assertEquals(List.of(List.of(number)), Client.rows(rows));
            }
        }
    }

    @Test
    void definitionsAndWritesTellWhatTheyDid() throws Exception {
        assertEquals(0, statement.executeUpdate("CREATE TABLE tasks (id BIGINT PRIMARY KEY, title VARCHAR)"));
        assertEquals(3, statement.executeUpdate("INSERT INTO tasks VALUES (1, 'write'), (2, 'read'), (3, 'sleep')"));
        assertEquals(2, statement.executeLargeUpdate("UPDATE tasks SET title = upper(title) WHERE id < 3"));
        assertEquals(1, statement.executeUpdate("DELETE FROM tasks WHERE id = 3"));
        assertEquals(List.of(List.of(1L, "WRITE"), List.of(2L, "READ")), rows("SELECT id, title FROM tasks ORDER BY id"));
        assertEquals(0, statement.executeUpdate("DROP TABLE tasks"));
        assertThrows(SQLException.class, () -> rows("SELECT * FROM tasks"));
    }

    @Test
    void executeTellsRowsFromCounts() throws Exception {
        assertFalse(statement.execute("CREATE TABLE tasks (id BIGINT)"));
        assertEquals(0, statement.getUpdateCount());
        assertFalse(statement.execute("INSERT INTO tasks VALUES (1), (2)"));
        assertEquals(2, statement.getUpdateCount());
        assertNull(statement.getResultSet());
        assertTrue(statement.execute("SELECT count(*) FROM tasks"));
        assertEquals(-1, statement.getUpdateCount());
        try (ResultSet rows = statement.getResultSet()) {
            assertEquals(List.of(List.of(2L)), Client.rows(rows));
        }
        assertFalse(statement.getMoreResults());
        assertEquals(-1, statement.getUpdateCount());
    }

    @Test
    void aWriteThatReturnsRowsIsAQueryAndRunsOnce() throws Exception {
        statement.executeUpdate("CREATE TABLE tasks (id BIGINT PRIMARY KEY, title VARCHAR)");
        assertEquals(List.of(List.of(1L, "WRITE")), rows("INSERT INTO tasks VALUES (1, 'write') RETURNING id, upper(title)"));
        assertEquals(List.of(List.of(1L)), rows("DELETE FROM tasks RETURNING id"));
        assertEquals(List.of(List.of(0L)), rows("SELECT count(*) FROM tasks"));
    }

    @Test
    void rowsAreLimitedByTheClient() throws Exception {
        statement.setMaxRows(3);
        statement.setFetchSize(2);
        try (ResultSet rows = statement.executeQuery("SELECT value FROM generate_series(1, 100000)")) {
            assertEquals(List.of(List.of(1L), List.of(2L), List.of(3L)), Client.rows(rows));
        }
    }

    @Test
    void anEmptyResultKeepsItsColumns() throws Exception {
        String sql = "SELECT 1 AS a, CAST(1 AS DECIMAL(10, 2)) AS b WHERE false";
        try (var prepared = connection.prepareStatement(sql); ResultSet rows = prepared.executeQuery()) {
            ResultSetMetaData columns = rows.getMetaData();
            assertEquals(2, columns.getColumnCount());
            assertEquals("b", columns.getColumnName(2));
            assertEquals("DECIMAL", columns.getColumnTypeName(2));
            assertFalse(rows.next());
        }
        try (ResultSet rows = statement.executeQuery(sql)) {
            // The driver lists what was prepared and, without rows, does not take it back as it lists it again.
            assertEquals("a", rows.getMetaData().getColumnName(1));
            assertEquals("b", rows.getMetaData().getColumnName(2));
            assertFalse(rows.next());
        }
    }

    @Test
    void plansAndListsAreRowsToo() throws Exception {
        assertFalse(rows("EXPLAIN SELECT 1").isEmpty());
        statement.executeUpdate("CREATE TABLE tasks (id BIGINT)");
        assertTrue(rows("SHOW TABLES").stream().anyMatch(row -> row.contains("tasks")));
        assertEquals(2, rows("DESCRIBE tasks").size());
    }
}
