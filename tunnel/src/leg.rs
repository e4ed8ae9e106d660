//! A leg: one SSH channel that carries a stream for a while.

use crate::link::Link;
use crate::profile::PACKET;
use crate::record::Record;
use crate::sender::Sender;
use crate::stream::Violation;
use crate::stream::shared::Shared;
use crate::stream::state::Next;
use async_trait::async_trait;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Error};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a stream waits for its next leg. As long, both ends keep what the other one may not have.
pub const RESUME_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the end that does not close first waits for the other one to do so.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where the other one is a plain peer, to which a CLOSE says what a record says to ours: OpenSSH closes most channels
/// itself, but waits for ours where its user does (`-W`).
const PLAIN_CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// What russh demands of the messages to a session's loop, client or server.
pub trait Message: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static {}
impl<T: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static> Message for T {}

/// Where the legs of one stream come from.
#[async_trait]
pub(crate) trait Legs<M: Message>: Send {
    /// Waits for the next channel, whose peer knows where this end is; `None` if there will not be any.
    async fn next(&mut self, shared: &Shared) -> Option<(Channel<M>, Link)>;

    /// Waits until there is a better connection than `link`. Cancel-safe.
    async fn better(&mut self, link: &Link);
}

/// Carries a stream to its end, leg after leg, or until `end`.
pub(crate) async fn carry<M: Message>(
    shared: Arc<Shared>,
    mut legs: impl Legs<M>,
    end: CancellationToken,
) {
    let mut last: Option<Link> = None;
    let left = |last: &Option<Link>| last.as_ref().map(|link| link.left.clone());
    loop {
        let next = tokio::select! {
            next = timeout(RESUME_TIMEOUT, legs.next(&shared)) => next.ok().flatten(),
            () = cancelled(left(&last)) => None,
            () = end.cancelled() => None,
        };
        let Some((channel, link)) = next else {
            return shared.lose();
        };
        let leg = link.legs.token();
        let (outcome, moves) = tokio::select! {
            outcome = run(&shared, channel, &link) => (outcome, false),
            () = legs.better(&link) => (Outcome::Lost, true),
            () = end.cancelled() => return shared.lose(),
        };
        drop(leg);
        if outcome == Outcome::Over {
            return;
        }
        // Who leaves there does not matter to a stream that has moved.
        last = (!moves).then_some(link);
    }
}

async fn cancelled(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// How a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was said and heard, or the stream was given up.
    Over,
    /// The channel is gone before that.
    Lost,
}

/// Carries the stream over `channel`, to the end of either.
pub(crate) async fn run<M: Message>(shared: &Shared, channel: Channel<M>, link: &Link) -> Outcome {
    let (mut reads, writes) = channel.split();
    let saying = async { tokio::try_join!(say(shared, &writes, link), tell(shared, &writes)) };
    let closed = tokio::select! {
        // First, as it must never wait: russh's loop waits for it.
        biased;
        () = hear(shared, &mut reads) => true,
        // An error means that the connection has ended.
        _ = saying => false,
        () = link.gate.ended() => true,
    };
    let outcome = match shared.is_over() {
        true => Outcome::Over,
        false => Outcome::Lost,
    };
    if link.gate.has_ended() {
        return outcome;
    }
    // A plain peer is told of a reset by the CLOSE itself.
    let is_told = shared.has_credit() || !shared.is_reset();
    if !link.closes_first && outcome == Outcome::Over && is_told && !closed {
        let patience = match link.peer.is_ours() {
            true => CLOSE_TIMEOUT,
            false => PLAIN_CLOSE_TIMEOUT,
        };
        // A peer that never closes is not waited for any longer; the channel's memory is the lesser evil.
        let _ = timeout(patience, hear(shared, &mut reads)).await;
    }
    // An error means that the connection has ended.
    let _ = writes.close().await;
    outcome
}

/// Takes in what comes until the channel is closed. Waits for nothing else, but for room for the bytes of a plain peer.
async fn hear(shared: &Shared, reads: &mut ChannelReadHalf) {
    loop {
        let outcome = match reads.wait().await {
            Some(ChannelMsg::Data { data }) => {
                shared.admit(&data).await;
                shared.data(data)
            }
            Some(ChannelMsg::ExtendedData { ext, data }) if shared.has_credit() => {
                match Record::decode(ext, &data) {
                    Ok(Some(record)) => shared.record(record),
                    Ok(None) => Ok(()),
                    Err(_) => Err(Violation("sent a record that cannot be read")),
                }
            }
            Some(ChannelMsg::Eof) => shared.eof(),
            Some(ChannelMsg::Close) | None => return,
            Some(_) => Ok(()),
        };
        if let Err(violation) = outcome {
            tracing::warn!(%violation, "a stream is reset");
            shared.reset();
        }
    }
}

/// Sends what was written, when it is its turn.
async fn say<M: Message>(
    shared: &Shared,
    writes: &ChannelWriteHalf<M>,
    link: &Link,
) -> Result<(), Error> {
    let mut sender = Sender::new(&link.gate);
    let most = PACKET as usize;
    loop {
        match shared.next().await {
            Next::Data(waiting) => {
                let turn = sender.turn(waiting.min(most)).await;
                if let Some(bytes) = shared.take(most) {
                    let sent = bytes.len();
                    writes.data_bytes(bytes).await?;
                    turn.sent(sent);
                }
            }
            Next::Fin if shared.has_credit() => {
                if let Some(record) = shared.take_fin() {
                    send(writes, record).await?;
                }
            }
            Next::Fin => {
                shared.take_fin();
                writes.eof().await?;
            }
            Next::Reset => {
                let record = shared.take_reset();
                if shared.has_credit() {
                    send(writes, record).await?;
                }
            }
            Next::Over => return Ok(()),
            Next::Nothing => {}
        }
    }
}

/// Tells the peer what arrived, and what it may send: past all who wait at the gate, as those may wait for just this.
async fn tell<M: Message>(shared: &Shared, writes: &ChannelWriteHalf<M>) -> Result<(), Error> {
    while let Some(record) = shared.credit().await {
        send(writes, record).await?;
    }
    Ok(())
}

pub(crate) async fn send<M: Message>(
    writes: &ChannelWriteHalf<M>,
    record: Record,
) -> Result<(), Error> {
    let (code, payload) = record.encode();
    writes.extended_data_bytes(code, payload).await
}
