package jammi;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.ArrayDeque;
import java.util.Comparator;
import java.util.Deque;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.io.TempDir;

/** What every test has: one server for the whole suite, two tenants of its own, and clients. */
@ExtendWith(ClientTest.OneServer.class)
abstract class ClientTest {
    /** Tenants that no other test has. */
    final String alice = UUID.randomUUID().toString();

    final String bob = UUID.randomUUID().toString();

    /** A name that no other test uses. */
    final String unique = "t" + UUID.randomUUID().toString().replace("-", "").substring(0, 12);

    @TempDir
    Path directory;

    private final Deque<AutoCloseable> opened = new ArrayDeque<>();

    static Server server() {
        return OneServer.server;
    }

    /** A client of the server, closed after the test; without a tenant it is unbound. */
    Client client(String tenant) {
        return closing(new Client(server(), tenant));
    }

    /** A connection of a new session of {@code tenant}, closed after the test. */
    Connection connection(String tenant) throws SQLException {
        return closing(client(tenant).connect());
    }

    <C extends AutoCloseable> C closing(C closeable) {
        opened.push(closeable);
        return closeable;
    }

    @AfterEach
    void closeWhatWasOpened() throws Exception {
        Exception failed = null;
        while (!opened.isEmpty()) {
            try {
                opened.pop().close();
            } catch (Exception error) {
                failed = failed == null ? error : failed;
            }
        }
        if (failed != null) {
            throw failed;
        }
    }

    /** A shared source with two rows of Alice, one of Bob and one of nobody; its name in SQL. */
    String notes() throws IOException {
        Path file = directory.resolve("notes.csv");
        Files.writeString(file, String.join("\n",
                "id,tenant_id,title", "1," + alice + ",a1", "2," + alice + ",a2", "3," + bob + ",b1",
                "4,,shared", ""));
        client(null).addSource(unique, file);
        return unique + ".public." + unique;
    }

    /** Starts the server with the first test class, and stops it after the last. */
    static final class OneServer implements BeforeAllCallback, AutoCloseable {
        private static Server server;
        private static Path home;

        @Override
        public void beforeAll(ExtensionContext context) throws IOException {
            if (server == null) {
                home = Files.createTempDirectory("jammi-java");
                server = new Server(home, Map.of());
                context.getRoot().getStore(ExtensionContext.Namespace.GLOBAL).put(OneServer.class, this);
            }
        }

        @Override
        public void close() throws Exception {
            server.close();
            try (var files = Files.walk(home)) {
                for (Path path : files.sorted(Comparator.reverseOrder()).toList()) {
                    Files.delete(path);
                }
            }
        }
    }
}
