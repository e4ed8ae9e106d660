//! The end of a stream that opens its channels: the first, and after a lost or replaced connection the next one.

use crate::credit::Share;
use crate::dial::DialError;
use crate::label::{Label, StreamId};
use crate::leg::{Legs, Message, carry};
use crate::link::Link;
use crate::record::Record;
use crate::stream::Stream;
use crate::stream::shared::Shared;
use async_trait::async_trait;
use russh::{Channel, ChannelOpenFailure};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A connection on which channels can be opened.
pub trait Connected: Send + Sync + 'static {
    /// What its streams have in common.
    fn link(&self) -> &Link;
}

/// Why a channel was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The other end refused, and says why.
    Refused(ChannelOpenFailure),
    /// The connection ended.
    Lost,
}

/// A channel being opened.
pub type Opening<M> = Pin<Box<dyn Future<Output = Result<Channel<M>, OpenError>> + Send>>;

/// Opens the channels of one stream.
pub struct Opener<C, F> {
    /// The connection to use at each time; `None` while there is none.
    pub connections: watch::Receiver<Option<Arc<C>>>,
    /// Opens a channel on a connection, with what is to be said of the stream.
    pub open: F,
    /// How long the first channel may take, over any number of connections.
    pub timeout: Duration,
    /// Ends the stream.
    pub end: CancellationToken,
}

impl<C, F> Opener<C, F>
where
    C: Connected,
{
    /// Opens a stream, which is carried by a task on `tracker`.
    ///
    /// # Errors
    /// What the other end says, [`DialError::TimedOut`] if it says nothing in time, [`DialError::LinkDown`] if there is no
    /// connection.
    pub async fn stream<M>(self, share: Share, tracker: &TaskTracker) -> Result<Stream, DialError>
    where
        M: Message,
        F: Fn(Arc<C>, Label) -> Opening<M> + Send + Sync + 'static,
    {
        if self.connections.borrow().is_none() {
            return Err(DialError::LinkDown);
        }
        let (limit, end, tracker) = (self.timeout, self.end.clone(), tracker.clone());
        let shared = Shared::with_credit(share);
        let mut legs = OpenedLegs {
            opener: self,
            id: StreamId::random(),
            asked: 0,
            first: None,
        };
        let first = tokio::select! {
            first = timeout(limit, legs.open(&shared, false)) => first,
            () = end.cancelled() => return Err(DialError::LinkDown),
        };
        match first {
            Ok(Ok(first)) => legs.first = Some(first),
            Ok(Err(None)) => return Err(DialError::LinkDown),
            Ok(Err(Some(failure))) => return Err(DialError::from_failure(&failure)),
            Err(_) => return Err(DialError::TimedOut),
        }
        let stream = shared.stream();
        tracker.spawn(carry(shared, legs, end).in_current_span());
        Ok(stream)
    }
}

struct OpenedLegs<M: Message, C, F> {
    opener: Opener<C, F>,
    id: StreamId,
    /// Channels asked for.
    asked: u32,
    first: Option<(Channel<M>, Link)>,
}

impl<M, C, F> OpenedLegs<M, C, F>
where
    M: Message,
    C: Connected,
    F: Fn(Arc<C>, Label) -> Opening<M> + Send + Sync + 'static,
{
    /// Opens a channel on the connection at hand, or the next one if that ends meanwhile, or a better one takes its place: it may be half dead.
    /// The request may have arrived all the same; whoever has it knows the stream by its id.
    ///
    /// # Errors
    /// Why the other end refused; `None` if there will be no more connections.
    async fn open(
        &mut self,
        shared: &Shared,
        resumed: bool,
    ) -> Result<(Channel<M>, Link), Option<ChannelOpenFailure>> {
        loop {
            let alive = |connection: &Option<Arc<C>>| {
                connection
                    .as_ref()
                    .is_some_and(|connection| !connection.link().gate.has_ended())
            };
            let connection = match self.opener.connections.wait_for(alive).await {
                Ok(connection) => connection.clone(),
                Err(_) => return Err(None),
            };
            let Some(connection) = connection else {
                continue;
            };
            // A plain peer takes what is said of the stream for anything but that.
            if !connection.link().peer.is_ours() {
                return Err(None);
            }
            // What the peer has is not known until it says so.
            if shared.begin(None).is_err() {
                return Err(None);
            }
            let leg = self.asked;
            self.asked = leg.saturating_add(1);
            let label = Label {
                id: self.id,
                leg,
                position: shared.position(),
                resumed,
            };
            let link = connection.link().clone();
            let mut opening = opened(&link, (self.opener.open)(connection, label));
            let outcome = tokio::select! {
                // An answer that is there counts.
                biased;
                outcome = &mut opening => outcome,
                () = self.better(&link) => {
                    link.tracker.spawn(leave(opening));
                    continue;
                }
            };
            match outcome {
                Ok(channel) => return Ok((channel, link)),
                Err(OpenError::Refused(failure)) => return Err(Some(failure)),
                Err(OpenError::Lost) => link.gate.ended().await,
            }
        }
    }
}

/// Waits for a channel to be opened on the connection of `link`. russh ends the whole connection when an answer finds nobody who
/// waits for it: so somebody does, also where the future is dropped, which gives the stream up.
pub fn opened<M: Message>(link: &Link, opening: Opening<M>) -> Opening<M> {
    let (sender, receiver) = oneshot::channel();
    let (gate, ours) = (link.gate.clone(), link.peer.is_ours());
    link.tracker.spawn(async move {
        let outcome = tokio::select! {
            outcome = opening => outcome,
            () = gate.ended() => Err(OpenError::Lost),
        };
        if let Err(Ok(channel)) = sender.send(outcome) {
            // Errors mean that the connection has ended.
            if ours {
                let (code, payload) = Record::Reset.encode();
                let _ = channel.extended_data_bytes(code, payload).await;
            }
            let _ = channel.close().await;
        }
    });
    Box::pin(async move { receiver.await.unwrap_or(Err(OpenError::Lost)) })
}

/// Closes the channel, if it is opened after all, of a stream that goes on elsewhere.
async fn leave<M: Message>(opening: Opening<M>) {
    if let Ok(channel) = opening.await {
        // An error means that the connection has ended.
        let _ = channel.close().await;
    }
}

#[async_trait]
impl<M, C, F> Legs<M> for OpenedLegs<M, C, F>
where
    M: Message,
    C: Connected,
    F: Fn(Arc<C>, Label) -> Opening<M> + Send + Sync + 'static,
{
    async fn next(&mut self, shared: &Shared) -> Option<(Channel<M>, Link)> {
        match self.first.take() {
            Some(first) => Some(first),
            None => match self.open(shared, true).await {
                Ok(leg) => Some(leg),
                Err(failure) => {
                    tracing::debug!(?failure, "a stream is not resumed");
                    None
                }
            },
        }
    }

    async fn better(&mut self, link: &Link) {
        // What another one leads to does not know the streams of an end that leaves: they may finish where they are.
        let other = |connection: &Option<Arc<C>>| {
            connection
                .as_ref()
                .is_some_and(|connection| !connection.link().is(link))
                && !link.left.is_cancelled()
        };
        if self.opener.connections.wait_for(other).await.is_err() {
            // There will not be any.
            std::future::pending::<()>().await;
        }
    }
}
