package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Queries that a client gives up: the server stops working on them. */
@Tag("cancel")
class CancelTest extends ClientTest {
    /** Rows without end, in practice. */
    private static final String ROWS =
            "SELECT a.value FROM generate_series(1, 1000000) AS a, generate_series(1, 1000000) AS b";
    /** Hours of work before the first row. */
    private static final String WORK = "SELECT count(*) FROM generate_series(1, 100000000) AS a,"
            + " generate_series(1, 1000000) AS b WHERE (a.value * b.value) % 7 = 3";

    private Connection connection;

    @BeforeEach
    void connect() throws SQLException {
        server().await(active -> active == 0, "jammi_requests_active");
        connection = client(alice).connect();
        closing(this::closeConnection);
    }

    /** The driver may lose count of the memory that it was reading into as it was cancelled, and says so here. */
    private void closeConnection() {
        try {
            connection.close();
        } catch (SQLException error) {
            String text = error.getMessage() + error.getCause();
            assertTrue(text.contains("Memory was leaked"), text);
        }
    }

    @AfterEach
    void theServerStopsAndTheConnectionGoesOn() throws SQLException {
        server().await(active -> active == 0, "jammi_requests_active");
        server().await(open -> open == 0, "jammi_transactions");
        assertEquals(List.of(List.of(1L)), Client.rows(connection, "SELECT 1"));
    }

    private void cancelOnceItRuns(Statement statement) {
        server().await(active -> active > 0, "jammi_requests_active");
        try {
            statement.cancel();
        } catch (SQLException error) {
            throw new AssertionError(error);
        }
    }

    /**
     * Cancelled by another thread, as a user's button does it, between two reads: the driver's stream is not safe for
     * a read at the very moment of its cancellation, and may then say that "RefCnt has gone negative".
     */
    @Test
    void rowsThatAreReadAreCancelled() throws Exception {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(ROWS)) {
            assertTrue(rows.next());
            CompletableFuture.runAsync(() -> cancelOnceItRuns(statement))
                    .get(Server.DEADLINE_SECONDS, TimeUnit.SECONDS);
            // The rows of the batch that had come are read still. What the reader is told then is the driver's choice.
            assertThrows(Exception.class, () -> {
                while (rows.next()) {
                    rows.getLong(1);
                }
            });
        }
    }

    @Test
    void aResultThatIsClosedEarlyStops() throws Exception {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(ROWS)) {
            assertTrue(rows.next());
            assertEquals(1, server().metric("jammi_requests_active"));
        }
    }

    @Test
    void workBeforeTheFirstRowIsCancelled() throws Exception {
        String[] announced = {"method=\"/arrow.flight.protocol.FlightService/GetFlightInfo\""};
        double before = server().metric("jammi_requests_total", announced);
        try (Statement statement = connection.createStatement()) {
            CompletableFuture<Throwable> ran = CompletableFuture.supplyAsync(
                    () -> assertThrows(Exception.class, () -> statement.executeQuery(WORK)));
            // Cancelling before the driver has its stream is lost: what runs after the announcement is the stream.
            server().await(count -> count > before, "jammi_requests_total", announced);
            cancelOnceItRuns(statement);
            String text = String.valueOf(ran.get(Server.DEADLINE_SECONDS, TimeUnit.SECONDS).getMessage());
            assertTrue(text.toLowerCase().contains("cancel"), text);
        }
    }

    @Test
    void aTimeoutStopsTheWork() throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            SQLException error = assertThrows(SQLException.class, () -> statement.executeQuery(WORK));
            assertTrue(error.getMessage().contains("Query timed out after 1 SECONDS"), error::getMessage);
            assertEquals(1, statement.getQueryTimeout());
        }
    }

    @Test
    void aPreparedQueryIsCancelledAndRunAgain() throws Exception {
        try (PreparedStatement select = connection.prepareStatement(ROWS + " LIMIT ?")) {
            select.setLong(1, Long.MAX_VALUE);
            try (ResultSet rows = select.executeQuery()) {
                assertTrue(rows.next());
                select.cancel();
            }
            server().await(active -> active == 0, "jammi_requests_active");
        }
        try (PreparedStatement select = connection.prepareStatement(ROWS + " LIMIT ?")) {
            select.setLong(1, 2);
            assertEquals(2, Client.rows(select.executeQuery()).size());
        }
    }
}
