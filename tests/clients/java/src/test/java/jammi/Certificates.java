package jammi;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** An authority of certificates, by the JDK's keytool, in files of {@code directory}. */
final class Certificates {
    private static final String SECRET = "of-a-test";

    /** The root's certificate, in PEM. */
    final Path root;

    private final Path directory;

    Certificates(Path directory) throws IOException, InterruptedException {
        this.directory = directory;
        root = directory.resolve("root.pem");
        keytool("-genkeypair", "-alias", "authority", "-keyalg", "RSA", "-keysize", "2048", "-dname",
                "CN=authority", "-ext", "bc:c", "-ext", "KU=keyCertSign,cRLSign");
        keytool("-exportcert", "-rfc", "-alias", "authority", "-file", root.toString());
    }

    /** The files of a certificate, in PEM, and of its private key. */
    record Issued(Path certificate, Path key) {}

    Issued issue(String name) throws IOException, InterruptedException, GeneralSecurityException {
        Path request = directory.resolve(name + ".csr");
        Issued issued = new Issued(directory.resolve(name + ".pem"), directory.resolve(name + ".key"));
        keytool("-genkeypair", "-alias", name, "-keyalg", "RSA", "-keysize", "2048", "-dname", "CN=" + name);
        keytool("-certreq", "-alias", name, "-file", request.toString());
        keytool("-gencert", "-rfc", "-alias", "authority", "-infile", request.toString(), "-outfile",
                issued.certificate.toString(), "-ext", "san=dns:localhost,ip:127.0.0.1");
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream file = Files.newInputStream(directory.resolve("store.p12"))) {
            store.load(file, SECRET.toCharArray());
        }
        byte[] key = store.getKey(name, SECRET.toCharArray()).getEncoded();
        String lines = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(key);
        Files.writeString(issued.key, "-----BEGIN PRIVATE KEY-----\n" + lines + "\n-----END PRIVATE KEY-----\n");
        return issued;
    }

    private void keytool(String... words) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "keytool").toString());
        command.addAll(List.of(words));
        command.addAll(List.of("-keystore", directory.resolve("store.p12").toString(), "-storetype", "PKCS12",
                "-storepass", SECRET));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        if (!process.waitFor(Server.DEADLINE_SECONDS, TimeUnit.SECONDS) || process.exitValue() != 0) {
            throw new IOException("keytool: " + said);
        }
    }
}
