package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.Statement;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Results that are larger than the memory that this process may use (see pom.xml). */
@Tag("streaming")
class StreamingTest extends ClientTest {
    @Test
    void aLongResultIsReadInBoundedMemory() throws Exception {
        // 3,000,000 rows of 200 bytes are 600 MB, several times what the process has.
        long count = 3_000_000;
        String sql = "SELECT value, rpad(CAST(value AS VARCHAR), 192, 'x') AS text FROM generate_series(1, " + count + ")";
        Connection connection = connection(alice);
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            long found = 0;
            long sum = 0;
            while (rows.next()) {
                found++;
                sum += rows.getLong(1);
                if (found % 100_000 == 0) {
                    assertEquals(192, rows.getString(2).length());
                }
            }
            assertEquals(count, found);
            assertEquals(count * (count + 1) / 2, sum);
        }
        server().await(active -> active == 0, "jammi_requests_active");
    }

    @Test
    void longRowsAreSplitIntoMessagesThatTheDriverTakes() throws Exception {
        // 64 rows of 512 KiB are 32 MiB; a message of gRPC has 4 MiB by default.
        String sql = "SELECT value, repeat('x', 524288) AS text FROM generate_series(1, 64)";
        Connection connection = connection(alice);
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            long bytes = 0;
            while (rows.next()) {
                bytes += rows.getString("text").length();
            }
            assertEquals(64L << 19, bytes);
        }
    }

    @Test
    void resultsAreReadSideBySideOnOneConnection() throws Exception {
        String sql = "SELECT value FROM generate_series(1, 100000)";
        Connection connection = connection(alice);
        try (Statement first = connection.createStatement(); Statement second = connection.createStatement();
                ResultSet left = first.executeQuery(sql); ResultSet right = second.executeQuery(sql)) {
            long found = 0;
            while (left.next() && right.next()) {
                assertEquals(left.getLong(1), right.getLong(1));
                found++;
            }
            assertEquals(100_000, found);
        }
    }
}
