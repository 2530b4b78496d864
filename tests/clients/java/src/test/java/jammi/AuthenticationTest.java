package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Two tenants who sign in, at servers of their own. */
class AuthenticationTest extends ClientTest {
    /** What the driver is told, beside the address. */
    private record As(String user, Map<String, String> properties) {}

    private static As byPassword(String user, String secret) {
        return new As(user, Map.of("user", user, "password", secret));
    }

    private static As byToken(String user, String token) {
        return new As(user, Map.of("token", token));
    }

    private static As with(As as, Map<String, String> more) {
        Map<String, String> properties = new HashMap<>(as.properties);
        properties.putAll(more);
        return new As(as.user, properties);
    }

    private static Connection connect(Server server, As as) throws SQLException {
        Properties properties = new Properties();
        properties.putAll(as.properties);
        properties.putIfAbsent("useEncryption", "false");
        return DriverManager.getConnection("jdbc:arrow-flight-sql://" + server.host + ":" + server.port, properties);
    }

    private static List<List<Object>> rows(Server server, As as, String sql) throws SQLException {
        try (Connection connection = connect(server, as)) {
            return Client.rows(connection, sql);
        }
    }

    /** Each of {@code holders} reads what it wrote, and those of {@code wrong} read nothing. */
    private void signIn(Server server, List<As> holders, List<As> wrong) throws SQLException {
        for (As as : holders) {
            try (Connection connection = connect(server, as); Statement statement = connection.createStatement()) {
                statement.executeUpdate("CREATE TABLE IF NOT EXISTS t (word VARCHAR)");
                statement.executeUpdate("DELETE FROM t");
                statement.executeUpdate("INSERT INTO t VALUES ('of " + as.user + "')");
            }
        }
        for (As as : holders) {
            assertEquals(List.of(List.of("of " + as.user)), rows(server, as, "SELECT word FROM t"));
        }
        for (As as : wrong) {
            SQLException error = assertThrows(SQLException.class, () -> rows(server, as, "SELECT word FROM t"));
            String text = error.toString();
            assertTrue(text.contains("the request") && text.contains("credential"), text);
            assertFalse(text.contains("of bob"), text);
        }
    }

    private List<String> keys(Server server) throws Exception {
        List<String> keys = new ArrayList<>();
        keys.add(server.beside("", "keys", "create", "alice", "--acts-for", alice));
        keys.add(server.beside("", "keys", "create", "bob", "--acts-for", bob));
        return keys;
    }

    private void users(Server server) throws Exception {
        server.beside("the password of alice\n", "users", "create", "alice", "--acts-for", alice);
        server.beside("the password of bob\n", "users", "create", "bob", "--acts-for", bob);
    }

    private static List<As> holders(List<String> keys) {
        return List.of(byPassword("alice", keys.get(0)), byPassword("bob", keys.get(1)));
    }

    private static List<As> nobody(List<String> keys) {
        return List.of(byPassword("alice", keys.get(1)), byPassword("alice", "jammi_0"),
                byPassword("alice", "the password of bob"), byToken("alice", keys.get(1) + "x"));
    }

    @Test
    @Tag("password")
    void twoTenantsSignInByUserAndPassword() throws Exception {
        try (Server server = new Server(directory, Map.of("JAMMI_AUTH__METHODS", "api_key,password"))) {
            List<String> keys = keys(server);
            users(server);
            signIn(server, holders(keys), nobody(keys));
            signIn(server, List.of(byPassword("alice", "the password of alice"), byPassword("bob", "the password of bob")),
                    List.of(byPassword("mallory", "the password of bob")));
        }
    }

    @Test
    @Tag("token")
    void twoTenantsSignInByToken() throws Exception {
        try (Server server = new Server(directory, Map.of("JAMMI_AUTH__METHODS", "api_key"))) {
            List<String> keys = keys(server);
            signIn(server, List.of(byToken("alice", keys.get(0)), byToken("bob", keys.get(1))), nobody(keys));
        }
    }

    @Test
    @Tag("encryption")
    @Tag("certificate")
    void twoTenantsSignInOverTls() throws Exception {
        Certificates certificates = new Certificates(directory);
        Certificates.Issued own = certificates.issue("server");
        Path clients = directory.resolve("clients.toml");
        Files.writeString(clients, clientOf("alice", alice) + clientOf("bob", bob));
        Map<String, String> settings = Map.of(
                "JAMMI_AUTH__METHODS", "api_key,password,mtls",
                "JAMMI_AUTH__MTLS__CLIENTS_FILE", clients.toString(),
                "JAMMI_TLS__CERTIFICATE_FILE", own.certificate().toString(),
                "JAMMI_TLS__PRIVATE_KEY_FILE", own.key().toString(),
                "JAMMI_TLS__CLIENT_CA_FILE", certificates.root.toString());
        try (Server server = new Server(directory, settings)) {
            Map<String, String> tls = Map.of("useEncryption", "true", "tlsRootCerts", certificates.root.toString(),
                    "useSystemTrustStore", "false");
            List<String> keys = keys(server);
            users(server);
            signIn(server, encrypted(tls, holders(keys)), encrypted(tls, nobody(keys)));
            signIn(server, encrypted(tls, List.of(byToken("alice", keys.get(0)), byToken("bob", keys.get(1)))), List.of());
            signIn(server, encrypted(tls,
                    List.of(byPassword("alice", "the password of alice"), byPassword("bob", "the password of bob"))),
                    List.of());

            List<As> shown = new ArrayList<>();
            for (String name : List.of("alice", "bob", "mallory")) {
                Certificates.Issued issued = certificates.issue(name);
                shown.add(with(new As(name, tls), Map.of("clientCertificate", issued.certificate().toString(),
                        "clientKey", issued.key().toString())));
            }
            signIn(server, shown.subList(0, 2), List.of(shown.get(2), new As("nobody", tls)));

            // Whoever does not know the root, and whoever does not encrypt.
            Map<String, String> unknown = Map.of("useEncryption", "true");
            As plain = holders(keys).get(0);
            for (As as : List.of(with(plain, unknown), plain)) {
                assertThrows(SQLException.class, () -> rows(server, as, "SELECT word FROM t"));
            }
        }
    }

    private static String clientOf(String name, String tenant) {
        return "[[clients]]\ncertificate = \"cn:" + name + "\"\nuser = \"" + name + "\"\ntenants = [\"" + tenant + "\"]\n";
    }

    private static List<As> encrypted(Map<String, String> tls, List<As> all) {
        return all.stream().map(as -> with(as, tls)).toList();
    }
}
