// The real server, as a process of its own on free loopback ports, with its data in a temporary directory.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const ROOT = resolve(import.meta.dirname, "../../..");
export const JAMMI = process.env.JAMMI_BIN ?? join(ROOT, "target/debug/jammi");

/** Far beyond what anything takes on a loaded machine: what takes longer hangs. */
export const DEADLINE_MS = 120_000;

/** This process's environment without what configures Jammi. */
function environment(more: Record<string, string>): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(JAMMI|AWS)_/.test(name));
  return { ...Object.fromEntries(kept), RUST_BACKTRACE: "0", ...more };
}

/** What the command writes to stdout. */
export function jammi(...words: string[]): string {
  return execFileSync(JAMMI, words, {
    encoding: "utf8",
    env: environment({}),
    stdio: ["ignore", "pipe", "pipe"],
  });
}

export class Server {
  private constructor(
    private readonly process: ChildProcess,
    private readonly directory: string,
    /** Where gRPC-Web is served. */
    readonly url: string,
    /** Where health, metrics and the console are. */
    readonly http: string,
  ) {}

  /** Starts `jammi serve` with the sample, and with the settings `env`. */
  static async start(env: Record<string, string> = {}, flags = ["--sample"]): Promise<Server> {
    const directory = await mkdtemp(join(tmpdir(), "jammi-browser-"));
    const ports = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    const started = spawn(JAMMI, ["serve", "--artifact-dir", join(directory, "data"), ...ports, ...flags], {
      cwd: directory,
      env: environment(env),
      stdio: ["ignore", "pipe", "pipe"],
    });
    started.stderr.pipe(createWriteStream(join(directory, "log")));
    const found: string[] = [];
    for await (const line of createInterface(started.stdout)) {
      found.push(
        line.replace(/^listening (grpc|http):/, "http:").replace(/^listening (grpc\+tls|https):/, "https:"),
      );
      if (found.length === 2) {
        break;
      }
    }
    const [url, http] = found;
    if (url === undefined || http === undefined) {
      throw new Error(`${JAMMI} did not start: ${await readFile(join(directory, "log"), "utf8")}`);
    }
    started.stdout.resume();
    return new Server(started, directory, url, http);
  }

  /** The directory that the server works on. */
  get data(): string {
    return join(this.directory, "data");
  }

  get address(): string {
    return new URL(this.url).host;
  }

  /** What the server wrote to stderr so far. */
  log(): Promise<string> {
    return readFile(join(this.directory, "log"), "utf8");
  }

  /** A metric's value, by name and labels as in `jammi_connections{port="grpc"}`. */
  async metric(series: string): Promise<number> {
    const page = await (await fetch(`${this.http}/metrics`)).text();
    const line = page.split("\n").find((line) => line.startsWith(`${series} `));
    return line === undefined ? 0 : Number(line.slice(series.length));
  }

  /** Asks the server to stop; it has to end in order. */
  async stop(): Promise<void> {
    const ended = once(this.process, "close");
    this.process.kill("SIGTERM");
    const [code] = await ended;
    const log = await this.log();
    await rm(this.directory, { recursive: true });
    if (code !== 0 || log.includes("panicked")) {
      throw new Error(`exit code ${code}:\n${log}`);
    }
  }
}
