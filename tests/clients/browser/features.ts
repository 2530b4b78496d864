// Appends what works to the file that JAMMI_FEATURES names, one JSON object a line: a feature works if every
// test that is tagged with it passed. A tag `@buf:query` is of the client `buf`.
import { appendFileSync } from "node:fs";
import type { Reporter, TestCase, TestResult } from "@playwright/test/reporter";

export default class Features implements Reporter {
  private readonly passed = new Map<string, boolean>();

  constructor(private readonly options: { client: string }) {}

  onTestEnd(test: TestCase, result: TestResult): void {
    for (const tag of test.tags) {
      this.passed.set(tag, (this.passed.get(tag) ?? true) && result.status === "passed");
    }
  }

  onEnd(): void {
    const file = process.env.JAMMI_FEATURES;
    if (!file) {
      return;
    }
    for (const [tag, passed] of this.passed) {
      const [client, feature] = tag.includes(":")
        ? tag.slice(1).split(":")
        : [this.options.client, tag.slice(1)];
      appendFileSync(file, `${JSON.stringify({ client, feature, passed })}\n`);
    }
  }
}
