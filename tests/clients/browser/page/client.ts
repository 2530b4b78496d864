// A client as an application writes one: generated stubs, connect-web and apache-arrow.
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { AnySchema, anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Client as Calls, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { type RecordBatch, Table } from "apache-arrow";
import {
  FlightDescriptor_DescriptorType,
  FlightDescriptorSchema,
  type FlightInfo,
  FlightService,
  type PutResult,
} from "./gen/arrow/flight/protocol/flight_pb.ts";
import * as sql from "./gen/arrow/flight/protocol/sql/flight_sql_pb.ts";
import { CatalogService } from "./gen/jammi/v1/catalog/catalog_pb.ts";
import { SessionService } from "./gen/jammi/v1/session/session_pb.ts";
import { batches, messages } from "./ipc.ts";
import { collecting, streaming } from "./transport.ts";

export type Row = Record<string, unknown>;

interface Options {
  transaction?: Uint8Array;
  signal?: AbortSignal;
}

function within(transaction: Uint8Array | undefined) {
  return transaction === undefined ? {} : { transactionId: transaction };
}

/** A prepared statement. */
interface Prepared {
  handle: Uint8Array;
  result: sql.ActionCreatePreparedStatementResult;
}

/** One session of the server at `url`, as the holder of `token`. */
export class Client {
  readonly sessions: Calls<typeof SessionService>;
  readonly catalog: Calls<typeof CatalogService>;
  readonly flight: Calls<typeof FlightService>;
  private readonly uploads: Calls<typeof FlightService>;

  constructor(url: string, session: string | undefined, token?: string) {
    const named: Interceptor = (next) => (request) => {
      if (session !== undefined) {
        request.header.set("jammi-session-id", session);
      }
      if (token !== undefined) {
        request.header.set("authorization", `Bearer ${token}`);
      }
      return next(request);
    };
    const transport = streaming(url, [named]);
    this.sessions = createClient(SessionService, transport);
    this.catalog = createClient(CatalogService, transport);
    this.flight = createClient(FlightService, transport);
    this.uploads = createClient(FlightService, collecting(url, [named]));
  }

  /** Binds the session, and answers the tenant as the server spells it. */
  async bind(tenant: string): Promise<string | undefined> {
    return (await this.sessions.setTenant({ tenant: { id: tenant } })).tenant?.id;
  }

  async bound(): Promise<string | undefined> {
    return (await this.sessions.getTenant({})).tenant?.id;
  }

  /** The batches of a statement, each as it arrives. */
  async *stream(query: string, options: Options = {}): AsyncGenerator<RecordBatch> {
    const command = packed(sql.CommandStatementQuerySchema, { query, ...within(options.transaction) });
    yield* this.fetch(await this.info(command, options), options);
  }

  async rows(query: string, options: Options = {}): Promise<Row[]> {
    return collected(this.stream(query, options));
  }

  /** The rows of a metadata command, such as CommandGetTables. */
  async metadata<Command extends DescMessage>(
    schema: Command,
    init: MessageInitShape<Command>,
  ): Promise<Row[]> {
    return collected(this.fetch(await this.info(packed(schema, init)), {}));
  }

  async sqlInfo(info: number[]): Promise<Row[]> {
    return this.metadata(sql.CommandGetSqlInfoSchema, { info });
  }

  async tables(): Promise<Row[]> {
    return this.metadata(sql.CommandGetTablesSchema, {});
  }

  async primaryKeys(table: string): Promise<Row[]> {
    return this.metadata(sql.CommandGetPrimaryKeysSchema, { table });
  }

  async begin(): Promise<Uint8Array> {
    const answer = await this.act(
      "BeginTransaction",
      packed(sql.ActionBeginTransactionRequestSchema, {}),
      sql.ActionBeginTransactionResultSchema,
    );
    return answer.transactionId;
  }

  async end(transactionId: Uint8Array, how: "COMMIT" | "ROLLBACK"): Promise<void> {
    const action = sql.ActionEndTransactionRequest_EndTransaction[how];
    const body = packed(sql.ActionEndTransactionRequestSchema, { transactionId, action });
    for await (const _ of this.flight.doAction({ type: "EndTransaction", body })) {
      // Nothing is answered.
    }
  }

  async prepare(query: string): Promise<Prepared> {
    const result = await this.act(
      "CreatePreparedStatement",
      packed(sql.ActionCreatePreparedStatementRequestSchema, { query }),
      sql.ActionCreatePreparedStatementResultSchema,
    );
    return { handle: result.preparedStatementHandle, result };
  }

  /** The rows of a prepared query with one row of parameters. */
  async execute(prepared: Prepared, parameters: Table): Promise<Row[]> {
    const command = (preparedStatementHandle: Uint8Array) =>
      packed(sql.CommandPreparedStatementQuerySchema, { preparedStatementHandle });
    const [answer] = await this.put(command(prepared.handle), parameters);
    const bound = answer && fromBinary(sql.DoPutPreparedStatementResultSchema, answer.appMetadata);
    const handle = bound?.preparedStatementHandle ?? prepared.handle;
    return collected(this.fetch(await this.info(command(handle)), {}));
  }

  /** Runs a prepared update for every row of parameters; how many rows it wrote. */
  async update(prepared: Prepared, parameters: Table): Promise<number> {
    const command = packed(sql.CommandPreparedStatementUpdateSchema, {
      preparedStatementHandle: prepared.handle,
    });
    return written(await this.put(command, parameters));
  }

  /** Adds the rows to a table that exists; how many were added. */
  async ingest(table: string, rows: Table): Promise<number> {
    const { TableNotExistOption, TableExistsOption } = {
      TableNotExistOption: sql.CommandStatementIngest_TableDefinitionOptions_TableNotExistOption,
      TableExistsOption: sql.CommandStatementIngest_TableDefinitionOptions_TableExistsOption,
    };
    const command = packed(sql.CommandStatementIngestSchema, {
      table,
      tableDefinitionOptions: {
        ifNotExist: TableNotExistOption.FAIL,
        ifExists: TableExistsOption.APPEND,
      },
    });
    return written(await this.put(command, rows));
  }

  private async info(cmd: Uint8Array, { signal }: Options = {}): Promise<FlightInfo> {
    return this.flight.getFlightInfo(
      { type: FlightDescriptor_DescriptorType.CMD, cmd },
      signal === undefined ? {} : { signal },
    );
  }

  private async *fetch(info: FlightInfo, { signal }: Options): AsyncGenerator<RecordBatch> {
    // Who leaves the loop early has to abort the call: no iterator does it by itself.
    const left = new AbortController();
    const signals = signal === undefined ? [left.signal] : [left.signal, signal];
    try {
      for (const { ticket } of info.endpoint) {
        yield* batches(this.flight.doGet(ticket ?? {}, { signal: AbortSignal.any(signals) }));
      }
    } finally {
      left.abort();
    }
  }

  private async put(cmd: Uint8Array, table: Table): Promise<PutResult[]> {
    const [schema, ...rest] = messages(table);
    const flightDescriptor = create(FlightDescriptorSchema, {
      type: FlightDescriptor_DescriptorType.CMD,
      cmd,
    });
    async function* sent() {
      if (schema !== undefined) {
        yield { ...schema, flightDescriptor };
      }
      yield* rest;
    }
    return Array.fromAsync(this.uploads.doPut(sent()));
  }

  private async act<Answer extends DescMessage>(type: string, body: Uint8Array, schema: Answer) {
    for await (const result of this.flight.doAction({ type, body })) {
      const answer = anyUnpack(fromBinary(AnySchema, result.body), schema);
      if (answer !== undefined) {
        return answer;
      }
    }
    throw new Error(`${type} answered nothing`);
  }
}

/** Code and text of a failed call, as a page would show them. */
export function failure(error: unknown): { code: number; text: string } {
  const { code, rawMessage } = ConnectError.from(error);
  return { code, text: rawMessage };
}

function packed<Command extends DescMessage>(schema: Command, init: MessageInitShape<Command>): Uint8Array {
  return toBinary(AnySchema, anyPack(schema, create(schema, init)));
}

function written(answers: PutResult[]): number {
  const counts = answers.map((answer) => fromBinary(sql.DoPutUpdateResultSchema, answer.appMetadata));
  return counts.reduce((sum, { recordCount }) => sum + Number(recordCount), 0);
}

async function collected(stream: AsyncIterable<RecordBatch>): Promise<Row[]> {
  const found = await Array.fromAsync(stream);
  return found.length === 0 ? [] : new Table(found).toArray().map((row) => row.toJSON());
}
