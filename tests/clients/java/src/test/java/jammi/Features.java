package jammi;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.TreeMap;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.TestPlan;

/**
 * Tells what works with this client, by the tags of the tests: one line of JSON for each feature, added to the file
 * that {@code JAMMI_FEATURES} names.
 */
public final class Features implements TestExecutionListener {
    private static final String CLIENT = "Java: Flight SQL JDBC driver";

    private final Map<String, Boolean> passed = new TreeMap<>();

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        boolean ok = result.getStatus() == TestExecutionResult.Status.SUCCESSFUL;
        // A class that fails as a whole fails its features; one that ends well says nothing yet.
        if (test.isTest() || !ok) {
            test.getTags().forEach(tag -> passed.merge(tag.getName(), ok, Boolean::logicalAnd));
        }
    }

    @Override
    public void testPlanExecutionFinished(TestPlan plan) {
        String file = System.getenv("JAMMI_FEATURES");
        if (file == null || file.isEmpty()) {
            return;
        }
        StringBuilder lines = new StringBuilder();
        passed.forEach((feature, ok) -> lines.append(String.format(
                "{\"client\": \"%s\", \"feature\": \"%s\", \"passed\": %b}%n", CLIENT, feature, ok)));
        try {
            Files.writeString(Path.of(file), lines, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
