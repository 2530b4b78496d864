import { defineConfig } from "@playwright/test";
import { DEADLINE_MS } from "./serving.ts";

export default defineConfig({
  testDir: "tests",
  forbidOnly: true,
  workers: 2,
  timeout: DEADLINE_MS,
  expect: { timeout: DEADLINE_MS / 2 },
  globalSetup: "./setup.ts",
  reporter: [["list"], ["./features.ts", { client: "browser" }]],
  use: {
    browserName: "chromium",
    launchOptions: { executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] },
  },
});
