package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** What tools such as DBeaver ask before a user has typed anything. */
@Tag("metadata")
class MetadataTest extends ClientTest {
    private Connection connection;
    private DatabaseMetaData metadata;

    @BeforeEach
    void connect() throws SQLException {
        connection = connection(alice);
        metadata = connection.getMetaData();
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("CREATE TABLE tasks (project BIGINT, id BIGINT, title VARCHAR NOT NULL,"
                    + " price DECIMAL(10, 2), at TIMESTAMP(3), owner UUID, PRIMARY KEY (project, id))");
        }
    }

    /** The named columns of {@code rows}, which is closed. */
    private static List<List<Object>> columns(ResultSet rows, String... names) throws SQLException {
        try (rows) {
            List<List<Object>> all = new ArrayList<>();
            while (rows.next()) {
                List<Object> row = new ArrayList<>();
                for (String name : names) {
                    row.add(rows.getObject(name));
                }
                all.add(row);
            }
            return all;
        }
    }

    @Test
    void everyQuestionWithoutArgumentsIsAnswered() throws Exception {
        Set<String> threw = new HashSet<>();
        for (Method method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() > 0) {
                continue;
            }
            try {
                if (method.invoke(metadata) instanceof ResultSet rows) {
                    rows.close();
                }
            } catch (InvocationTargetException error) {
                threw.add(method.getName() + ": " + error.getCause());
            }
        }
        assertEquals(Set.of(), threw);
    }

    @Test
    void theServerTellsWhatItIs() throws Exception {
        assertEquals("Jammi", metadata.getDatabaseProductName());
        assertTrue(metadata.getDatabaseProductVersion().matches("\\d+\\.\\d+\\.\\d+.*"), metadata.getDatabaseProductVersion());
        assertEquals("\"", metadata.getIdentifierQuoteString());
        assertTrue(Arrays.asList(metadata.getSQLKeywords().split(", ")).contains("ILIKE"));
        assertTrue(Arrays.asList(metadata.getStringFunctions().split(", ")).contains("upper"));
        assertTrue(metadata.supportsTransactions());
        assertTrue(metadata.supportsSavepoints());
        assertTrue(metadata.supportsTransactionIsolationLevel(Connection.TRANSACTION_SERIALIZABLE));
        assertTrue(metadata.supportsBatchUpdates());
        assertTrue(metadata.supportsConvert(Types.VARCHAR, Types.INTEGER));
        assertFalse(metadata.supportsConvert(Types.DATE, Types.INTEGER));
        assertTrue(metadata.supportsFullOuterJoins());
        assertTrue(metadata.isCatalogAtStart());
        assertFalse(metadata.isReadOnly());
        assertEquals("\\", metadata.getSearchStringEscape());
    }

    @Test
    void theTreeOfATool() throws Exception {
        notes();
        List<List<Object>> catalogs = columns(metadata.getCatalogs(), "TABLE_CAT");
        assertTrue(catalogs.containsAll(List.of(List.of("jammi"), List.of("mutable"), List.of(unique))), catalogs::toString);
        assertEquals(List.of(List.of("mutable", "public")),
                columns(metadata.getSchemas("mutable", "%"), "TABLE_CATALOG", "TABLE_SCHEM"));
        assertTrue(columns(metadata.getSchemas(), "TABLE_CATALOG", "TABLE_SCHEM")
                .containsAll(List.of(List.of("jammi", "catalog"), List.of(unique, "public"))));
        assertEquals(List.of(List.of("LOCAL TEMPORARY"), List.of("SYSTEM TABLE"), List.of("TABLE"), List.of("VIEW")),
                columns(metadata.getTableTypes(), "TABLE_TYPE"));
        String[] path = {"TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE"};
        List<List<Object>> tables = columns(metadata.getTables(null, null, "%", null), path);
        assertTrue(tables.containsAll(List.of(List.of("mutable", "public", "tasks", "TABLE"),
                List.of(unique, "public", unique, "TABLE"), List.of("jammi", "catalog", "models", "SYSTEM TABLE"))), tables::toString);
        assertEquals(List.of(List.of("mutable", "public", "tasks", "TABLE")),
                columns(metadata.getTables("mutable", "pub%", "t_sks", new String[] {"TABLE", "VIEW"}), path));
        assertEquals(List.of(), columns(metadata.getTables("mutable", null, "%", new String[] {"VIEW"}), path));
    }

    @Test
    void columnsTellTheirTypes() throws Exception {
        List<List<Object>> columns = columns(metadata.getColumns("mutable", "public", "tasks", "%"),
                "COLUMN_NAME", "DATA_TYPE", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "IS_NULLABLE", "ORDINAL_POSITION");
        assertEquals(List.of(
                List.of("project", Types.BIGINT, "BIGINT", 19, 0, "NO", 1),
                List.of("id", Types.BIGINT, "BIGINT", 19, 0, "NO", 2),
                Arrays.asList("title", Types.VARCHAR, "VARCHAR", 65536, null, "NO", 3),
                List.of("price", Types.DECIMAL, "DECIMAL", 10, 2, "YES", 4),
                List.of("at", Types.TIMESTAMP, "TIMESTAMP", 23, 3, "YES", 5),
                Arrays.asList("owner", Types.BINARY, "UUID", 16, null, "YES", 6),
                Arrays.asList("tenant_id", Types.VARCHAR, "VARCHAR", 65536, null, "YES", 7)), columns);
        assertEquals(List.of(List.of("title")),
                columns(metadata.getColumns(null, null, "tasks", "t_tle"), "COLUMN_NAME"));
    }

    @Test
    void keysAreRealAndForeignOnesNone() throws Exception {
        assertEquals(List.of(
                List.of("mutable", "public", "tasks", "project", 1, "tasks_pkey"),
                List.of("mutable", "public", "tasks", "id", 2, "tasks_pkey")),
                columns(metadata.getPrimaryKeys("mutable", "public", "tasks"),
                        "TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "COLUMN_NAME", "KEY_SEQ", "PK_NAME"));
        for (ResultSet none : List.of(
                metadata.getPrimaryKeys("mutable", "public", "nope"),
                metadata.getImportedKeys("mutable", "public", "tasks"),
                metadata.getExportedKeys("mutable", "public", "tasks"),
                metadata.getCrossReference("mutable", "public", "tasks", "mutable", "public", "tasks"))) {
            assertEquals(List.of(), columns(none));
        }
    }

    @Test
    void whatTheDriverDoesNotAskIsEmpty() throws Exception {
        for (ResultSet none : List.of(
                metadata.getTypeInfo(),
                metadata.getIndexInfo("mutable", "public", "tasks", false, false),
                metadata.getBestRowIdentifier("mutable", "public", "tasks", DatabaseMetaData.bestRowSession, true),
                metadata.getVersionColumns("mutable", "public", "tasks"),
                metadata.getTablePrivileges("mutable", "public", "tasks"),
                metadata.getColumnPrivileges("mutable", "public", "tasks", "%"),
                metadata.getProcedures(null, null, "%"),
                metadata.getFunctions(null, null, "%"))) {
            assertEquals(List.of(), columns(none));
        }
    }

    @Test
    void oddPatternsFindNothing() throws Exception {
        for (String odd : List.of("SELECT * FROM tasks WHERE 'it''s' = $1 %_[\\", "", "(", "tasks\\")) {
            assertEquals(List.of(), columns(metadata.getTables(null, null, odd, null), "TABLE_NAME"), odd);
        }
        assertEquals(List.of(), columns(metadata.getTables("", null, "%", null), "TABLE_NAME"));
    }

    @Test
    void anotherTenantsTablesAreNotListed() throws Exception {
        Files.writeString(directory.resolve("own.csv"), "secret_column\n1\n");
        client(alice).addSource(unique, directory.resolve("own.csv"));
        for (String other : Arrays.asList(bob, null)) {
            DatabaseMetaData theirs = connection(other).getMetaData();
            for (ResultSet listed : List.of(
                    theirs.getCatalogs(), theirs.getSchemas(), theirs.getTables(null, null, "%", null),
                    theirs.getColumns(null, null, "%", "%"), theirs.getPrimaryKeys(null, null, "tasks"))) {
                String text;
                try (listed) {
                    text = Client.rows(listed).toString();
                }
                assertFalse(text.contains(unique) || text.contains("tasks") || text.contains("secret_column"), text);
            }
        }
        assertThrows(SQLException.class, () -> client(bob).rows("SELECT * FROM tasks"));
    }
}
