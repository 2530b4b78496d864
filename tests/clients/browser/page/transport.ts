// gRPC-Web from a page. connect-web refuses calls that stream requests, since
// browsers send a body only whole over HTTP/1.1; what is collected first, such
// as the parameters of a statement, can be sent all the same.
import type { Interceptor, Transport } from "@connectrpc/connect";
import { type UniversalClientRequest, universalClientResponseFromFetch } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-grpc-web";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const MESSAGE_BYTES_MAX = 16 << 20;

async function send(request: UniversalClientRequest) {
  const parts: BlobPart[] = [];
  for await (const part of request.body ?? []) {
    parts.push(part as Uint8Array<ArrayBuffer>);
  }
  const answer = await fetch(request.url, {
    method: request.method,
    headers: request.header,
    signal: request.signal ?? null,
    body: new Blob(parts),
  });
  return universalClientResponseFromFetch(answer);
}

/** How every call is made but those that stream requests. */
export function streaming(baseUrl: string, interceptors: Interceptor[]): Transport {
  return createGrpcWebTransport({ baseUrl, interceptors });
}

/** How calls are made that stream requests: all of them, then the answers. */
export function collecting(baseUrl: string, interceptors: Interceptor[]): Transport {
  return createTransport({
    baseUrl,
    interceptors,
    httpClient: send,
    useBinaryFormat: true,
    acceptCompression: [],
    sendCompression: null,
    compressMinBytes: Number.MAX_SAFE_INTEGER,
    readMaxBytes: MESSAGE_BYTES_MAX,
    writeMaxBytes: MESSAGE_BYTES_MAX,
  });
}
