//! DNS over TCP (RFC 7766): many queries on one connection, answered in the order in which the answers come.

use super::query::Query;
use super::shim::Shim;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tunnel::frames::{FrameReader, frame};
use tunnel::stream::{Reader, Reset};

/// A connection without a query for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer that the app does not take for this long ends the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that wait to be written on one connection.
const QUEUE: usize = 16;
/// Bytes read at once: one query, and usually all there is.
const CHUNK: usize = 1024;

/// Serves one connection until it ends, or says nothing for [`IDLE_TIMEOUT`].
pub(super) async fn serve(connection: TcpStream, shim: &Arc<Shim>) {
    let (read, write) = connection.into_split();
    let (answers, ready) = mpsc::channel(QUEUE);
    let writing = send(write, ready);
    tokio::pin!(writing);
    tokio::select! {
        () = &mut writing => return,
        () = receive(read, answers, shim) => {}
    }
    // What was asked before the end is still answered.
    writing.await;
}

async fn receive(read: OwnedReadHalf, answers: mpsc::Sender<Bytes>, shim: &Arc<Shim>) {
    let mut messages = FrameReader::new(Box::new(Receiving(read)));
    while let Ok(Ok(Some(bytes))) = tokio::time::timeout(IDLE_TIMEOUT, messages.next()).await {
        let Ok(permit) = shim.under_way.clone().acquire_owned().await else {
            return;
        };
        let (shim, answers) = (shim.clone(), answers.clone());
        shim.tracker.clone().spawn(async move {
            let answering = respond(bytes, &shim, answers);
            shim.shutdown.run_until_cancelled(answering).await;
            drop(permit);
        });
    }
}

async fn respond(bytes: Bytes, shim: &Shim, answers: mpsc::Sender<Bytes>) {
    let answer = match Query::parse(bytes) {
        Ok(query) => shim.answer(&query).await,
        Err(refusal) => refusal,
    };
    if let Some(answer) = answer {
        // The one who asked may have gone.
        let _ = answers.send(answer).await;
    }
}

async fn send(mut write: impl AsyncWrite + Unpin, mut answers: mpsc::Receiver<Bytes>) {
    while let Some(answer) = answers.recv().await {
        let Some(message) = frame(&answer) else {
            return;
        };
        let written = tokio::time::timeout(WRITE_TIMEOUT, write.write_all(&message)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// A TCP connection's receiving direction, for [`FrameReader`].
struct Receiving(OwnedReadHalf);

#[async_trait]
impl Reader for Receiving {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        match self.0.read_buf(&mut buffer).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(buffer.freeze())),
            Err(_) => Err(Reset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn an_app_that_does_not_take_its_answer_is_left() {
        let (near, _far) = tokio::io::duplex(1);
        let (answers, ready) = mpsc::channel(QUEUE);
        answers.send("answer".into()).await.unwrap();
        let before = Instant::now();
        let sending = timeout(WRITE_TIMEOUT * 60, send(near, ready));
        sending.await.expect("it gives up");
        assert_eq!(before.elapsed(), WRITE_TIMEOUT);
    }
}
