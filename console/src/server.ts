// The server as this page sees it: one session, three services, all by gRPC-Web.
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { RecordBatch, Schema } from "apache-arrow";
import { FlightDescriptor_DescriptorType, FlightService } from "./gen/arrow/flight/protocol/flight_pb.ts";
import { CommandStatementQuerySchema } from "./gen/arrow/flight/protocol/sql/flight_sql_pb.ts";
import { CatalogService, type Source, type Table } from "./gen/jammi/v1/catalog/catalog_pb.ts";
import { SessionService } from "./gen/jammi/v1/session/session_pb.ts";
import { batches } from "./ipc.ts";

/** The port of `jammi serve` unless it is told another; for Vite's own server. */
const DEFAULT_PORT = "50051";

/** What a session sees. */
export interface Catalog {
  sources: Source[];
  tables: Table[];
}

/** Where gRPC-Web is: where the server wrote into the page, else on this page's host at the port that it wrote. */
export function grpcUrl(): string {
  const written = (name: string) =>
    document.querySelector<HTMLMetaElement>(`meta[name="jammi-grpc-${name}"]`)?.content ?? "";
  const url = written("url");
  if (/^https?:\/\//.test(url)) {
    return url;
  }
  const port = /^\d+$/.test(written("port")) ? written("port") : DEFAULT_PORT;
  return `${location.protocol}//${location.hostname}:${port}`;
}

/** A name that no other page has: a copy of this tab is a session of its own. */
function newSession(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** One session of the server. */
export class Server {
  private readonly named: Interceptor;
  private readonly sessions;
  private readonly catalogs;
  private readonly flight;

  /** What every call is signed with. The page's memory alone holds it. */
  private key: string | null = null;

  /** `onRefused` is told of a call that carried no credential, or one that is not accepted. */
  constructor(
    readonly url: string,
    onRefused: () => void,
  ) {
    const session = newSession();
    this.named = (next) => async (request) => {
      request.header.set("jammi-session-id", session);
      if (this.key !== null) {
        request.header.set("authorization", `Bearer ${this.key}`);
      }
      try {
        return await next(request);
      } catch (error) {
        if (ConnectError.from(error).code === Code.Unauthenticated) {
          onRefused();
        }
        throw error;
      }
    };
    const transport = createGrpcWebTransport({ baseUrl: url, interceptors: [this.named] });
    this.sessions = createClient(SessionService, transport);
    this.catalogs = createClient(CatalogService, transport);
    this.flight = createClient(FlightService, transport);
  }

  /** Signs the calls from now on. */
  sign(key: string): void {
    this.key = key;
  }

  /** Binds the session, and answers the tenant as the server spells it. */
  async bind(tenant: string): Promise<string> {
    const answer = await this.sessions.setTenant({ tenant: { id: tenant } });
    return answer.tenant?.id ?? tenant;
  }

  async unbind(): Promise<void> {
    await this.sessions.clearTenant({});
  }

  /** The tenant that the session is bound to. */
  async tenant(): Promise<string | null> {
    const answer = await this.sessions.getTenant({});
    return answer.tenant?.id ?? null;
  }

  /** Unbinds with the last breath of the page. */
  leave(): void {
    const outliving: typeof fetch = (input, init) => fetch(input, { ...init, keepalive: true });
    const transport = createGrpcWebTransport({
      baseUrl: this.url,
      interceptors: [this.named],
      fetch: outliving,
    });
    // Nobody is left to be told.
    createClient(SessionService, transport)
      .clearTenant({})
      .catch(() => undefined);
  }

  async catalog(): Promise<Catalog> {
    const [{ sources }, { tables }] = await Promise.all([
      this.catalogs.listSources({}),
      this.catalogs.listTables({}),
    ]);
    return { sources, tables };
  }

  /** The schema of a statement's rows, then its batches. Who leaves the loop stops the statement. */
  async *run(
    query: string,
    signal: AbortSignal,
    onBytes: (bytes: number) => void,
  ): AsyncGenerator<Schema | RecordBatch> {
    const left = new AbortController();
    const either = { signal: AbortSignal.any([signal, left.signal]) };
    const cmd = packed(CommandStatementQuerySchema, { query });
    const info = await this.flight.getFlightInfo({ type: FlightDescriptor_DescriptorType.CMD, cmd }, either);
    try {
      for (const { ticket } of info.endpoint) {
        yield* batches(this.flight.doGet(ticket ?? {}, either), onBytes);
      }
    } finally {
      left.abort();
    }
  }
}

function packed<Command extends DescMessage>(schema: Command, init: MessageInitShape<Command>): Uint8Array {
  return toBinary(AnySchema, anyPack(schema, create(schema, init)));
}

/** What is shown of a failure. */
export interface Failure {
  title: string;
  text: string;
  /** What the server's log calls the request. */
  requestId: string | null;
  cancelled: boolean;
}

/** A failure of any call, in words. */
export function failure(error: unknown, url: string): Failure {
  const { code, rawMessage, metadata, cause } = ConnectError.from(error);
  const requestId = metadata.get("x-request-id");
  const cancelled = code === Code.Canceled || (error instanceof DOMException && error.name === "AbortError");
  if (code === Code.Unknown && cause instanceof TypeError && requestId === null) {
    return {
      title: "The server cannot be reached",
      text: `No answer from ${url}. It may have stopped, its port may not be open to this machine, or it may not allow pages of ${location.origin}: the operator lists origins in server.allowed_origins.`,
      requestId,
      cancelled,
    };
  }
  const name = Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, " ");
  const title = name.charAt(0) + name.slice(1).toLowerCase();
  return { title, text: rawMessage, requestId, cancelled };
}
