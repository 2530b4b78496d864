import { defineConfig } from "@playwright/test";
import { DEADLINE_MS } from "../tests/clients/browser/serving.ts";

export default defineConfig({
  testDir: "tests",
  forbidOnly: true,
  workers: 2,
  timeout: DEADLINE_MS,
  expect: { timeout: DEADLINE_MS / 2 },
  reporter: [["list"], ["../tests/clients/browser/features.ts", { client: "console" }]],
  use: {
    browserName: "chromium",
    viewport: { width: 1280, height: 800 },
    launchOptions: { executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] },
  },
});
