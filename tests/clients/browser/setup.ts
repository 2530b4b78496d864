// Builds the page, and serves it from ports of its own: other origins than the server's.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build, preview } from "vite";

export default async function setup() {
  const root = join(import.meta.dirname, "page");
  const outDir = await mkdtemp(join(tmpdir(), "jammi-page-"));
  const common = { root, configFile: false as const, logLevel: "warn" as const };
  await build({ ...common, build: { outDir, emptyOutDir: true, target: "esnext" } });
  const site = await preview({ ...common, build: { outDir }, preview: { host: "127.0.0.1", port: 0 } });
  const address = site.httpServer.address();
  if (address === null || typeof address === "string") {
    throw new Error("the page is not served on a port");
  }
  process.env.PAGE_ORIGIN = `http://127.0.0.1:${address.port}`;
  return async () => {
    await site.close();
    await rm(outDir, { recursive: true });
  };
}
