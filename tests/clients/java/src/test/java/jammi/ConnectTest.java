package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Connections, and the sessions that they name. */
class ConnectTest extends ClientTest {
    private static final List<List<Object>> OF_ALICE = List.of(List.of("a1"), List.of("a2"), List.of("shared"));
    private static final List<List<Object>> OF_BOB = List.of(List.of("b1"), List.of("shared"));
    private static final List<List<Object>> OF_NOBODY = List.of(List.of("shared"));

    private static String titles(String notes) {
        return "SELECT title FROM " + notes + " ORDER BY id";
    }

    @Test
    @Tag("connect")
    void aConnectionIsMadeByAddressOrByProperties() throws Exception {
        String titles = titles(notes());
        Client session = client(alice);
        assertEquals(OF_ALICE, session.rows(titles));
        Properties properties = new Properties();
        properties.setProperty(Client.SESSION_HEADER, session.session);
        try (Connection connection = session.connect(properties)) {
            assertEquals(OF_ALICE, Client.rows(connection, titles));
        }
    }

    @Test
    @Tag("connect")
    void aConnectionIsValidUntilItIsClosed() throws Exception {
        Connection connection = client(alice).connect();
        assertTrue(connection.isValid(Server.DEADLINE_SECONDS));
        connection.close();
        assertTrue(connection.isClosed());
        assertThrows(SQLException.class, connection::createStatement);
    }

    @Test
    @Tag("connect")
    void encryptionIsAskedForUnlessItIsTurnedOff() throws Exception {
        String url = "jdbc:arrow-flight-sql://" + server().host + ":" + server().port + "/";
        try (Connection connection = DriverManager.getConnection(url); Statement statement = connection.createStatement()) {
            SQLException error = assertThrows(SQLException.class, () -> statement.executeQuery("SELECT 1"));
            assertTrue(error.getMessage().contains("io exception"), error::getMessage);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"&user=alice&password=secret", "&token=a-token"})
    @Tag("connect")
    void credentialsAreIgnored(String credentials) throws Exception {
        String titles = titles(notes());
        Client session = client(alice);
        try (Connection connection = DriverManager.getConnection(session.url(credentials))) {
            assertEquals(OF_ALICE, Client.rows(connection, titles));
        }
        assertEquals(Optional.of(alice), session.bound());
    }

    @Test
    @Tag("session")
    void aSessionIsItsTenants() throws Exception {
        String titles = titles(notes());
        assertEquals(OF_ALICE, client(alice).rows(titles));
        assertEquals(OF_BOB, client(bob).rows(titles));
        assertEquals(OF_NOBODY, client(null).rows(titles));
        String url = "jdbc:arrow-flight-sql://" + server().host + ":" + server().port + "/?useEncryption=false";
        try (Connection connection = DriverManager.getConnection(url)) {
            assertEquals(OF_NOBODY, Client.rows(connection, titles));
        }
    }

    @Test
    @Tag("session")
    void bindingTheSessionAnewChangesItsConnections() throws Exception {
        String titles = titles(notes());
        Client session = client(alice);
        try (Connection connection = session.connect()) {
            assertEquals(OF_ALICE, Client.rows(connection, titles));
            session.bind(bob);
            assertEquals(OF_BOB, Client.rows(connection, titles));
            session.clear();
            assertEquals(OF_NOBODY, Client.rows(connection, titles));
        }
    }

