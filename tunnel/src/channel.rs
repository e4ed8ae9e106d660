//! An SSH channel as a [`Stream`].
//!
//! EOF is the half-close of SSH (RFC 4254 5.3). SSH knows no reset: between our own ends it is a record in
//! CHANNEL_EXTENDED_DATA, a plain peer sees a CLOSE without EOF. The client sends CLOSE first, always, as the side that
//! does keeps memory for the channel until its connection ends, and the server's connections are the longer ones. A plain
//! peer is given a moment to do so: OpenSSH closes most channels itself, but waits for ours where its user does (`-W`).

use crate::carrier::Gate;
use crate::stream::{Reader, Reset, Stream, Writer};
use async_trait::async_trait;
use bytes::Bytes;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Extended data type code (RFC 4254 5.2: 0xFE000000 to 0xFFFFFFFF are for private use) of the record "reset".
const RST: u32 = 0xFE00_0003;
/// Extended data type code of the record that says nothing; see [`settle`].
const NOTHING: u32 = 0xFE00_0000;
/// The payload of a record that has none: russh drops an empty one.
const NO_PAYLOAD: &[u8] = &[0];

/// How long the side that does not close first waits for the other one to do so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where the other one is a plain peer, to which a CLOSE says what a record says to ours.
const PLAIN_CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// What the channels of one SSH connection have in common.
#[derive(Debug, Clone)]
pub struct Link {
    /// Holds writers back while the connection's transport is behind.
    pub gate: Arc<Gate>,
    /// Runs what is left to do after a stream was dropped; the connection's owner waits for it.
    pub tracker: TaskTracker,
    /// Whether the other end understands records.
    pub records: bool,
    /// Whether this side sends CHANNEL_CLOSE first.
    pub closes_first: bool,
}

/// What russh demands of the messages to a session's loop, client or server.
pub trait Message: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static {}
impl<T: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static> Message for T {}

/// Makes a stream of an open, confirmed channel.
pub fn stream<M: Message>(channel: Channel<M>, link: Link) -> Stream {
    let (reads, writes) = channel.split();
    let shared = Arc::new(Shared {
        writes: Some(Arc::new(writes)),
        reads: Mutex::new(None),
        link,
    });
    Stream {
        reader: Box::new(ChannelReader {
            reads: Some(reads),
            end: None,
            shared: shared.clone(),
        }),
        writer: Box::new(ChannelWriter {
            state: Sending::Open,
            shared,
        }),
    }
}

/// To be awaited between the confirmation of a channel that the other end, one of ours, has opened and the first byte sent on it.
///
/// russh empties its queue of replies before it takes a message, but a reply and a message that come in between are seen in
/// the wrong order, and what is sent on an unconfirmed channel is lost. So the first message is one that may be.
pub async fn settle<M: Message>(channel: &Channel<M>) {
    // An error means that the connection has ended.
    let _ = channel.extended_data_bytes(NOTHING, NO_PAYLOAD).await;
}

/// What both directions hold on to; dropping the last of them closes the channel.
struct Shared<M: Message> {
    /// Always there until `drop`.
    writes: Option<Arc<ChannelWriteHalf<M>>>,
    /// Handed back by the reader when it is dropped.
    reads: Mutex<Option<ChannelReadHalf>>,
    link: Link,
}

impl<M: Message> Shared<M> {
    fn writes(&self) -> Result<&ChannelWriteHalf<M>, Reset> {
        self.writes.as_deref().ok_or(Reset)
    }

    /// Tells the other side that the stream is given up, without waiting for a window that may never open again.
    fn reset(&self) {
        if let (true, Some(writes)) = (self.link.records, self.writes.clone()) {
            let gate = self.link.gate.clone();
            self.link.tracker.spawn(async move {
                tokio::select! {
                    // An error means that the connection has ended: a reset in itself.
                    _ = writes.extended_data_bytes(RST, NO_PAYLOAD) => {}
                    () = gate.ended() => {}
                }
            });
        }
    }
}

impl<M: Message> Drop for Shared<M> {
    fn drop(&mut self) {
        let reads = self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writes) = self.writes.take() {
            let patience = match (self.link.closes_first, self.link.records) {
                (true, _) => Duration::ZERO,
                (false, true) => CLOSE_TIMEOUT,
                (false, false) => PLAIN_CLOSE_TIMEOUT,
            };
            self.link.tracker.spawn(close(writes, reads, patience));
        }
    }
}

/// Closes a channel, after the other side has, or `patience` is at its end. Errors mean that the connection has ended, and
/// the channel with it.
async fn close<M: Message>(
    writes: Arc<ChannelWriteHalf<M>>,
    reads: Option<ChannelReadHalf>,
    patience: Duration,
) {
    if let (false, Some(mut reads)) = (patience.is_zero(), reads) {
        let closed =
            async { while !matches!(reads.wait().await, None | Some(ChannelMsg::Close)) {} };
        // A peer that never closes is not waited for any longer; the channel's memory is the lesser evil.
        let _ = tokio::time::timeout(patience, closed).await;
    }
    let _ = writes.close().await;
}

struct ChannelReader<M: Message> {
    reads: Option<ChannelReadHalf>,
    /// How the direction ended; nothing is read after that.
    end: Option<Result<(), Reset>>,
    shared: Arc<Shared<M>>,
}

#[async_trait]
impl<M: Message> Reader for ChannelReader<M> {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        let reads = self.reads.as_mut().ok_or(Reset)?;
        loop {
            if let Some(end) = self.end {
                return end.map(|()| None);
            }
            match reads.wait().await {
                // russh itself takes an empty CHANNEL_DATA for an end.
                Some(ChannelMsg::Data { data }) if !data.is_empty() => return Ok(Some(data)),
                Some(ChannelMsg::Eof) => self.end = Some(Ok(())),
                Some(ChannelMsg::ExtendedData { ext: RST, .. }) if self.shared.link.records => {
                    self.end = Some(Err(Reset));
                }
                // Without an EOF before it, the other side is gone.
                Some(ChannelMsg::Close) | None => self.end = Some(Err(Reset)),
                Some(_) => {}
            }
        }
    }

    async fn lost(&mut self) {
        let Some(reads) = self.reads.as_mut() else {
            return;
        };
        loop {
            match reads.wait().await {
                Some(ChannelMsg::Close) | None => return,
                Some(ChannelMsg::ExtendedData { ext: RST, .. }) if self.shared.link.records => {
                    return;
                }
                Some(_) => {}
            }
        }
    }
}

impl<M: Message> Drop for ChannelReader<M> {
    fn drop(&mut self) {
        *self
            .shared
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.reads.take();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    Ended,
}

struct ChannelWriter<M: Message> {
    state: Sending,
    shared: Arc<Shared<M>>,
}

#[async_trait]
impl<M: Message> Writer for ChannelWriter<M> {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Reset> {
        if self.state == Sending::Ended {
            return Err(Reset);
        }
        self.shared.link.gate.room().await;
        let writes = self.shared.writes()?;
        writes.data_bytes(bytes).await.map_err(|_| Reset)
    }

    async fn finish(&mut self) -> Result<(), Reset> {
        if self.state == Sending::Ended {
            return Ok(());
        }
        self.state = Sending::Ended;
        self.shared.writes()?.eof().await.map_err(|_| Reset)
    }

    async fn reset(&mut self) {
        self.state = Sending::Ended;
        self.shared.reset();
    }
}

impl<M: Message> Drop for ChannelWriter<M> {
    fn drop(&mut self) {
        if self.state == Sending::Open {
            self.shared.reset();
        }
    }
}
