//! An authenticated client's connection, and what may be done with it.

use crate::clients::Client;
use crate::keyring::{Admission, Identity};
use crate::pod::PodFiles;
use crate::server::Server;
use crate::{dns, facts, outbound};
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelId, Sig};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span, debug, debug_span, info};
use tunnel::acceptor::Offer;
use tunnel::arrivals::{self, Farewell};
use tunnel::claims::{Refusal, Report};
use tunnel::gate::Gate;
use tunnel::ident::Peer;
use tunnel::label;
use tunnel::link::Link;
use tunnel::opener::Connected;
use tunnel::stream::Stream;
use tunnel::{channel, copy, datagrams, message};

/// Refusals that are remembered for the client to read.
const REFUSALS: usize = 64;

/// An authenticated client.
pub(crate) struct Connection {
    id: u64,
    admission: Admission,
    handle: Handle,
    link: Link,
    ended: CancellationToken,
    server: Arc<Server>,
    /// Whose it is, if it is one of ours.
    client: Option<Arc<Client>>,
    _counted: Option<TaskTrackerToken>,
    /// What the log says of this connection; russh runs the handler in a task that has none.
    span: Span,
    streams: AtomicU64,
    queries: Arc<Semaphore>,
    refusals: Mutex<Vec<Refusal>>,
}

/// What a connection is made of before its client is known.
pub(crate) struct Login {
    pub(crate) id: u64,
    pub(crate) server: Arc<Server>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tracker: TaskTracker,
    pub(crate) ended: CancellationToken,
    pub(crate) span: Span,
    pub(crate) done: oneshot::Sender<Arc<Connection>>,
}

impl Login {
    /// The client is authenticated.
    pub(crate) fn finish(
        self,
        admission: Admission,
        peer: Peer,
        handle: Handle,
    ) -> Arc<Connection> {
        let client = match peer {
            Peer::Ours { run: Some(run), .. } => Some(self.server.client(&admission.identity, run)),
            _ => None,
        };
        let counted = client.as_ref().map(|_| self.server.count_ours());
        let connection = Arc::new(Connection {
            id: self.id,
            admission,
            handle,
            link: Link::new(self.gate, self.tracker, peer, false),
            ended: self.ended,
            server: self.server,
            _counted: counted,
            client,
            span: self.span,
            streams: AtomicU64::new(0),
            queries: Arc::new(Semaphore::new(dns::relay::QUERIES)),
            refusals: Mutex::default(),
        });
        if let Some(client) = &connection.client {
            client.arrives(&connection);
        }
        // The receiver is gone if the grace period ended at this very moment.
        let _ = self.done.send(connection.clone());
        connection
    }
}

