package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What a user reads when a statement is wrong, and that the connection goes on. */
@Tag("errors")
class ErrorsTest extends ClientTest {
    private Connection connection;

    @BeforeEach
    void connect() throws SQLException {
        connection = connection(alice);
    }

    private SQLException refused(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            SQLException error = assertThrows(SQLException.class, () -> statement.execute(sql));
            // The driver has no states: what happened is in the text, and the status in the cause.
            assertNull(error.getSQLState());
            assertEquals(List.of(List.of(1L)), Client.rows(connection, "SELECT 1"));
            return error;
        }
    }

    private static void says(SQLException error, String... parts) {
        for (String part : parts) {
            assertTrue(error.getMessage().contains(part), error::getMessage);
        }
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "SELECT * FROM nope | NOT_FOUND | table `nope` does not exist",
        "SELECT * FROM nope.public.nope | NOT_FOUND | does not exist",
        "SELECT nope FROM jammi.catalog.models | INVALID_ARGUMENT | column nope does not exist",
        "SELEC 1 | INVALID_ARGUMENT | the statement does not parse",
        "SELECT 1; SELECT 2 | INVALID_ARGUMENT | the text holds more than one statement: send one at a time",
        "-- nothing | INVALID_ARGUMENT | the text holds no statement: send one",
        "SELECT 1 / 0 | INVALID_ARGUMENT | division by zero",
        "SELECT CAST('x' AS INT) | INVALID_ARGUMENT | Cannot cast string 'x' to value of Int32 type",
        "SELECT no_such_function(1) | INVALID_ARGUMENT | no_such_function",
        "INSERT INTO nope VALUES (1) | NOT_FOUND | table `nope` does not exist",
        "COPY t TO 'x' | UNIMPLEMENTED | COPY is not served",
        "SET datafusion.execution.batch_size = 1 | UNIMPLEMENTED | is not served",
    })
    void aWrongStatementIsToldWhatIsWrong(String sql, String code, String text) throws Exception {
        SQLException error = refused(sql);
        says(error, text);
        String cause = String.valueOf(error.getCause());
        assertTrue(cause.contains(code + ": "), cause);
    }

    @Test
    void aRowThatBreaksAConstraintIsRefused() throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("CREATE TABLE tasks (id BIGINT PRIMARY KEY, score INT CHECK (score > 0))");
            statement.executeUpdate("INSERT INTO tasks VALUES (1, 1)");
        }
        says(refused("INSERT INTO tasks VALUES (1, 2)"), "has a row with id = 1 already", "`tasks_pkey`");
        says(refused("INSERT INTO tasks VALUES (2, 0)"), "`tasks_score_check`");
        says(refused("INSERT INTO tasks VALUES (NULL, 1)"), "id");
        says(refused("CREATE TABLE tasks (id INT)"), "tasks");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO tasks VALUES (?, 5)")) {
            insert.setLong(1, 1);
            says(assertThrows(SQLException.class, insert::executeUpdate), "has a row with id = 1 already");
            insert.setLong(1, 2);
            assertEquals(1, insert.executeUpdate());
        }
    }

    @Test
    void anotherTenantsRowsAreRefused() throws Exception {
        try (Statement statement = connection(null).createStatement()) {
            statement.executeUpdate("CREATE TABLE " + unique + " (id INT)");
        }
        says(refused("INSERT INTO " + unique + " (id, tenant_id) VALUES (1, '" + bob + "')"), "another tenant");
        says(refused("INSERT INTO " + unique + " (id, tenant_id) VALUES (1, NULL)"), "tenant");
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO " + unique + " (id, tenant_id) VALUES (?, ?)")) {
            insert.setInt(1, 1);
            insert.setString(2, bob);
            says(assertThrows(SQLException.class, insert::executeUpdate), "another tenant");
        }
        for (String tenant : Arrays.asList(alice, bob, null)) {
            assertEquals(List.of(List.of(0L)), client(tenant).rows("SELECT count(*) FROM " + unique));
        }
    }

    @Test
    void anotherTenantsTableIsOneThatNeverWas() throws Exception {
        Files.writeString(directory.resolve("own.csv"), "secret\n1\n");
        client(bob).addSource(unique, directory.resolve("own.csv"));
        String name = unique + ".public." + unique;
        for (String sql : List.of("SELECT * FROM %s", "INSERT INTO %s VALUES (1)", "DROP TABLE %s")) {
            String theirs = refused(String.format(sql, name)).getMessage();
            String never = refused(String.format(sql, "never.public.never")).getMessage();
            assertEquals(never, theirs.replace(unique, "never"));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"BEGIN", "CREATE TEMPORARY TABLE mine (id INT)"})
    void whatBelongsToASessionNeedsOne(String sql) throws Exception {
        String url = "jdbc:arrow-flight-sql://" + server().host + ":" + server().port + "/?useEncryption=false";
        try (Connection nobody = DriverManager.getConnection(url); Statement statement = nobody.createStatement()) {
            says(assertThrows(SQLException.class, () -> statement.executeUpdate(sql)), "jammi-session-id");
        }
    }

    @Test
    void twoSessionsAtOnceAreNone() {
        String url = client(alice).url() + "%20b";
        says(assertThrows(SQLException.class, () -> {
            try (Connection odd = DriverManager.getConnection(url)) {
                Client.rows(odd, "SELECT 1");
            }
        }), "jammi-session-id");
    }

    @Test
    void parametersOfTheWrongNumberAreRefusedByTheDriver() throws Exception {
        // The driver gives up as it binds, and counts the memory that it leaves as it closes.
        Connection connection = client(alice).connect();
        closing(() -> says(assertThrows(SQLException.class, connection::close), "Memory was leaked"));
        try (PreparedStatement select = connection.prepareStatement("SELECT 1 + ? + ?")) {
            select.setLong(1, 1);
            assertThrows(SQLException.class, () -> select.setLong(3, 1));
            assertThrows(SQLException.class, select::executeQuery);
            select.setLong(2, 1);
            assertEquals(List.of(List.of(3L)), Client.rows(select.executeQuery()));
        }
        // A statement with parameters and no values at all reaches the server, which counts them.
        says(refused("SELECT 1 + ?"), "the statement has 1 parameter and 0 values are bound");
    }

    @Test
    void parametersOfTheWrongTypeAreRefusedByTheDriver() throws Exception {
        try (PreparedStatement select = connection.prepareStatement("SELECT 1 + ?")) {
            select.setString(1, "many");
            says(assertThrows(SQLException.class, select::executeQuery), "Binding value of type STRING");
            select.setLong(1, 1);
            assertEquals(List.of(List.of(2L)), Client.rows(select.executeQuery()));
        }
    }

    @Test
    void anUpdateIsNoQuery() throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("CREATE TABLE tasks (id BIGINT)");
            SQLException error = assertThrows(SQLException.class,
                    () -> statement.executeQuery("INSERT INTO tasks VALUES (1)"));
            says(error, "did not return a result set");
        }
    }
}
