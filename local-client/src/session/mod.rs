//! The session with the pod: keeps one SSH connection up, and gives the other rooms a [`Pod`] that outlives it. This room
//! alone knows SSH.

mod backoff;
mod claim;
mod connection;
mod dns;
#[cfg(test)]
mod fake;
mod handler;
mod heartbeat;
pub mod identity;
mod plain;
mod ports;
pub mod rotation;
mod udp;

use crate::cluster::{DialFailure, Dialer};
use crate::error::Error;
use crate::pod::{Caller, Datagrams, DnsError, Inbox, Incoming, ListenError, Pod, Target};
use async_trait::async_trait;
use backoff::Backoff;
use bytes::Bytes;
use connection::{Client, Connection};
use ports::Ports;
use rotation::Wear;
use russh::client::Msg;
use russh::keys::{PrivateKey, PublicKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::Acceptor;
use tunnel::claims::Port;
use tunnel::credit::Budget;
use tunnel::dial::DialError;
use tunnel::facts::Facts;
use tunnel::ident::RunId;
use tunnel::label::Label;
use tunnel::opener::{Opener, Opening};
use tunnel::stream::Stream;
use udp::Sockets;

/// For a round trip through the tunnel when somebody asks for the health.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// For the first connection: a node may have to be started for the pod.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// Between attempts to reach the pod that takes the place of one that is ending, at most.
const HANDOVER_PAUSE: Duration = Duration::from_millis(500);
/// Before a port is claimed again for which the link was lost.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// For the pod to dial, which has a shorter timeout of its own.
const OPEN_TIMEOUT: Duration = Duration::from_secs(155);

/// The session. Its supervisor is [`Session::supervise`], which whoever started the session runs.
pub struct Session {
    dialer: Arc<dyn Dialer>,
    client: Client,
    wear: Wear,
    connection: watch::Sender<Option<Arc<Connection>>>,
    /// Carries streams, from one connection to the next.
    streams: TaskTracker,
    /// Ends all streams.
    end: CancellationToken,
    facts: Arc<Facts>,
    declared_environment: Option<Vec<String>>,
}

impl Session {
    /// Makes the first connection. What may pass by itself (a pod that is not running yet) is waited for, with a line in
    /// the log whenever the reason changes. Connections are replaced when they are as worn as `wear` says.
    ///
    /// # Errors
    /// What waiting would not help, or has not helped for five minutes.
    pub async fn start(
        dialer: Arc<dyn Dialer>,
        key: PrivateKey,
        wear: Wear,
    ) -> Result<Session, Error> {
        let (budget, streams) = (Budget::of_this_process(), TaskTracker::new());
        let end = CancellationToken::new();
        let client = Client {
            key: Arc::new(key),
            run: RunId::random(),
            ports: Ports::default(),
            budget: budget.clone(),
            acceptor: Acceptor::new(budget, streams.clone(), end.clone()),
            sockets: Sockets::default(),
        };
        let (mut backoff, begin) = (Backoff::new(), Instant::now());
        let mut told = String::new();
        loop {
            match connect(dialer.as_ref(), &client).await {
                Ok((connection, declared_environment)) => {
                    tracing::info!("connected to {}", connection.peer);
                    if !connection.is_ours() {
                        tracing::warn!(
                            "{} runs another SSH server, not telepresence-remote: there is no environment and no UDP, and connections end with the link",
                            connection.peer
                        );
                    }
                    let facts = connection.facts.clone();
                    return Ok(Session {
                        dialer,
                        client,
                        wear,
                        connection: watch::Sender::new(Some(Arc::new(connection))),
                        streams,
                        end,
                        facts,
                        declared_environment,
                    });
                }
                Err(DialFailure::Fatal(error)) => return Err(error),
                Err(DialFailure::Passing(error)) if begin.elapsed() >= START_TIMEOUT => {
                    tracing::info!("waited {} s", START_TIMEOUT.as_secs());
                    return Err(error);
                }
                Err(DialFailure::Passing(error)) => {
                    let text = error.to_string();
                    if text != told {
                        tracing::info!("waiting: {text}");
                        told = text;
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Keys of the variables that the pod's specification sets by name, where it could be read.
    pub fn declared_environment(&self) -> Option<&[String]> {
        self.declared_environment.as_deref()
    }

    /// Watches over the connection, makes a new one whenever it is lost or worn, until `shutdown`; then closes it in order.
    pub async fn supervise(&self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new();
        while let Some(connection) = self.current() {
            let up = Instant::now();
            let cause = tokio::select! {
                cause = connection.ended() => cause,
                next = self.replacement(&connection) => {
                    self.connection.send_replace(Some(Arc::new(next)));
                    let until = shutdown.clone();
                    self.streams.spawn(async move {
                        tokio::select! {
                            () = connection.retire() => {}
                            () = until.cancelled() => connection.leave(&Ports::default()).await,
                        }
                    });
                    continue;
                }
                () = shutdown.cancelled() => {
                    connection.leave(&self.client.ports).await;
                    break;
                }
            };
            self.connection.send_replace(None);
            connection.abandon();
            drop(connection);
            backoff.lived(up.elapsed());
            tracing::warn!("the link was lost: {cause}");
            tokio::select! {
                connection = self.reconnect(&mut backoff) => {
                    tracing::info!("connected again, to {}", connection.peer);
                    self.connection.send_replace(Some(Arc::new(connection)));
                }
                () = shutdown.cancelled() => break,
            }
        }
        self.connection.send_replace(None);
        self.end.cancel();
        self.streams.close();
        self.streams.wait().await;
    }

    /// Tries until it works. What was fatal at the start may now be a pod that is about to be replaced.
    async fn reconnect(&self, backoff: &mut Backoff) -> Connection {
        loop {
            match connect(self.dialer.as_ref(), &self.client).await {
                Ok((connection, _)) => return connection,
                Err(DialFailure::Fatal(error) | DialFailure::Passing(error)) => {
                    let delay = backoff.delay();
                    tracing::warn!(
                        "not connected: {error}; next attempt in {} ms",
                        delay.as_millis()
                    );
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Waits until `worn` has carried what it may, or its pod is about to end, and makes the connection that takes its place.
    async fn replacement(&self, worn: &Connection) -> Connection {
        let ending = tokio::select! {
            () = rotation::due(worn, self.wear) => false,
            () = worn.left() => true,
        };
        if ending {
            tracing::info!("{} is ending", worn.peer);
        }
        let (mut backoff, mut told) = (Backoff::new(), String::new());
        loop {
            worn.make_way(&self.client.ports).await;
            match connect(self.dialer.as_ref(), &self.client).await {
                Ok((connection, _)) => {
                    match worn.hands_over_to(&connection) {
                        true => tracing::info!("connected again, to {}", connection.peer),
                        false => tracing::debug!("the connection is replaced by a new one"),
                    }
                    return connection;
                }
                Err(DialFailure::Fatal(error) | DialFailure::Passing(error)) if ending => {
                    // Nobody serves callers until then.
                    let text = error.to_string();
                    if text != told {
                        tracing::info!("waiting: {text}");
                        told = text;
                    }
                    tokio::time::sleep(backoff.delay().min(HANDOVER_PAUSE)).await;
                }
                // The old one still works.
                Err(DialFailure::Fatal(error) | DialFailure::Passing(error)) => {
                    tracing::debug!(%error, "the connection cannot be replaced");
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Whether a round trip through the tunnel works at this moment.
    pub async fn healthy(&self) -> bool {
        match self.current() {
            Some(connection) => timeout(PING_TIMEOUT, connection.ping())
                .await
                .unwrap_or(false),
            None => false,
        }
    }

    /// Claims a port, now and on each connection to come; returns where its callers come out.
    async fn claim(&self, port: Port) -> Result<mpsc::Receiver<Caller>, ListenError> {
        let mut connections = self.connection.subscribe();
        loop {
            let connection = match connections.wait_for(Option::is_some).await {
                Ok(connection) => connection.clone(),
                Err(_) => None,
            };
            let connection = connection.ok_or(ListenError::LinkDown)?;
            // Before the claim: a caller may come with the confirmation.
            let callers = self.client.ports.add(port);
            match connection.listen(port).await {
                Ok(()) => return Ok(callers),
                Err(error) => {
                    self.client.ports.remove(port);
                    if error != ListenError::LinkDown {
                        return Err(error);
                    }
                    tracing::debug!(
                        %port,
                        "not claimed yet: the link is down, or the pod is ending"
                    );
                    // The next connection, or this one again.
                    let _ = timeout(LISTEN_PAUSE, connections.changed()).await;
                }
            }
        }
    }

    fn current(&self) -> Option<Arc<Connection>> {
        self.connection.borrow().clone()
    }

    /// Whether another connection than `old` is the one to use.
    fn has_moved_on_from(&self, old: &Arc<Connection>) -> bool {
        self.current()
            .is_some_and(|current| !Arc::ptr_eq(&current, old))
    }
}

async fn connect(
    dialer: &dyn Dialer,
    client: &Client,
) -> Result<(Connection, Option<Vec<String>>), DialFailure> {
    let mut transport = dialer.dial(&PublicKey::from(client.key.as_ref())).await?;
    let declared_environment = transport.declared_environment.take();
    let connection = Connection::establish(transport, client).await?;
    Ok((connection, declared_environment))
}

#[async_trait]
impl Pod for Session {
    async fn open(&self, target: &Target) -> Result<Stream, DialError> {
        if let Some(connection) = self.current()
            && !connection.is_ours()
        {
            return plain::open(&connection, target, OPEN_TIMEOUT).await;
        }
        let target = Arc::new(target.clone());
        let opener = Opener {
            connections: self.connection.subscribe(),
            open: move |connection: Arc<Connection>, label: Label| {
                let target = target.clone();
                Box::pin(async move { connection.open(&target, Some(&label)).await })
                    as Opening<Msg>
            },
            timeout: OPEN_TIMEOUT,
            end: self.end.clone(),
        };
        let share = self.client.budget.share();
        let share = share.ok_or(DialError::Resources)?;
        opener.stream(share, &self.streams).await
    }

    async fn dns(&self, query: Bytes) -> Result<Bytes, DnsError> {
        loop {
            let connection = self.current().ok_or(DnsError::LinkDown)?;
            match connection.dns(query.clone()).await {
                // Another one may have taken its place.
                Err(DnsError::LinkDown) if self.has_moved_on_from(&connection) => {}
                answer => return answer,
            }
        }
    }

    async fn listen(&self, port: u16) -> Result<Incoming, ListenError> {
        self.claim(Port::Tcp(port)).await.map(Incoming)
    }

    fn udp(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Datagrams> {
        let connections = self.connection.subscribe();
        self.client.sockets.socket(inbox, connections)
    }

    async fn listen_udp(
        &self,
        port: u16,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Box<dyn Datagrams>, ListenError> {
        let connections = self.connection.subscribe();
        let socket = self.client.sockets.listening(port, inbox, connections);
        // Nobody connects to it.
        let _callers = self.claim(Port::Udp(port)).await?;
        Ok(socket)
    }

    fn facts(&self) -> Arc<Facts> {
        self.facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fake::{Manners, Once, key, way};
    use tunnel::opener::Connected;

    async fn started(manners: Manners) -> (Session, Arc<Once>, CancellationToken) {
        let (transport, frozen) = way(manners);
        let dialer = Once::new(transport);
        let session = Session::start(dialer.clone(), key(), Wear::default()).await;
        (session.ok().unwrap(), dialer, frozen)
    }

    fn target() -> Target {
        Target {
            host: "thing1".into(),
            port: 80,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_without_a_round_trip_in_time_is_not_healthy() {
        let (session, _, frozen) = started(Manners::default()).await;
        assert!(session.healthy().await);
        frozen.cancel();
        let before = Instant::now();
        let healthy = timeout(PING_TIMEOUT * 60, session.healthy()).await;
        assert_eq!(healthy, Ok(false));
        assert_eq!(before.elapsed(), PING_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_of_which_the_pod_says_nothing_is_given_up() {
        let (session, _, _) = started(Manners::default()).await;
        let before = Instant::now();
        let opened = timeout(OPEN_TIMEOUT * 60, session.open(&target())).await;
        let error = opened.expect("it gives up").unwrap_err();
        assert_eq!(error, DialError::TimedOut);
        assert_eq!(before.elapsed(), OPEN_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_promised_than_the_pod_can_bear() {
        let (session, _, _) = started(Manners {
            lean: true,
            ..Manners::default()
        })
        .await;
        let error = session.open(&target()).await.unwrap_err();
        assert_eq!(error, DialError::Resources);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_takes_the_place_of_an_ending_pod_is_looked_for_often() {
        let (session, dialer, _) = started(Manners::default()).await;
        let connection = session.current().unwrap();
        connection.link().left.cancel();
        let looking = session.replacement(&connection);
        assert!(timeout(HANDOVER_PAUSE * 60, looking).await.is_err());
        assert_eq!(dialer.pauses().into_iter().max(), Some(HANDOVER_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_server_has_its_ports_back_before_the_next_connection_wants_them() {
        let plain = Manners {
            plain: true,
            ..Manners::default()
        };
        let (session, dialer, _) = started(plain.clone()).await;
        let _incoming = session.listen(80).await.unwrap();
        let worn = session.current().unwrap();
        worn.link().left.cancel();
        dialer.make(way(plain.clone()).0);
        let next = timeout(START_TIMEOUT, session.replacement(&worn)).await;
        assert!(!next.expect("there is a way").is_ours());
        assert!(plain.held.lock().unwrap().contains(&80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_of_an_ending_pod_is_claimed_again() {
        let (session, _, _) = started(Manners {
            later: 80,
            ..Manners::default()
        })
        .await;
        let before = Instant::now();
        let listening = timeout(LISTEN_PAUSE * 60, session.listen(80)).await;
        listening.expect("it is granted").unwrap();
        assert_eq!(before.elapsed(), LISTEN_PAUSE);
    }
}
