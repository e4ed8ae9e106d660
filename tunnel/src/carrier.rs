//! The byte stream under an SSH connection, made safe for russh.
//!
//! russh awaits its socket writes and reads nothing meanwhile, so that two ends with full socket buffers wait for each
//! other for ever. [`carry`] wraps the stream: writing appends to a queue and never waits, a task drains the queue. What
//! keeps the queue short is the [`Gate`], which everything that sends asks first.

use crate::gate::{Gate, HARD_LIMIT};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio_util::task::TaskTracker;

/// How long an ended connection may take to send what is still queued (the reason for its end, for one).
const LINGER: Duration = Duration::from_secs(2);

/// Bytes handed to the transport at once: of a port-forward, one message. Half of what may be unsent, and a little less than a power of
/// two: a container runtime reads a message into memory that grows step by step, with one step more for a byte beyond that.
pub const WRITE: usize = (128 << 10) - 64;

/// How often those whose turn it is are let go first, so that the transport gets few and full pieces: what lies between a turn and
/// the queue are a few tasks. No more often: the bytes of a turn may wait for the peer.
const PATIENCE: usize = 8;

/// Longest identification string (RFC 4253 4.2), with room for the lines that may precede it.
const IDENTIFICATION: usize = 8 << 10;

/// The stream to hand to russh; see [`carry`].
#[derive(Debug)]
pub struct Carrier<S> {
    stream: ReadHalf<S>,
    gate: Arc<Gate>,
    line: Vec<u8>,
}

/// Wraps `stream` for russh. The queue is drained by a task on `tracker`, which ends with the connection.
pub fn carry<S>(stream: S, tracker: &TaskTracker) -> (Carrier<S>, Arc<Gate>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let gate = Gate::new();
    let (read, write) = tokio::io::split(stream);
    let draining = gate.clone();
    tracker.spawn(async move {
        let overdue = async {
            draining.ended().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            () = drain(write, &draining) => {}
            () = overdue => {}
        }
    });
    let carrier = Carrier {
        stream: read,
        gate: gate.clone(),
        line: vec![],
    };
    (carrier, gate)
}

