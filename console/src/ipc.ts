// From Flight's messages to the Arrow IPC stream that apache-arrow reads.
import { type RecordBatch, RecordBatchReader, type Schema } from "apache-arrow";
import type { FlightData } from "./gen/arrow/flight/protocol/flight_pb.ts";

const CONTINUATION = 0xffffffff;
const PREFIX_BYTES = 8;
const END_OF_STREAM = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0);

function framed(header: Uint8Array): Uint8Array {
  const length = (header.length + 7) & ~7;
  const message = new Uint8Array(PREFIX_BYTES + length);
  const view = new DataView(message.buffer);
  view.setUint32(0, CONTINUATION, true);
  view.setInt32(4, length, true);
  message.set(header, PREFIX_BYTES);
  return message;
}

async function* stream(messages: AsyncIterable<FlightData>, onBytes: (bytes: number) => void) {
  for await (const { dataHeader, dataBody } of messages) {
    if (dataHeader.length === 0) {
      continue;
    }
    onBytes(dataHeader.length + dataBody.length);
    yield framed(dataHeader);
    if (dataBody.length > 0) {
      yield dataBody;
    }
  }
  yield END_OF_STREAM;
}

/** The schema of a DoGet, then its record batches, each as it arrives. */
export async function* batches(
  messages: AsyncIterable<FlightData>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Schema | RecordBatch> {
  const reader = await RecordBatchReader.from(stream(messages, onBytes));
  await reader.open({ autoDestroy: false });
  yield reader.schema;
  for await (const batch of reader) {
    yield batch;
  }
}