impl Connection {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.admission.identity
    }

    pub(crate) fn peer(&self) -> Peer {
        self.link.peer
    }

    /// Whose it is, if it is one of ours.
    pub(crate) fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn files(&self) -> &PodFiles {
        self.server.files()
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Ends the connection and all its streams.
    pub(crate) fn end(&self) {
        self.ended.cancel();
        self.link.gate.close();
    }

    /// Waits for the connection's end.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The number of the next stream, for the log.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether `target` is one of this server's listeners.
    pub(crate) fn is_own(&self, target: SocketAddr) -> bool {
        self.server.is_own(target)
    }

    /// Runs a stream, which may outlive the connection; the server does not end before it, within its grace period.
    pub(crate) fn spawn_stream(&self, stream: impl Future<Output = ()> + Send + 'static) {
        self.server.streams().spawn(stream);
    }

    /// Accepts a channel. When this returns, the confirmation is on its way ahead of all that is sent.
    pub(crate) async fn confirm(&self, reply: ChannelOpenHandle, channel: ChannelId) {
        reply.accept().await;
        // russh empties its queue of replies before it takes a message, but a reply and a message that come in between are
        // seen in the wrong order, and the bytes of an unknown channel are dropped. So the first message is one without
        // effect: the answer to a request that was never made.
        let _ = self.handle.channel_success(channel).await;
    }

    /// Copies between a connection of the pod and a stream to the client.
    pub(crate) async fn carry(&self, tcp: TcpStream, stream: Stream) {
        if let Err(error) = copy::tune(&tcp) {
            debug!(%error, "the connection is gone already");
        }
        match copy::splice(tcp, stream).await {
            Ok(copied) => debug!(copied.sent, copied.received, "ended"),
            Err(error) => debug!(%error, "ended"),
        }
    }

    /// direct-tcpip: a connection from within the pod, or the next channel of one that there is.
    pub(crate) fn open(
        self: &Arc<Self>,
        host: &str,
        port: u32,
        originator: &str,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
    ) {
        let id = self.next_stream();
        let span = debug_span!(parent: &self.span, "dial", id, host, port);
        let (connection, host) = (self.clone(), host.to_owned());
        let (Some(client), Some(label)) = (&self.client, label::split(originator).1) else {
            let open = outbound::open_plain(connection, host, port, channel, reply);
            return self.spawn_stream(open.instrument(span));
        };
        let offer = Offer {
            channel,
            link: self.link.clone(),
            answer: Box::new(move |answer| {
                Box::pin(async move {
                    match answer {
                        Ok(()) => reply.accept().await,
                        Err(failure) => reply.reject(failure).await,
                    }
                })
            }),
        };
        if let Some(ticket) = client.acceptor.offer(label, offer) {
            self.spawn_stream(outbound::open(connection, host, port, ticket).instrument(span));
        }
    }

    /// tcpip-forward: listens on a port of the pod; returns the port.
    pub(crate) fn claim(self: &Arc<Self>, address: &str, port: u32) -> Option<u16> {
        let _log = self.span.enter();
        let port = u16::try_from(port).ok()?;
        let reason = match self.server.claims().claim(self, address, port) {
            Ok(port) => return Some(port),
            Err(reason) => reason,
        };
        info!(address, port, ?reason, client = %self.identity(), "cannot listen for the client");
        self.remember(Refusal {
            address: address.to_owned(),
            port,
            reason,
        });
        None
    }

    fn remember(&self, refusal: Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|old| old.port != refusal.port || old.address != refusal.address);
        if refusals.len() == REFUSALS {
            refusals.remove(0);
        }
        refusals.push(refusal);
    }

    /// cancel-tcpip-forward: whether there was such a claim.
    pub(crate) fn cancel(&self, address: &str, port: u32) -> bool {
        u16::try_from(port).is_ok_and(|port| self.server.claims().cancel(self, address, port))
    }

    /// A subsystem on a session channel; whether there is one of that name.
    pub(crate) fn subsystem(self: &Arc<Self>, name: &str, channel: Channel<Msg>) -> bool {
        let connection = self.clone();
        if name == arrivals::SUBSYSTEM {
            let id = channel.id();
            self.spawn(arrivals::run(
                channel,
                self.link.clone(),
                Farewell::default(),
            ));
            self.spawn(async move {
                connection.server.ending().await;
                let nothing = String::new;
                let signal = connection.handle.exit_signal_request(
                    id,
                    Sig::TERM,
                    false,
                    nothing(),
                    nothing(),
                );
                // An error means that the connection has ended.
                let _ = signal.await;
            });
            return true;
        }
        // Of a name that is not known, this closes the channel.
        let stream = channel::stream(channel, &self.link);
        match name {
            dns::relay::SUBSYSTEM => self.spawn(async move {
                let (files, queries) = (connection.files().clone(), connection.queries.clone());
                if let Err(error) = dns::relay::serve(stream, files, queries).await {
                    debug!(%error, "dns");
                }
            }),
            // The sockets are those of a run.
            datagrams::SUBSYSTEM => match connection.client.clone() {
                Some(client) => self.spawn(async move {
                    if let Err(error) = client.sockets.serve(stream).await {
                        debug!(%error, "udp");
                    }
                }),
                None => return false,
            },
            tunnel::facts::SUBSYSTEM => self.spawn(async move {
                let server = &connection.server;
                let facts = facts::facts(server.environment(), connection.files(), server.budget());
                tell(stream, &facts).await;
            }),
            tunnel::claims::SUBSYSTEM => self.spawn(async move {
                let refusals = connection
                    .refusals
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let claims = connection.server.claims().report(&connection);
                tell(stream, &Report { claims, refusals }).await;
            }),
            _ => return false,
        }
        true
    }

    /// Runs what needs no end of its own: it is dropped with the connection.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = task.instrument(self.span.clone());
        let task = self.ended.clone().run_until_cancelled_owned(task);
        self.link.tracker.spawn(task);
    }
}

impl Connected for Connection {
    fn link(&self) -> &Link {
        &self.link
    }
}

/// Writes the one answer of a subsystem, and waits for the client to end the stream.
async fn tell<T: serde::Serialize>(mut stream: Stream, answer: &T) {
    if let Err(error) = message::send(stream.writer.as_mut(), answer).await {
        return debug!(%error, "the answer was not sent");
    }
    while let Ok(Some(_)) = stream.reader.read().await {}
}
