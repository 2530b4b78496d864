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
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{info, warn};

use super::held_writes::HeldWrites;
use super::tls::Tls;
use crate::auth::{PeerCertificate, Transport};
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
    pub peer: Peer,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub address: Option<SocketAddr>,
    pub transport: Transport,
    pub certificate: Option<PeerCertificate>,
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
    tls: Option<Tls>,
    handshakes: JoinSet<Option<Connection>>,
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
            tls: None,
            handshakes: JoinSet::new(),
        })
    }

    /// Encrypts every connection, where there is something to do it with.
    pub fn encrypted(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
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

    /// The next connection that can be served. Handshakes go on beside each other, so
    /// that a client which is slow with its own keeps no other waiting.
    async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                stream = accept_stream(&self.listener, self.name) => {
                    let Some(connection) = self.admit(stream) else {
                        continue;
                    };
                    match self.tls.clone() {
                        None => return connection,
                        Some(tls) => {
                            let timeout = self.first_bytes_timeout;
                            self.handshakes.spawn(shake_hands(connection, tls, timeout));
                        }
                    }
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    /// The connection of `stream`, where one more may be open.
    fn admit(&mut self, stream: TcpStream) -> Option<Connection> {
        match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => {
                self.full = false;
                // Answers are written whole: waiting for more to send would only
                // delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    warn!(%error, "nodelay was not set");
                }
                Some(Connection::new(stream, permit, self))
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
                None
            }
        }
    }
}

async fn accept_stream(listener: &TcpListener, name: &'static str) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(port = name, %error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The connection once it is encrypted; none where the client does not speak TLS, or
/// takes longer than `timeout`.
async fn shake_hands(connection: Connection, tls: Tls, timeout: Duration) -> Option<Connection> {
    let name = connection.counted.0;
    let failed = |reason: &'static str| {
        counter!("jammi_tls_handshakes_failed_total", "port" => name, "reason" => reason)
            .increment(1);
    };
    match tokio::time::timeout(timeout, connection.encrypt(&tls)).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            failed("refused");
            info!(port = name, %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            failed("timeout");
            None
        }
    }
}

/// An accepted connection.
pub(super) struct Connection {
    id: ConnectionId,
    stream: Wire,
    peer: Peer,
    held: HeldWrites,
    /// Until the first bytes are here, when they are due.
    first_bytes: Option<(usize, Pin<Box<Sleep>>)>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    on_end: Option<OnEnd>,
    _permit: OwnedSemaphorePermit,
    counted: Counted,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, port: &Port) -> Connection {
        let due = Box::pin(tokio::time::sleep(port.first_bytes_timeout));
        Connection {
            id: ConnectionId::next(),
            peer: Peer {
                address: stream.peer_addr().ok(),
                transport: Transport::Plain,
                certificate: None,
            },
            stream: Wire::Plain(stream),
            held: HeldWrites::default(),
            first_bytes: Some((0, due)),
            closing: Box::pin(port.closing.clone().cancelled_owned()),
            on_end: port.on_end.clone(),
            _permit: permit,
            counted: Counted::new(port.name),
        }
    }

    /// The connection after a handshake. It ends when the server stops meanwhile.
    async fn encrypt(mut self, tls: &Tls) -> io::Result<Connection> {
        let Wire::Plain(stream) = std::mem::replace(&mut self.stream, Wire::None) else {
            return Err(io::Error::other("the connection is encrypted already"));
        };
        let stream = tokio::select! {
            stream = tls.accept(stream) => stream?,
            () = self.closing.as_mut() => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let chain = stream.get_ref().1.peer_certificates();
        let chain = chain.map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
        self.peer.certificate = chain
            .map(PeerCertificate::read)
            .transpose()
            .map_err(io::Error::other)?;
        self.peer.transport = Transport::Tls;
        self.stream = Wire::Tls(Box::new(stream));
        Ok(self)
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
            peer: self.peer.clone(),
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

/// What carries a connection's bytes.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// While a handshake has it.
    None,
}

/// Passes a call on to whichever wire there is.
macro_rules! on_wire {
    ($wire:expr, $stream:ident => $call:expr, $none:expr) => {
        match $wire {
            Wire::Plain($stream) => $call,
            Wire::Tls($stream) => $call,
            Wire::None => $none,
        }
    };
}

fn no_wire<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_wire!(&mut *self, stream => Pin::new(stream).poll_read(context, buffer), no_wire())
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_wire!(&mut *self, stream => Pin::new(stream).poll_write(context, bytes), no_wire())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(
            &mut *self,
            stream => Pin::new(stream).poll_write_vectored(context, slices),
            no_wire()
        )
    }

    fn is_write_vectored(&self) -> bool {
        on_wire!(self, stream => stream.is_write_vectored(), false)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(&mut *self, stream => Pin::new(stream).poll_flush(context), no_wire())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(&mut *self, stream => Pin::new(stream).poll_shutdown(context), no_wire())
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
