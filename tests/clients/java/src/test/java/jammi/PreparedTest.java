package jammi;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Prepared statements, and batches of their rows. */
class PreparedTest extends ClientTest {
    private Client session;
    private Connection connection;

    @BeforeEach
    void connect() throws SQLException {
        session = client(alice);
        connection = closing(session.connect());
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("CREATE TABLE tasks (id BIGINT PRIMARY KEY, title VARCHAR)");
        }
    }

    private List<List<Object>> tasks() throws SQLException {
        return Client.rows(connection, "SELECT id, title FROM tasks ORDER BY id");
    }

    @Test
    @Tag("prepared")
    void aStatementIsPreparedOnceAndRunOften() throws Exception {
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO tasks VALUES (?, ?)");
                PreparedStatement select = connection.prepareStatement("SELECT title FROM tasks WHERE id = ?")) {
            assertEquals("title", select.getMetaData().getColumnName(1));
            for (long id = 0; id < 20; id++) {
                insert.setLong(1, id);
                insert.setString(2, "task " + id);
                assertEquals(1, insert.executeUpdate());
                select.setLong(1, id);
                try (ResultSet rows = select.executeQuery()) {
                    assertEquals(List.of(List.of("task " + id)), Client.rows(rows));
                }
            }
            select.setLong(1, 99);
            try (ResultSet rows = select.executeQuery()) {
                assertEquals(List.of(), Client.rows(rows));
                assertEquals("title", rows.getMetaData().getColumnName(1));
            }
        }
    }

    @Test
    @Tag("prepared")
    void writesAndDefinitionsArePreparedToo() throws Exception {
        try (PreparedStatement create = connection.prepareStatement("CREATE TABLE more (id INT)")) {
            assertEquals(0, create.executeUpdate());
        }
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO more VALUES (1), (2)")) {
            assertEquals(2, insert.executeUpdate());
            assertEquals(2, insert.executeLargeUpdate());
        }
        assertEquals(List.of(List.of(4L)), Client.rows(connection, "SELECT count(*) FROM more"));
    }

    @Test
    @Tag("prepared")
    void executeRunsAWriteOnce() throws Exception {
        // The driver takes a write that `execute` runs for a query: its one row is the count.
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO tasks VALUES (?, ?)")) {
            insert.setLong(1, 1);
            insert.setString(2, "write");
            assertTrue(insert.execute());
            try (ResultSet rows = insert.getResultSet()) {
                assertEquals(List.of(List.of(1L)), Client.rows(rows));
            }
        }
        assertEquals(List.of(List.of(1L, "write")), tasks());
    }

    @Test
    @Tag("prepared")
    void whatWasPreparedForAnotherTenantIsRefused() throws Exception {
        try (PreparedStatement select = connection.prepareStatement("SELECT count(*) FROM tasks");
                PreparedStatement delete = connection.prepareStatement("DELETE FROM tasks")) {
            session.bind(bob);
            // The driver hands on what its query throws as it is.
            Exception query = assertThrows(RuntimeException.class, select::executeQuery);
            assertTrue(query.getMessage().contains("prepare the statement again"), query::getMessage);
            SQLException error = assertThrows(SQLException.class, delete::executeUpdate);
            assertTrue(error.getMessage().contains("prepare the statement again"), error::getMessage);
        }
    }

    @Test
    @Tag("batch")
    void aBatchIsWrittenWhole() throws Exception {
        List<List<Object>> expected = new ArrayList<>();
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO tasks VALUES (?, ?)")) {
            for (long id = 0; id < 5000; id++) {
                String title = id % 7 == 0 ? null : "task " + id;
                insert.setLong(1, id);
                insert.setString(2, title);
                insert.addBatch();
                expected.add(Arrays.asList(id, title));
            }
            // The driver tells one count, of all rows.
            assertArrayEquals(new int[] {5000}, insert.executeBatch());
            assertEquals(expected, tasks());

            // The statement takes another batch, and one that breaks a key writes nothing.
            insert.setLong(1, 6000);
            insert.setString(2, "new");
            insert.addBatch();
            insert.setLong(1, 0);
            insert.setString(2, "taken");
            insert.addBatch();
            SQLException error = assertThrows(SQLException.class, insert::executeBatch);
            assertTrue(error.getMessage().contains("has a row with id = 0 already"), error::getMessage);
            assertEquals(expected, tasks());
        }
    }

    @Test
    @Tag("batch")
    void updatesAndDeletesAreBatchedToo() throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("INSERT INTO tasks VALUES (1, 'a'), (2, 'b'), (3, 'c')");
        }
        try (PreparedStatement update = connection.prepareStatement("UPDATE tasks SET title = ? WHERE id = ?")) {
            for (long id : new long[] {1, 3, 9}) {
                update.setString(1, "changed");
                update.setLong(2, id);
                update.addBatch();
            }
            assertArrayEquals(new long[] {2}, update.executeLargeBatch());
        }
        try (PreparedStatement delete = connection.prepareStatement("DELETE FROM tasks WHERE id = ?")) {
            delete.setLong(1, 2);
            delete.addBatch();
            assertArrayEquals(new int[] {1}, delete.executeBatch());
        }
        assertEquals(List.of(List.of(1L, "changed"), List.of(3L, "changed")), tasks());
    }
}
