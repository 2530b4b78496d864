// Between Flight's messages and the Arrow IPC stream that apache-arrow reads and writes.
import { create } from "@bufbuild/protobuf";
import { Message, type RecordBatch, RecordBatchReader, type Table, tableToIPC } from "apache-arrow";
import { type FlightData, FlightDataSchema } from "./gen/arrow/flight/protocol/flight_pb.ts";

// What an encapsulated message starts with; its header's length follows.
const CONTINUATION = 0xffffffff;
const PREFIX_BYTES = 8;
const END_OF_STREAM = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0);

function padded(length: number): number {
  return (length + 7) & ~7;
}

async function* stream(messages: AsyncIterable<FlightData>): AsyncGenerator<Uint8Array> {
  for await (const { dataHeader, dataBody } of messages) {
    if (dataHeader.length === 0) {
      continue;
    }
    const framed = new Uint8Array(PREFIX_BYTES + padded(dataHeader.length));
    const view = new DataView(framed.buffer);
    view.setUint32(0, CONTINUATION, true);
    view.setInt32(4, padded(dataHeader.length), true);
    framed.set(dataHeader, PREFIX_BYTES);
    yield framed;
    if (dataBody.length > 0) {
      yield dataBody;
    }
  }
  yield END_OF_STREAM;
}

/** The record batches of a DoGet, each as it arrives. */
export async function* batches(messages: AsyncIterable<FlightData>): AsyncGenerator<RecordBatch> {
  const reader = await RecordBatchReader.from(stream(messages));
  await reader.open({ autoDestroy: false });
  for await (const batch of reader) {
    yield batch;
  }
}

/** The messages of a DoPut that sends `table`, its schema first. */
export function messages(table: Table): FlightData[] {
  const ipc = tableToIPC(table, "stream");
  const view = new DataView(ipc.buffer, ipc.byteOffset, ipc.byteLength);
  const found: FlightData[] = [];
  for (let at = 0; at < ipc.length; ) {
    const length = view.getInt32(at + 4, true);
    if (length === 0) {
      break;
    }
    const header = ipc.slice(at + PREFIX_BYTES, at + PREFIX_BYTES + length);
    const body = at + PREFIX_BYTES + length;
    const end = body + Message.decode(header).bodyLength;
    found.push(create(FlightDataSchema, { dataHeader: header, dataBody: ipc.slice(body, end) }));
    at = end;
  }
  return found;
}
