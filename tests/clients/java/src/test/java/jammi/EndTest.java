package jammi;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;

/**
 * Comes last: the other tests have left nothing open on the server but sessions, whose end the driver never tells and
 * which keep their temporary tables until they are idle.
 */
@Order(Integer.MAX_VALUE)
class EndTest extends ClientTest {
    @Test
    void nothingIsLeftOpen() {
        server().await(open -> open == 0, "jammi_requests_active");
        server().await(open -> open == 0, "jammi_queries_running");
        server().await(open -> open == 0, "jammi_queries_polled");
        server().await(open -> open == 0, "jammi_transactions");
        server().await(open -> open == 0, "jammi_connections", "port=\"grpc\"");
        assertEquals(0, server().metric("jammi_panics_total"));
    }
}
