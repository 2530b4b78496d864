//! Small writes that leave as one.
//!
//! An answer of one message is three HTTP/2 frames: headers, data, and trailers
//! with the status. The `h2` crate hands a data frame over before it looks at what
//! follows it and flushes, so that the trailers would go by a write, a segment and a
//! wake-up of the client of their own. That costs more than many a statement, and a
//! client that is content with the message and lets go of the call before its
//! trailers are there resets the stream, which `h2` counts against the connection.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes that are held back at most. More is worth a write of its own.
const HELD_BYTES_MAX: usize = 8 << 10;
/// Slices that the system takes at a time, one of which is of what is held.
const SLICES_MAX: usize = 64;

/// The bytes that a connection has been given and has not sent.
///
/// Invariant: what is held is sent by the second flush after the write, and the task
/// that flushes first is woken to flush again.
#[derive(Debug, Default)]
pub(super) struct HeldWrites {
    bytes: Vec<u8>,
    /// Of `bytes`, how many are sent.
    sent: usize,
    /// Whether the last write was the kind that more may follow at once.
    expects_more: bool,
}

impl HeldWrites {
    /// Takes `slices`, or sends what is held and as much of them as `stream` takes.
    pub fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.bytes.len() + length <= HELD_BYTES_MAX {
            for slice in slices {
                self.bytes.extend_from_slice(slice);
            }
            // A data frame that is not copied to the headers before it.
            self.expects_more = slices.len() > 1;
            return Poll::Ready(Ok(length));
        }
        loop {
            if self.held().is_empty() {
                return Pin::new(stream).poll_write_vectored(context, slices);
            }
            let mut all = Vec::with_capacity(SLICES_MAX);
            all.push(IoSlice::new(self.held()));
            all.extend(slices.iter().take(SLICES_MAX - 1).copied());
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &all))?;
            match written.checked_sub(self.held().len()) {
                Some(more) => {
                    self.clear();
                    if more > 0 {
                        return Poll::Ready(Ok(more));
                    }
                }
                None => self.note_sent(written)?,
            }
        }
    }

    /// Sends what is held, or lets what may follow it at once be added first.
    pub fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.expects_more && !self.held().is_empty() {
            self.expects_more = false;
            // `h2` flushes again before it is done, and then nothing is left to do
            // when this wakes the task. A plain wake-up would wake another thread
            // for it.
            let later = pin!(tokio::task::yield_now());
            let _pending = later.poll(context);
            return Poll::Ready(Ok(()));
        }
        self.poll_send(stream, context)
    }

    /// Sends what is held.
    pub fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.held().is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, self.held()))?;
            self.note_sent(written)?;
        }
        Pin::new(stream).poll_flush(context)
    }

    fn held(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn note_sent(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += written;
        if self.held().is_empty() {
            self.clear();
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        self.expects_more = false;
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    /// Takes so many bytes at a time, and none at every other call.
    struct Slow {
        at_a_time: usize,
        writes: Vec<Vec<u8>>,
        is_ready: bool,
    }

    impl Slow {
        fn new(at_a_time: usize) -> Self {
            Slow {
                at_a_time,
                writes: Vec::new(),
                is_ready: true,
            }
        }

        fn bytes(&self) -> Vec<u8> {
            self.writes.concat()
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.is_ready = !self.is_ready;
            if self.at_a_time != usize::MAX && self.is_ready {
                return Poll::Pending;
            }
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            bytes.truncate(self.at_a_time);
            let written = bytes.len();
            self.writes.push(bytes);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn until_ready<T>(mut poll: impl FnMut() -> Poll<T>) -> T {
        loop {
            if let Poll::Ready(value) = poll() {
                return value;
            }
        }
    }

    /// Writes each of `frames`, in slices, and flushes after each: what `stream` got.
    fn sent(stream: &mut Slow, frames: &[&[&[u8]]]) -> Vec<u8> {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut held = HeldWrites::default();
        for frame in frames {
            let mut left: Vec<&[u8]> = frame.to_vec();
            while let Some(first) = left.first() {
                if first.is_empty() {
                    left.remove(0);
                    continue;
                }
                let slices: Vec<_> = left.iter().map(|slice| IoSlice::new(slice)).collect();
                let poll = || held.poll_write(stream, &mut context, &slices);
                let mut written = until_ready(poll).expect("the stream takes bytes");
                drop(slices);
                for slice in &mut left {
                    let some = written.min(slice.len());
                    *slice = &slice[some..];
                    written -= some;
                }
            }
            until_ready(|| held.poll_flush(stream, &mut context)).expect("the stream flushes");
        }
        until_ready(|| held.poll_flush(stream, &mut context)).expect("the stream flushes");
        stream.bytes()
    }

    #[test]
    fn a_message_and_its_trailers_leave_by_one_write() {
        let mut stream = Slow::new(usize::MAX);
        let sent = sent(&mut stream, &[&[b"headers", b"message"], &[b"trailers"]]);
        assert_eq!(sent, b"headersmessagetrailers");
        assert_eq!(stream.writes.len(), 1);
    }

    #[test]
    fn what_nothing_follows_leaves_by_the_second_flush() {
        let mut stream = Slow::new(usize::MAX);
        assert_eq!(
            sent(&mut stream, &[&[b"headers", b"message"]]),
            b"headersmessage"
        );
        let mut stream = Slow::new(usize::MAX);
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let mut held = HeldWrites::default();
        let ping = [IoSlice::new(b"ping")];
        assert!(held.poll_write(&mut stream, &mut context, &ping).is_ready());
        assert!(held.poll_flush(&mut stream, &mut context).is_ready());
        assert_eq!(
            stream.bytes(),
            b"ping",
            "nothing follows a frame that is alone"
        );
    }

    #[test]
    fn bytes_keep_their_order_whatever_the_stream_takes_at_a_time() {
        let large: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
        let frames: &[&[&[u8]]] = &[
            &[b"first", &large[..300]],
            &[b"head", &large],
            &[b"between"],
            &[b"", b"x", &large[..9_000]],
            &[&large[..HELD_BYTES_MAX]],
            &[b"last"],
        ];
        let expected: Vec<u8> = frames.concat().concat();
        for at_a_time in [1, 7, 8_192, 100_000] {
            assert!(
                sent(&mut Slow::new(at_a_time), frames) == expected,
                "{at_a_time}"
            );
        }
    }
}