async fn drain<S: AsyncWrite>(mut stream: WriteHalf<S>, gate: &Gate) {
    loop {
        for _ in 0..PATIENCE {
            if !gate.queue().fills(WRITE) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let filled = gate.filled.notified();
        let (mut chunk, closed) = {
            let mut queue = gate.queue();
            let n = queue.bytes.len().min(WRITE);
            let chunk = queue.bytes.split_to(n);
            queue.draining = chunk.len();
            (chunk, queue.closed)
        };
        if chunk.is_empty() {
            if closed {
                // The transport may be gone already.
                let _ = stream.shutdown().await;
                return;
            }
            filled.await;
            continue;
        }
        let written = match stream.write_all_buf(&mut chunk).await {
            Ok(()) => stream.flush().await,
            Err(error) => Err(error),
        };
        let mut queue = gate.queue();
        queue.draining = 0;
        if written.is_err() {
            queue.bytes.clear();
            drop(queue);
            gate.close();
            return;
        }
        drop(queue);
        gate.drained();
    }
}

impl<S> Carrier<S> {
    /// Remembers the first line that starts with "SSH-" (RFC 4253 4.2 lets a server send others before it).
    fn scan_identification(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < IDENTIFICATION {
                    self.line.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if line.starts_with(b"SSH-") {
                // Only this task sets it.
                let _ = self.gate.identification.set(line);
                return;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncRead for Carrier<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        {
            let mut queue = self.gate.queue();
            if queue.closed {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            queue.reader = Some(context.waker().clone());
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        let arrived = buffer.filled().get(before..).unwrap_or_default();
        if !arrived.is_empty() {
            self.gate.receive(arrived.len());
            if self.gate.identification.get().is_none() {
                self.scan_identification(arrived);
            }
        }
        poll
    }
}

impl<S> AsyncWrite for Carrier<S> {
    /// Never pending: a full queue ends the connection.
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut queue = self.gate.queue();
        if queue.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if queue.unsent() > HARD_LIMIT {
            drop(queue);
            self.gate.close();
            return Poll::Ready(Err(io::Error::other("the peer does not read")));
        }
        queue.append(bytes);
        drop(queue);
        self.gate.filled.notify_one();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate.close();
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Carrier<S> {
    fn drop(&mut self) {
        self.gate.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::time::{Instant, timeout};

    /// The last words of a connection, the reason for its end among them, are sent.
    #[tokio::test]
    async fn what_is_queued_is_sent_after_the_end() {
        let tracker = TaskTracker::new();
        let (near, mut far) = duplex(64);
        let (mut carrier, gate) = carry(near, &tracker);
        carrier.write_all(&[7; 4096]).await.unwrap();
        gate.close();
        assert!(carrier.write_all(b"more").await.is_err());
        assert!(carrier.read_u8().await.is_err());
        drop(carrier);
        let mut all = vec![];
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [7; 4096]);
    }

    /// ... but not to a peer that does not read: its socket would never be closed.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_left() {
        let tracker = TaskTracker::new();
        let (near, _far) = duplex(64);
        let (mut carrier, gate) = carry(near, &tracker);
        carrier.write_all(&[7; 4096]).await.unwrap();
        gate.close();
        tracker.close();
        let before = Instant::now();
        timeout(LINGER * 5, tracker.wait()).await.expect("it ends");
        assert_eq!(before.elapsed(), LINGER);
    }

    /// Whatever ends it, everybody knows, and nobody waits for it.
    #[tokio::test]
    async fn an_end_is_an_end_for_all() {
        let tracker = TaskTracker::new();
        let carried = || carry(duplex(64).0, &tracker);
        let (mut carrier, gate) = carried();
        carrier.shutdown().await.unwrap();
        assert!(gate.has_ended());
        let (carrier, gate) = carried();
        drop(carrier);
        assert!(gate.has_ended());
    }

    /// A transport that says how long the pieces were that it got.
    struct Pieces(UnboundedSender<usize>);

    impl AsyncRead for Pieces {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.send(bytes.len()).unwrap();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Those whose turn it is send in one piece, and whoever does not use its turn keeps nobody waiting.
    #[tokio::test]
    async fn what_is_coming_leaves_in_one_piece() {
        const TURN: usize = 32 << 10;
        let (told, mut pieces) = unbounded_channel();
        let (_carrier, gate) = carry(Pieces(told), &TaskTracker::new());
        for sender in 0..3 {
            let gate = gate.clone();
            tokio::spawn(async move {
                let turn = gate.turn(TURN).await;
                for _ in 0..2 * sender {
                    tokio::task::yield_now().await;
                }
                gate.queue().append(&[7; TURN]);
                turn.sent(TURN);
                gate.filled.notify_one();
            });
        }
        assert_eq!(pieces.recv().await, Some(3 * TURN));

        let _unused = gate.turn(TURN).await;
        gate.pass(64).unwrap().sent(64);
        gate.queue().append(&[7; 64]);
        gate.filled.notify_one();
        assert_eq!(pieces.recv().await, Some(64));
    }

    /// What goes past the gate does not fill the memory.
    #[tokio::test]
    async fn a_queue_without_end_is_the_end() {
        let (near, _far) = duplex(64);
        let (mut carrier, gate) = carry(near, &TaskTracker::new());
        // So that no sum of them is the limit itself.
        let piece = vec![7; (1 << 20) + 1];
        let mut taken = 0;
        while taken <= 2 * HARD_LIMIT && carrier.write_all(&piece).await.is_ok() {
            taken += piece.len();
        }
        assert!((HARD_LIMIT..HARD_LIMIT + 2 * piece.len()).contains(&taken));
        assert!(gate.has_ended());
    }
}
