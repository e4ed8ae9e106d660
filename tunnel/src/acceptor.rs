//! The end of streams that is offered their channels: knows each stream by its id, and takes it up on whichever channel comes next.
//!
//! One [`Acceptor`] belongs to one client: the ids of another one's streams mean nothing to it.

use crate::channel::settle;
use crate::credit::Budget;
use crate::dial::DialError;
use crate::ident::Peer;
use crate::label::{Label, StreamId};
use crate::leg::{Legs, Message, carry};
use crate::link::Link;
use crate::stream::shared::Shared;
use crate::stream::{Reset, Stream};
use async_trait::async_trait;
use futures::future::BoxFuture;
use russh::{Channel, ChannelOpenFailure};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Channels offered for one stream that nobody has looked at. One is all there should be: connections are made one at a time.
const OFFERS: usize = 8;

/// Answers the request for a channel: confirms it, or refuses it with the reason. Does not wait for the network.
pub type Answer = Box<dyn FnOnce(Result<(), ChannelOpenFailure>) -> BoxFuture<'static, ()> + Send>;

/// A channel that the other end wants to open for a stream.
pub struct Offer<M: Message> {
    /// The channel, unconfirmed.
    pub channel: Channel<M>,
    /// Its connection.
    pub link: Link,
    /// Confirms or refuses it.
    pub answer: Answer,
}

/// See the module.
#[derive(Debug)]
pub struct Acceptor<M: Message> {
    known: Mutex<HashMap<StreamId, mpsc::Sender<Incoming<M>>>>,
    budget: Arc<Budget>,
    tracker: TaskTracker,
    end: CancellationToken,
}

struct Incoming<M: Message> {
    offer: Offer<M>,
    label: Label,
}

impl<M: Message> Acceptor<M> {
    /// Streams are carried by tasks on `tracker`, until `end`.
    pub fn new(budget: Arc<Budget>, tracker: TaskTracker, end: CancellationToken) -> Arc<Self> {
        Arc::new(Acceptor {
            known: Mutex::default(),
            budget,
            tracker,
            end,
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<StreamId, mpsc::Sender<Incoming<M>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an offer. That of a stream which is known goes to it; a new stream is the caller's, to accept or refuse.
    pub fn offer(self: &Arc<Self>, label: Label, offer: Offer<M>) -> Option<Ticket<M>> {
        let incoming = Incoming { offer, label };
        let mut known = self.known();
        let refused = match known.get(&label.id) {
            Some(stream) => match stream.try_send(incoming) {
                Ok(()) => return None,
                Err(error) => error.into_inner(),
            },
            None if label.resumed => incoming,
            None => {
                let (sender, offers) = mpsc::channel(OFFERS);
                // There is room.
                let _ = sender.try_send(incoming);
                known.insert(label.id, sender);
                return Some(Ticket {
                    legs: OfferedLegs {
                        entry: Entry {
                            id: label.id,
                            acceptor: self.clone(),
                        },
                        offers,
                        best: None,
                        begun: None,
                    },
                });
            }
        };
        drop(known);
        let answer = refused.offer.answer;
        let failure = DialError::Forgotten.to_failure(refused.offer.link.peer);
        self.tracker.spawn(answer(Err(failure)));
        None
    }

    /// How many streams there are, those that wait to be taken up again included.
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A new stream that waits for its answer. Dropped, it is refused.
pub struct Ticket<M: Message> {
    legs: OfferedLegs<M>,
}

impl<M: Message> Ticket<M> {
    /// Takes the stream in.
    ///
    /// # Errors
    /// [`Reset`] if there is no memory for it.
    pub async fn accept(self) -> Result<Stream, Reset> {
        let acceptor = self.legs.entry.acceptor.clone();
        let Some(share) = acceptor.budget.share() else {
            self.refuse(DialError::Resources).await;
            return Err(Reset);
        };
        let shared = Shared::with_credit(share);
        let stream = shared.stream();
        let carrying = carry(shared, self.legs, acceptor.end.clone());
        acceptor.tracker.spawn(carrying.in_current_span());
        Ok(stream)
    }

    /// Refuses the stream.
    pub async fn refuse(mut self, reason: DialError) {
        self.legs.offers.close();
        while let Some(incoming) = self.legs.offers.recv().await {
            let peer: Peer = incoming.offer.link.peer;
            (incoming.offer.answer)(Err(reason.to_failure(peer))).await;
        }
    }
}

/// A stream's place among the known ones.
struct Entry<M: Message> {
    id: StreamId,
    acceptor: Arc<Acceptor<M>>,
}

impl<M: Message> Drop for Entry<M> {
    fn drop(&mut self) {
        self.acceptor.known().remove(&self.id);
    }
}

struct OfferedLegs<M: Message> {
    entry: Entry<M>,
    offers: mpsc::Receiver<Incoming<M>>,
    /// The latest that the other end has asked for, of those that were not looked at.
    best: Option<Incoming<M>>,
    /// Which leg was begun last.
    begun: Option<u32>,
}

impl<M: Message> OfferedLegs<M> {
    /// Takes an offer, unless the other end has asked for a later one: then it waits for that. Dropped, one is refused.
    fn consider(&mut self, incoming: Incoming<M>) {
        let leg = incoming.label.leg;
        let latest = self.best.as_ref().map(|best| best.label.leg).or(self.begun);
        if latest.is_none_or(|latest| leg > latest) {
            self.best = Some(incoming);
        }
    }

    /// Waits for an offer that is later than all before, if there is none; `None` if there will not be any. Cancel-safe.
    async fn wait(&mut self) -> Option<()> {
        while self.best.is_none() {
            let incoming = self.offers.recv().await?;
            self.consider(incoming);
        }
        Some(())
    }
}

#[async_trait]
impl<M: Message> Legs<M> for OfferedLegs<M> {
    async fn next(&mut self, shared: &Shared) -> Option<(Channel<M>, Link)> {
        self.wait().await?;
        while let Ok(incoming) = self.offers.try_recv() {
            self.consider(incoming);
        }
        let Incoming { offer, label } = self.best.take()?;
        self.begun = Some(label.leg);
        let Offer {
            channel,
            link,
            answer,
        } = offer;
        if let Err(violation) = shared.begin(Some(label.position)) {
            tracing::warn!(%violation, "a stream is reset");
            answer(Err(DialError::Forgotten.to_failure(link.peer))).await;
            return None;
        }
        answer(Ok(())).await;
        settle(&channel, &link).await;
        Some((channel, link))
    }

    async fn better(&mut self, _: &Link) {
        if self.wait().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
