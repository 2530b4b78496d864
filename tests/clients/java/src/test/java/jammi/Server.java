package jammi;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.function.DoublePredicate;
import java.util.function.Supplier;

/** The real server, as a process of its own on free loopback ports; whoever starts one closes it. */
final class Server implements AutoCloseable {
    /** Far beyond what anything takes on a loaded machine: what takes longer hangs. */
    static final int DEADLINE_SECONDS = 120;

    final String host = "127.0.0.1";
    final int port;
    private final URI metrics;
    private final Process process;
    private final Path home;
    private final Path log;
    private final HttpClient http = HttpClient.newHttpClient();

    /** {@code jammi serve} on a directory in {@code home}, with {@code settings} in its environment. */
    Server(Path home, Map<String, String> settings) throws IOException {
        String binary = System.getenv("JAMMI_BIN");
        if (binary == null) {
            throw new IllegalStateException("JAMMI_BIN is unset: name the `jammi` to test in it");
        }
        this.home = home;
        log = home.resolve("log");
        ProcessBuilder builder = new ProcessBuilder(
                binary, "serve", "--artifact-dir", home.resolve("data").toString(),
                "--listen", host + ":0", "--http-listen", host + ":0");
        Map<String, String> environment = builder.environment();
        environment.keySet().removeIf(name -> name.startsWith("JAMMI_") || name.startsWith("AWS_"));
        environment.put("RUST_BACKTRACE", "0");
        environment.putAll(settings);
        process = builder.directory(home.toFile())
                .redirectInput(new File("/dev/null"))
                .redirectError(log.toFile())
                .start();
        try {
            BufferedReader stdout = process.inputReader(StandardCharsets.UTF_8);
            port = URI.create(listening(stdout, "grpc")).getPort();
            metrics = URI.create(listening(stdout, "http") + "/metrics");
        } catch (IOException | RuntimeException error) {
            process.destroyForcibly();
            throw error;
        }
    }

    private String listening(BufferedReader stdout, String scheme) throws IOException {
        String line = within(stdout::readLine);
        String prefix = "listening " + scheme + "://";
        if (line == null || !(line.startsWith(prefix) || line.startsWith("listening " + scheme + "+tls://"))) {
            throw new IllegalStateException("expected " + prefix + ", got " + line + "\n" + stderr());
        }
        return line.substring("listening ".length());
    }

    private interface Reading {
        String read() throws IOException;
    }

    private static String within(Reading reading) throws IOException {
        ExecutorService reader = Executors.newSingleThreadExecutor();
        try {
            return reader.submit(reading::read).get(DEADLINE_SECONDS, TimeUnit.SECONDS);
        } catch (ExecutionException | TimeoutException | InterruptedException error) {
            throw new IOException("the server did not say where it listens", error);
        } finally {
            reader.shutdownNow();
        }
    }

    /** Runs the command on the server's databases, and answers what it writes. */
    String beside(String stdin, String... words) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(
                List.of(System.getenv("JAMMI_BIN"), "--artifact-dir", home.resolve("data").toString()));
        command.addAll(List.of(words));
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.environment().keySet().removeIf(name -> name.startsWith("JAMMI_"));
        Process besides = builder.redirectError(ProcessBuilder.Redirect.DISCARD).start();
        try (OutputStream typed = besides.getOutputStream()) {
            typed.write(stdin.getBytes(StandardCharsets.UTF_8));
        }
        String written = new String(besides.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        if (!besides.waitFor(DEADLINE_SECONDS, TimeUnit.SECONDS) || besides.exitValue() != 0) {
            throw new IOException(command + " failed");
        }
        return written.strip();
    }

    String stderr() throws IOException {
        return Files.readString(log);
    }

    /** The sum of a metric's series that have all of {@code labels}, such as {@code code="OK"}. */
    double metric(String name, String... labels) {
        double sum = 0;
        for (String line : metricsPage().lines().toList()) {
            int value = line.lastIndexOf(' ');
            if (value < 0 || !(line.startsWith(name + " ") || line.startsWith(name + "{"))) {
                continue;
            }
            boolean fits = true;
            for (String label : labels) {
                fits &= line.contains(label);
            }
            sum += fits ? Double.parseDouble(line.substring(value + 1)) : 0;
        }
        return sum;
    }

    private String metricsPage() {
        try {
            HttpRequest request = HttpRequest.newBuilder(metrics).build();
            return http.send(request, HttpResponse.BodyHandlers.ofString()).body();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
    }

    /** Waits until the metric is as wanted, and fails saying what it is. */
    void await(DoublePredicate wanted, String name, String... labels) {
        await(() -> wanted.test(metric(name, labels)), () -> name + " is " + metric(name, labels));
    }

    /** Waits until {@code condition} holds, and fails with {@code says} where it never does. */
    static void await(BooleanSupplier condition, Supplier<String> says) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_SECONDS);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError(says.get());
            }
            try {
                TimeUnit.MILLISECONDS.sleep(20);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException(error);
            }
        }
    }

    /** Asks the server to stop; it has to end in order. */
    @Override
    public void close() throws IOException, InterruptedException {
        process.destroy();
        if (!process.waitFor(DEADLINE_SECONDS, TimeUnit.SECONDS)) {
            process.destroyForcibly();
            throw new AssertionError("the server does not stop:\n" + stderr());
        }
        if (process.exitValue() != 0 || stderr().contains("panicked")) {
            throw new AssertionError("exit code " + process.exitValue() + ":\n" + stderr());
        }
    }
}
