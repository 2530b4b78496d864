package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Transactions by SQL text, which is the way that the driver leaves. */
@Tag("transactions")
class TransactionsTest extends ClientTest {
    private Client session;
    private Connection connection;
    private Statement statement;

    @BeforeEach
    void connect() throws SQLException {
        session = client(alice);
        connection = closing(session.connect());
        statement = closing(connection.createStatement());
        statement.executeUpdate("CREATE TABLE tasks (id BIGINT PRIMARY KEY)");
    }

    /** The tasks that another session of the tenant sees. */
    private long committed() throws SQLException {
        return (Long) client(alice).rows("SELECT count(*) FROM tasks").get(0).get(0);
    }

    private long seen() throws SQLException {
        return (Long) Client.rows(connection, "SELECT count(*) FROM tasks").get(0).get(0);
    }

    @Test
    void whatIsCommittedStays() throws Exception {
        assertFalse(statement.execute("BEGIN"));
        assertEquals(1, server().metric("jammi_transactions"));
        assertEquals(2, statement.executeUpdate("INSERT INTO tasks VALUES (1), (2)"));
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO tasks VALUES (?)")) {
            for (long id = 3; id < 6; id++) {
                insert.setLong(1, id);
                insert.addBatch();
            }
            insert.executeBatch();
        }
        assertEquals(5, seen());
        assertEquals(0, committed());
        statement.executeUpdate("COMMIT");
        assertEquals(5, committed());
        assertEquals(0, server().metric("jammi_transactions"));
    }

    @Test
    void whatIsRolledBackNeverWas() throws Exception {
        statement.executeUpdate("BEGIN");
        statement.executeUpdate("INSERT INTO tasks VALUES (1)");
        statement.executeUpdate("SAVEPOINT here");
        statement.executeUpdate("INSERT INTO tasks VALUES (2)");
        statement.executeUpdate("ROLLBACK TO here");
        assertEquals(1, seen());
        // A statement that fails is undone alone.
        assertThrows(SQLException.class, () -> statement.executeUpdate("INSERT INTO tasks VALUES (3), (1)"));
        assertEquals(1, seen());
        statement.executeUpdate("ROLLBACK");
        assertEquals(0, seen());
        assertEquals(0, committed());
    }

    @Test
    void aConnectionThatClosesRollsBack() throws Exception {
        try (Connection other = session.connect(); Statement begun = other.createStatement()) {
            begun.executeUpdate("BEGIN");
            begun.executeUpdate("INSERT INTO tasks VALUES (1)");
        }
        server().await(open -> open == 0, "jammi_transactions");
        assertEquals(0, committed());
    }

    @Test
    void bindingTheSessionAnewRollsBack() throws Exception {
        statement.executeUpdate("BEGIN");
        statement.executeUpdate("INSERT INTO tasks VALUES (1)");
        session.bind(bob);
        assertEquals(0, server().metric("jammi_transactions"));
        assertEquals(0, committed());
        assertThrows(SQLException.class, () -> statement.executeUpdate("INSERT INTO tasks VALUES (2)"));
    }

    @Test
    void writersThatConflictAreToldToRunAgain() throws Exception {
        Connection other = connection(alice);
        try (Statement theirs = other.createStatement()) {
            statement.executeUpdate("INSERT INTO tasks VALUES (1)");
            statement.executeUpdate("BEGIN");
            theirs.executeUpdate("BEGIN");
            assertEquals(1, seen());
            assertEquals(1, Client.rows(other, "SELECT id FROM tasks").size());
            statement.executeUpdate("UPDATE tasks SET id = 2");
            statement.executeUpdate("COMMIT");
            SQLException error = assertThrows(SQLException.class, () -> theirs.executeUpdate("UPDATE tasks SET id = 3"));
            // Arrow for Java calls the status ABORTED an internal error, and keeps the text.
            assertTrue(error.getMessage().contains("roll back and run it again"), error::getMessage);
            theirs.executeUpdate("ROLLBACK");
        }
        assertEquals(1, committed());
    }

    @Test
    void theDriversOwnTransactionsReachNobody() throws Exception {
        // The driver sends nothing for these: what is written is committed at once, whatever is rolled back.
        connection.setAutoCommit(false);
        statement.executeUpdate("INSERT INTO tasks VALUES (1)");
        assertEquals(0, server().metric("jammi_transactions"));
        assertEquals(1, committed());
        connection.rollback();
        assertEquals(1, committed());
        connection.commit();
        assertEquals(1, committed());
        assertThrows(SQLFeatureNotSupportedException.class, connection::setSavepoint);
        // BEGIN works beside it.
        statement.executeUpdate("BEGIN");
        statement.executeUpdate("INSERT INTO tasks VALUES (2)");
        statement.executeUpdate("ROLLBACK");
        assertEquals(1, committed());
    }
}
