//! Listening sockets and the connections they accept.
//!
//! Invariant: a connection that is accepted is counted until it is dropped, and
//! ends when the server closes it, whatever its client does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use super::held_writes::HeldWrites;
use crate::config::ServerConfig;
use crate::error::{Error, Result};

/// How long to wait after a failed accept, which is most often a lack of file
/// descriptors that a connection's end will free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The preface of HTTP/2, by which the protocol of a connection is told.
const FIRST_BYTES: usize = 24;

/// A connection, among all that the process has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// One that no other connection has.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        ConnectionId(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a request tells of its connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionInfo {
    pub id: ConnectionId,
    pub tcp: TcpConnectInfo,
}

/// Told of each connection that has ended.
pub(super) type OnEnd = Arc<dyn Fn(ConnectionId) + Send + Sync>;

/// A port that the server listens on.
pub(super) struct Port {
    name: &'static str,
    listener: TcpListener,
    connections: Arc<Semaphore>,
    connections_max: usize,
    full: bool,
    first_bytes_timeout: Duration,
    closing: CancellationToken,
    on_end: Option<OnEnd>,
}

impl Port {
    /// Listens on `address`, the value of the setting `key`, which `flag` sets
    /// too. `name` is the port's in metrics.
    pub async fn bind(
        name: &'static str,
        address: &str,
        (key, flag): (&str, &str),
        limits: &ServerConfig,
    ) -> Result<Port> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let mend =
                format!("set {key} ({flag}) to another HOST:PORT, where port 0 takes a free one");
            Error::FailedPrecondition(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "cannot listen on {address}, which is in use: stop the program that uses it, \
                     or {mend}"
                ),
                _ => format!("cannot listen on {address} ({error}): {mend}"),
            })
        })?;
        Ok(Port {
            name,
            listener,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            connections_max: limits.connections_max,
            full: false,
            first_bytes_timeout: Duration::from_millis(limits.first_bytes_timeout_ms),
            closing: CancellationToken::new(),
            on_end: None,
        })
    }

    /// Tells `on_end` of every connection that ends.
    pub fn on_end(mut self, on_end: OnEnd) -> Self {
        self.on_end = Some(on_end);
        self
    }

    /// The address, with the port that was taken where 0 was asked for.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|error| Error::internal("the listening address cannot be told", error))
    }

    /// Ends every connection of this port when it is cancelled.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// The connections, for as long as the stream is kept.
    pub fn connections(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        futures::stream::unfold(self, |mut port| async move {
            let connection = port.accept().await;
            Some((Ok(connection), port))
        })
    }

    async fn accept(&mut self) -> Connection {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(port = self.name, %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            match Arc::clone(&self.connections).try_acquire_owned() {
                Ok(permit) => {
                    self.full = false;
                    // Answers are written whole: waiting for more to send
                    // would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        warn!(%error, "nodelay was not set");
                    }
                    return Connection::new(stream, permit, self);
                }
                Err(_) => {
                    counter!("jammi_connections_refused_total", "port" => self.name).increment(1);
                    if !self.full {
                        self.full = true;
                        warn!(
                            port = self.name,
                            connections = self.connections_max,
                            "connections are refused until one ends: raise server.connections_max"
                        );
                    }
                }
            }
        }
    }
}

/// An accepted connection.
pub(super) struct Connection {
    id: ConnectionId,
    stream: TcpStream,
    held: HeldWrites,
    /// Until the first bytes are here, when they are due.
    first_bytes: Option<(usize, Pin<Box<Sleep>>)>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    on_end: Option<OnEnd>,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, port: &Port) -> Connection {
        let due = Box::pin(tokio::time::sleep(port.first_bytes_timeout));
        Connection {
            id: ConnectionId::next(),
            stream,
            held: HeldWrites::default(),
            first_bytes: Some((0, due)),
            closing: Box::pin(port.closing.clone().cancelled_owned()),
            on_end: port.on_end.clone(),
            _permit: permit,
            _counted: Counted::new(port.name),
        }
    }

    /// Why the connection has to end although the client is silent.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        match &mut self.first_bytes {
            Some((_, due)) => {
                ready!(due.as_mut().poll(context));
                Poll::Ready(io::ErrorKind::TimedOut.into())
            }
            None => Poll::Pending,
        }
    }

    fn note_read(&mut self, bytes: usize) {
        if let Some((seen, _)) = &mut self.first_bytes {
            *seen += bytes;
            if *seen >= FIRST_BYTES {
                self.first_bytes = None;
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo {
            id: self.id,
            tcp: self.stream.connect_info(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(on_end) = &self.on_end {
            on_end(self.id);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.note_read(buffer.filled().len() - before);
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_end(context).map(Err),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Connection { stream, held, .. } = &mut *self;
        held.poll_write(stream, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, held, .. } = &mut *self;
        held.poll_flush(stream, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, held, .. } = &mut *self;
        ready!(held.poll_send(stream, context))?;
        Pin::new(stream).poll_shutdown(context)
    }
}

/// One in the gauge of open connections.
struct Counted(&'static str);

impl Counted {
    fn new(port: &'static str) -> Self {
        gauge!("jammi_connections", "port" => port).increment(1.0);
        Counted(port)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("jammi_connections", "port" => self.0).decrement(1.0);
    }
}
