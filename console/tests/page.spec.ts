// The page itself: who may have it, what it may do, and whether everybody can use it.
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { AxeBuilder } from "@axe-core/playwright";
import { ALICE, expect, Server, Tab, test } from "./fixtures.ts";

test("the page is served with a strict policy, and asks nobody else", async ({ tab, server }) => {
  const page = await fetch(`${server.http}/console/`);
  const policy = page.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
  expect(policy).toContain(`connect-src ${server.url} `);
  expect(policy).not.toMatch(/unsafe|\*/);
  expect(page.headers.get("x-content-type-options")).toBe("nosniff");
  expect(await page.text()).toContain(`content="${new URL(server.url).port}"`);
  // Nothing that it does is against its policy: `tab` fails on what is.
  await tab.bind(ALICE);
  await tab.ran("SELECT title, id FROM notes.public.notes");
  await tab.page.getByRole("tab", { name: "Chart" }).click();
  await expect(tab.page.locator("canvas")).toBeVisible();
});

test("the root leads to the console, and other pages are as they were", async ({ server }) => {
  const root = await fetch(`${server.http}/`);
  expect(root.url).toBe(`${server.http}/console/`);
  expect((await fetch(`${server.http}/console`)).url).toBe(`${server.http}/console/`);
  expect((await fetch(`${server.http}/healthz`)).status).toBe(200);
  for (const path of [
    "/console/assets/nothing.js",
    "/console/assets/../index.html",
    "/console/.gitignore",
    "/nope",
  ]) {
    expect((await fetch(server.http + path)).status, path).toBe(404);
  }
});

test("what others wrote of the page is there with its licences", async ({ tab, server }) => {
  const link = tab.page.getByRole("link", { name: "Licences" });
  await expect(link).toHaveAttribute("href", "licenses.txt");
  const answer = await fetch(`${server.http}/console/licenses.txt`);
  expect(answer.headers.get("content-type")).toBe("text/plain; charset=utf-8");
  const text = await answer.text();
  const declared = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  for (const [name, version] of Object.entries(declared.dependencies)) {
    expect(text).toContain(`## ${name} - ${version} (`);
  }
  expect(text).toContain("Apache License");
});

test("the page works by each name of this machine, and by no other", async ({ context, server }) => {
  const tab = await Tab.open(context, server);
  await tab.page.goto(`${server.http.replace("127.0.0.1", "localhost")}/console/`);
  await expect(tab.catalog.getByText("notes")).toBeVisible();
  // Whoever owns a name may let it mean this machine.
  const asked = await fetch(`${server.url}/jammi.v1.session.SessionService/GetTenant`, {
    method: "POST",
    headers: {
      "content-type": "application/grpc-web+proto",
      origin: server.http.replace("127.0.0.1", "evil.example"),
    },
    body: new Uint8Array(5),
  });
  expect(asked.status).toBe(403);
});

test("behind a proxy, the page calls where it is told to", async ({ page }) => {
  let target = 0;
  const proxy = createServer((client) => {
    const behind = connect(target, "127.0.0.1");
    client.on("error", () => behind.destroy()).pipe(behind);
    behind.on("error", () => client.destroy()).pipe(client);
  });
  await new Promise<void>((listening) => proxy.listen(0, "127.0.0.1", listening));
  const url = `http://localhost:${(proxy.address() as AddressInfo).port}`;
  const server = await Server.start({ JAMMI_CONSOLE__ENABLED: "true", JAMMI_CONSOLE__GRPC_URL: url });
  try {
    target = Number(new URL(server.url).port);
    const called: string[] = [];
    page.on("request", (request) => called.push(new URL(request.url()).origin));
    const answer = await page.goto(`${server.http}/console/`);
    const policy = (await answer?.headerValue("content-security-policy")) ?? "";
    expect(policy).toContain(`connect-src ${url};`);
    await expect(page.getByRole("navigation", { name: "Catalog" }).getByText("notes")).toBeVisible();
    expect([...new Set(called)].sort()).toEqual([new URL(server.http).origin, url].sort());
  } finally {
    await server.stop();
    proxy.close();
  }
});

test("there is no console unless it is asked for", async () => {
  const server = await Server.start();
  try {
    for (const path of ["/", "/console", "/console/"]) {
      expect((await fetch(server.http + path)).status).toBe(404);
    }
    const asked = await fetch(`${server.url}/jammi.v1.session.SessionService/GetTenant`, {
      method: "POST",
      headers: { "content-type": "application/grpc-web+proto", origin: server.http },
      body: new Uint8Array(5),
    });
    expect(asked.status).toBe(403);
    expect(await server.log()).not.toContain("console");
  } finally {
    await server.stop();
  }
});

test("a server that went away is told in words", { tag: "@errors" }, async ({ context }) => {
  const server = await Server.start({ JAMMI_CONSOLE__ENABLED: "true" });
  expect(await server.log()).toContain(`the console is at ${server.http}/console/`);
  const tab = await Tab.open(context, server);
  await server.stop();
  await tab.run("SELECT 1");
  await expect(tab.page.getByRole("alert").filter({ hasText: "cannot be reached" })).toContainText(
    server.url,
  );
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`the page is accessible, ${colorScheme}`, async ({ browser, server }) => {
    const context = await browser.newContext({ colorScheme });
    const tab = await Tab.open(context, server);
    const check = async (what: string) => {
      const { violations } = await new AxeBuilder({ page: tab.page }).analyze();
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
      expect(found, what).toEqual([]);
    };
    await tab.bind(ALICE);
    await tab.catalog.getByText("notes").click();
    await tab.ran("SELECT value, CASE WHEN value > 3 THEN 'x' END AS x FROM generate_series(1, 100)");
    await check("rows");
    await tab.page.getByRole("tab", { name: "Chart" }).click();
    await check("chart");
    await tab.page.getByRole("button", { name: "Explain" }).click();
    await expect(tab.page.getByRole("region", { name: "Plan" })).toBeVisible();
    await check("plan");
    await tab.run("SELECT nothing");
    await expect(tab.page.getByRole("alert").filter({ hasText: "nothing" })).toBeVisible();
    await check("error");
    await context.close();
  });
}