    @Test
    @Tag("session")
    void aSessionIsBoundBySql() throws Exception {
        String titles = titles(notes());
        Client session = client(null);
        try (Connection connection = session.connect(); Statement statement = connection.createStatement()) {
            assertFalse(statement.execute("SET app.current_tenant_id = '" + alice + "'"));
            assertEquals(Optional.of(alice), session.bound());
            assertEquals(OF_ALICE, Client.rows(connection, titles));
            statement.executeUpdate("SET SESSION app.current_tenant_id TO '" + bob + "'");
            assertEquals(OF_BOB, Client.rows(connection, titles));
            assertEquals(List.of(List.of(bob)), Client.rows(connection, "SHOW app.current_tenant_id"));
            try (PreparedStatement set = connection.prepareStatement("SET app.current_tenant_id = ?")) {
                set.setString(1, alice);
                set.executeUpdate();
            }
            assertEquals(OF_ALICE, Client.rows(connection, titles));
            String call = "SELECT set_config('app.current_tenant_id', '" + bob + "', false)";
            assertEquals(List.of(List.of(bob)), Client.rows(connection, call));
            assertEquals(OF_BOB, Client.rows(connection, titles));
            statement.executeUpdate("RESET app.current_tenant_id");
            assertEquals(OF_NOBODY, Client.rows(connection, titles));
            assertEquals(Optional.empty(), session.bound());
        }
    }

    @Test
    @Tag("session")
    void aConnectionIsGivenASessionByCookie() throws Exception {
        String titles = titles(notes());
        String url = "jdbc:arrow-flight-sql://" + server().host + ":" + server().port + "/?useEncryption=false";
        try (Connection one = DriverManager.getConnection(url);
                Connection two = DriverManager.getConnection(url);
                Statement ofOne = one.createStatement();
                Statement ofTwo = two.createStatement()) {
            ofOne.execute("SET app.current_tenant_id = '" + alice + "'");
            ofTwo.execute("SET app.current_tenant_id = '" + bob + "'");
            assertEquals(OF_ALICE, Client.rows(one, titles));
            assertEquals(OF_BOB, Client.rows(two, titles));
            assertEquals(List.of(List.of(alice)), Client.rows(one, "SHOW app.current_tenant_id"));
        }
        // A connection that was given none is nobody's.
        try (Connection connection = DriverManager.getConnection(url)) {
            assertEquals(OF_NOBODY, Client.rows(connection, titles));
        }
    }

    @Test
    @Tag("session")
    void closingAConnectionLeavesItsSiblingsBound() throws Exception {
        String titles = titles(notes());
        Client session = client(alice);
        try (Connection sibling = session.connect()) {
            session.connect().close();
            assertEquals(OF_ALICE, Client.rows(sibling, titles));
        }
        assertEquals(Optional.of(alice), session.bound());
    }

    @Test
    @Tag("session")
    void bareNamesAreLookedUpInTheCatalogOfTheAddress() throws Exception {
        notes();
        Client session = client(alice);
        Connection connection = DriverManager.getConnection(session.url("&catalog=" + unique));
        assertEquals(OF_ALICE, Client.rows(connection, titles(unique)));
        // The driver sends CloseSession, and once more over the channel that it has just closed.
        SQLException error = assertThrows(SQLException.class, connection::close);
        assertTrue(error.getMessage().contains("Channel shutdown invoked"), error::getMessage);
        assertEquals(Optional.of(alice), session.bound());

        // Another session has a catalog of its own.
        SQLException elsewhere = assertThrows(SQLException.class, () -> client(alice).rows(titles(unique)));
        assertTrue(elsewhere.getMessage().contains("table `" + unique + "` does not exist"), elsewhere::getMessage);
    }

    @Test
    @Tag("session")
    void aCatalogNeedsASession() {
        String url = "jdbc:arrow-flight-sql://" + server().host + ":" + server().port
                + "/?useEncryption=false&catalog=jammi";
        SQLException error = assertThrows(SQLException.class, () -> DriverManager.getConnection(url));
        assertTrue(error.getMessage().contains("jammi-session-id is missing"), error::getMessage);
    }

    @Test
    @Tag("session")
    void aCookieNamesNoSession() throws Exception {
        // The driver keeps cookies and sends them back: the server sets none that would bind another caller.
        String titles = titles(notes());
        assertEquals(OF_ALICE, client(alice).rows(titles));
        assertFalse(client(null).bound().isPresent());
        assertEquals(OF_NOBODY, client(null).rows(titles));
    }
}
