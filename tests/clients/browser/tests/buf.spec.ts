// gRPC tooling: `buf curl` over gRPC and gRPC-Web, by reflection.
import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { create, fromJson, toBinary } from "@bufbuild/protobuf";
import { AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import { FlightDataSchema } from "../page/gen/arrow/flight/protocol/flight_pb.ts";
import { CommandStatementQuerySchema } from "../page/gen/arrow/flight/protocol/sql/flight_sql_pb.ts";
import { batches } from "../page/ipc.ts";
import { ALICE, expect, test } from "./fixtures.ts";

const PROTO = resolve(import.meta.dirname, "../../../../proto");
const BUF = resolve(import.meta.dirname, "../node_modules/.bin/buf");
const SESSIONS = "jammi.v1.session.SessionService";

const FLIGHT = "arrow.flight.protocol.FlightService";

const run = promisify(execFile);

async function curl(protocol: string, url: string, ...more: string[]): Promise<string> {
  const transport = protocol === "grpc" ? ["--http2-prior-knowledge"] : [];
  const { stdout } = await run(BUF, ["curl", "--protocol", protocol, ...transport, ...more, url]);
  return stdout;
}

for (const protocol of ["grpc", "grpcweb"]) {
  // Reflection streams both ways, which gRPC-Web does not have: there the schema comes from `proto/`.
  const schema = protocol === "grpc" ? [] : ["--schema", PROTO];

  test(`buf curl calls by ${protocol}`, { tag: ["@buf:connect", "@buf:session"] }, async ({
    server,
    session,
  }) => {
    const header = ["--header", `jammi-session-id: ${session.session}`, ...schema];
    const bind = JSON.stringify({ tenant: { id: ALICE } });
    const path = `${server.url}/${SESSIONS}`;
    const bound = await curl(protocol, `${path}/SetTenant`, ...header, "--data", bind);
    expect(JSON.parse(bound)).toEqual({ tenant: { id: ALICE } });
    const answer = await curl(protocol, `${path}/GetTenant`, ...header);
    expect(JSON.parse(answer)).toEqual({ tenant: { id: ALICE } });
    const listed = await curl(
      protocol,
      `${server.url}/jammi.v1.catalog.CatalogService/ListSources`,
      ...header,
    );
    expect(JSON.parse(listed).sources.map((source: { name: string }) => source.name)).toContain("notes");
  });

  test(`buf curl tells errors by ${protocol}`, { tag: "@buf:errors" }, async ({ server }) => {
    const data = ["--data", JSON.stringify({ tenant: { id: "nobody" } }), "--header", "jammi-session-id: s"];
    const refused = curl(protocol, `${server.url}/${SESSIONS}/SetTenant`, ...schema, ...data);
    await expect(refused).rejects.toThrow(/invalid_argument[\s\S]*hyphenated UUID/);
  });
}

test("buf curl lists the services and methods", { tag: "@buf:metadata" }, async ({ server }) => {
  const services = (await curl("grpc", server.url, "--list-services")).split("\n");
  expect(services).toContain(SESSIONS);
  expect(services).toContain("jammi.v1.catalog.CatalogService");
  expect(services).toContain("grpc.health.v1.Health");
  expect(services).toContain(FLIGHT);
  const methods = await curl("grpc", server.url, "--list-methods");
  expect(methods).toContain(`${SESSIONS}/SetTenant`);
  expect(methods).toContain(`${FLIGHT}/DoGet`);
});

test("buf curl queries by reflection alone", { tag: "@buf:query" }, async ({ server }) => {
  const command = create(CommandStatementQuerySchema, { query: "SELECT 'found' AS word" });
  const cmd = toBinary(AnySchema, anyPack(CommandStatementQuerySchema, command));
  const descriptor = JSON.stringify({ type: "CMD", cmd: Buffer.from(cmd).toString("base64") });
  const info = JSON.parse(await curl("grpc", `${server.url}/${FLIGHT}/GetFlightInfo`, "--data", descriptor));
  const ticket = JSON.stringify(info.endpoint[0].ticket);
  const answers = await curl("grpc", `${server.url}/${FLIGHT}/DoGet`, "--data", ticket);
  async function* messages() {
    for (const answer of answers.split(/^(?=\{)/m)) {
      yield fromJson(FlightDataSchema, JSON.parse(answer));
    }
  }
  const rows: unknown[] = [];
  for await (const batch of batches(messages())) {
    rows.push(...batch.toArray().map((row) => row.toJSON()));
  }
  expect(rows).toEqual([{ word: "found" }]);
});
