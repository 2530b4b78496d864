// A certificate of the server's, by an authority of a test's own, and what has a browser know that authority.
import { execFileSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";

export class Certificates {
  private readonly directory = mkdtempSync(join(tmpdir(), "jammi-certificates-"));

  constructor() {
    const usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign"];
    this.openssl(
      "req",
      "-x509",
      ...KEY,
      "-keyout",
      "root.key",
      "-out",
      "root.pem",
      "-subj",
      "/CN=root",
      ...usage,
    );
    this.openssl("req", "-new", ...KEY, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server");
    writeFileSync(this.file("names"), NAMES);
    const root = ["-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "7", "-extfile", "names"];
    this.openssl("x509", "-req", "-in", "server.csr", "-out", "own.pem", "-days", "30", ...root);
    // With the root, since browsers are told of that.
    writeFileSync(this.file("server.pem"), this.read("own.pem") + this.read("root.pem"));
  }

  private openssl(...words: string[]): void {
    execFileSync("openssl", words, { cwd: this.directory, stdio: ["ignore", "pipe", "pipe"] });
  }

  private file(name: string): string {
    return join(this.directory, name);
  }

  private read(name: string): string {
    return readFileSync(this.file(name), "utf8");
  }

  /** What has a server encrypt both of its ports. */
  settings(): Record<string, string> {
    return {
      JAMMI_TLS__CERTIFICATE_FILE: this.file("server.pem"),
      JAMMI_TLS__PRIVATE_KEY_FILE: this.file("server.key"),
      JAMMI_TLS__HTTP: "true",
    };
  }

  /** How to launch a browser that trusts what has the root, as one in whose store it is. */
  trusted() {
    const root = new X509Certificate(this.read("root.pem"));
    const key = root.publicKey.export({ type: "spki", format: "der" });
    const digest = createHash("sha256").update(key).digest("base64");
    return {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${digest}`],
    };
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}
