package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Two tenants at once, each of whom sees its own rows and the shared ones. */
@Tag("isolation")
class IsolationTest extends ClientTest {
    private static final int THREADS = 8;
    private static final int ROWS = 2000;

    private String events;

    /** A shared source with rows of Alice and Bob in turn, and every fifth one of nobody. */
    @BeforeEach
    void share() throws Exception {
        StringBuilder lines = new StringBuilder("id,tenant_id\n");
        for (int id = 0; id < ROWS; id++) {
            lines.append(id).append(',').append(Objects.toString(owner(id), "")).append('\n');
        }
        Path file = directory.resolve("events.csv");
        Files.writeString(file, lines);
        client(null).addSource(unique, file);
        events = unique + ".public." + unique;
    }

    private String owner(int id) {
        return Arrays.asList(alice, bob, alice, bob, null).get(id % 5);
    }

    private static void atOnce(List<Callable<Void>> work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        try {
            for (Future<Void> done : threads.invokeAll(work, Server.DEADLINE_SECONDS, TimeUnit.SECONDS)) {
                done.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    /** What {@code tenant} reads from number {@code from} on is its own and the shared, all of it and no more. */
    private void reads(Connection connection, String tenant, long from) throws SQLException {
        try (PreparedStatement select = connection.prepareStatement(
                "SELECT id, tenant_id FROM " + events + " WHERE id >= ? ORDER BY id")) {
            select.setLong(1, from);
            List<Integer> found = new ArrayList<>();
            try (ResultSet rows = select.executeQuery()) {
                while (rows.next()) {
                    String owner = rows.getString(2);
                    assertTrue(owner == null || owner.equals(tenant), () -> tenant + " reads a row of " + owner);
                    found.add(rows.getInt(1));
                }
            }
            List<Integer> expected = new ArrayList<>();
            for (int id = (int) from; id < ROWS; id++) {
                if (owner(id) == null || owner(id).equals(tenant)) {
                    expected.add(id);
                }
            }
            assertEquals(expected, found);
        }
    }

    @Test
    void connectionsOfTwoTenantsNeverMix() throws Exception {
        List<Callable<Void>> work = new ArrayList<>();
        for (int thread = 0; thread < THREADS; thread++) {
            String tenant = Arrays.asList(alice, bob).get(thread % 2);
            Client session = client(tenant);
            work.add(() -> {
                try (Connection connection = session.connect()) {
                    for (long from = 0; from < 15; from++) {
                        reads(connection, tenant, from);
                    }
                }
                return null;
            });
        }
        atOnce(work);
    }

    private HikariDataSource pool(Client session) {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(session.url());
        config.setMaximumPoolSize(3);
        config.setMinimumIdle(0);
        return closing(new HikariDataSource(config));
    }

    @Test
    void poolsOfTwoTenantsNeverMix() throws Exception {
        HikariDataSource ofAlice = pool(client(alice));
        HikariDataSource ofBob = pool(client(bob));
        List<Callable<Void>> work = new ArrayList<>();
        for (int number = 0; number < 80; number++) {
            boolean first = number % 2 == 0;
            long from = number;
            work.add(() -> {
                try (Connection connection = (first ? ofAlice : ofBob).getConnection()) {
                    reads(connection, first ? alice : bob, from);
                }
                return null;
            });
        }
        atOnce(work);
    }

    @Test
    void writersOfTwoTenantsNeverMix() throws Exception {
        String table = "of_" + unique;
        try (Statement statement = connection(null).createStatement()) {
            statement.executeUpdate("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, writer VARCHAR)");
        }
        List<Callable<Void>> work = new ArrayList<>();
        for (String tenant : List.of(alice, bob)) {
            Client session = client(tenant);
            for (int part = 0; part < 4; part++) {
                int from = part * 50;
                work.add(() -> {
                    try (Connection connection = session.connect(); PreparedStatement insert =
                            connection.prepareStatement("INSERT INTO " + table + " (id, writer) VALUES (?, ?)")) {
                        for (int id = from; id < from + 50; id++) {
                            insert.setLong(1, id);
                            insert.setString(2, tenant);
                            insert.addBatch();
                        }
                        insert.executeBatch();
                    }
                    return null;
                });
            }
        }
        atOnce(work);
        for (String tenant : List.of(alice, bob)) {
            List<List<Object>> rows = client(tenant).rows("SELECT DISTINCT writer, tenant_id FROM " + table);
            assertEquals(List.of(List.of(tenant, tenant)), rows);
            assertEquals(List.of(List.of(200L)), client(tenant).rows("SELECT count(*) FROM " + table));
        }
        assertEquals(List.of(List.of(0L)), client(null).rows("SELECT count(*) FROM " + table));
    }

    @Test
    void namingTheOtherTenantShowsNothingMore() throws Exception {
        for (String predicate : List.of("tenant_id = '" + bob + "' OR true", "tenant_id <> '" + alice + "'",
                "1 = 1; --", "tenant_id IS NOT NULL")) {
            Set<Object> owners = new HashSet<>();
            client(alice).rows("SELECT tenant_id FROM " + events + " WHERE " + predicate)
                    .forEach(row -> owners.add(row.get(0)));
            owners.removeAll(Arrays.asList(alice, null));
            assertEquals(Set.of(), owners);
        }
        // By a parameter too, and by a name that another session made.
        try (PreparedStatement select = connection(alice).prepareStatement(
                "SELECT count(*) FROM " + events + " WHERE tenant_id = ?")) {
            select.setString(1, bob);
            assertEquals(List.of(List.of(0L)), Client.rows(select.executeQuery()));
        }
    }

    @Test
    void temporaryTablesAndTransactionsAreTheirSessionsOwn() throws Exception {
        Connection first = connection(alice);
        Connection second = connection(alice);
        Connection theirs = connection(bob);
        for (Connection connection : List.of(first, second, theirs)) {
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("CREATE TEMPORARY TABLE scratch AS SELECT '" + connection + "' AS whose");
                statement.executeUpdate("BEGIN");
            }
        }
        Set<Object> whose = new HashSet<>();
        for (Connection connection : List.of(first, second, theirs)) {
            List<List<Object>> rows = Client.rows(connection, "SELECT whose FROM scratch");
            assertEquals(List.of(List.of(connection.toString())), rows);
            whose.add(rows);
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("ROLLBACK");
            }
        }
        assertEquals(3, whose.size());
        assertNotEquals(first.toString(), second.toString());
    }
}
