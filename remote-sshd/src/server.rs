//! The server: accepts connections, bounds those whose client is not known yet, ends in order.

use crate::claims::Claims;
use crate::clients::{Client, Clients};
use crate::keyring::{Identity, Keyring};
use crate::limits::{Limits, UNAUTHENTICATED};
use crate::own;
use crate::pod::PodFiles;
use crate::serve::serve;
use russh::keys::PrivateKey;
use russh::server::Config;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, debug, info, info_span, warn};
use tunnel::credit::Budget;
use tunnel::facts::Variable;
use tunnel::ident::RunId;

/// How long our own clients have to find another server, during which they can still work with this one.
const HANDOVER: Duration = Duration::from_secs(3);

/// How long connections may take to end after their client was told to leave.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Pauses after failed calls of `accept` (no descriptors left, for one): the first, doubled each time up to the last.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What all connections share.
pub struct Server {
    ssh: Arc<Config>,
    address: SocketAddr,
    keyring: Arc<Keyring>,
    files: PodFiles,
    environment: Vec<Variable>,
    limits: Limits,
    claims: Claims,
    clients: Clients,
    budget: Arc<Budget>,
    /// Streams under way, of all connections.
    streams: TaskTracker,
    /// Connections of our own clients.
    ours: TaskTracker,
    /// These are to look for another server.
    ending: CancellationToken,
    /// Clients are to leave.
    leave: CancellationToken,
    /// Streams that are left are to end.
    end: CancellationToken,
}

impl Server {
    /// A server that listens on `address`.
    pub(crate) fn new(parts: Parts, address: SocketAddr) -> Arc<Server> {
        Arc::new(Server {
            ssh: Arc::new(tunnel::profile::server(parts.host_key)),
            address,
            keyring: parts.keyring,
            files: parts.files,
            environment: parts.environment,
            limits: parts.limits,
            claims: Claims::default(),
            clients: Clients::default(),
            budget: Budget::of_this_process(),
            streams: TaskTracker::new(),
            ours: TaskTracker::new(),
            ending: CancellationToken::new(),
            leave: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    pub(crate) fn ssh(&self) -> Arc<Config> {
        self.ssh.clone()
    }

    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    pub(crate) fn files(&self) -> &PodFiles {
        &self.files
    }

    pub(crate) fn environment(&self) -> &[Variable] {
        &self.environment
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn streams(&self) -> &TaskTracker {
        &self.streams
    }

    /// The client of ours that holds the key of `identity` in `run`.
    pub(crate) fn client(&self, identity: &Identity, run: RunId) -> Arc<Client> {
        let (budget, streams) = (&self.budget, &self.streams);
        self.clients
            .client(identity, run, budget, streams, &self.end)
    }

    /// What clients may send unasked, together.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Ends all streams.
    pub(crate) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Counts a connection of our own client, for as long as the token lives.
    pub(crate) fn count_ours(&self) -> TaskTrackerToken {
        self.ours.token()
    }

    /// Waits for the moment when clients of ours are to look for another server.
    pub(crate) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Waits for the moment when clients are to leave.
    pub(crate) async fn leaving(&self) {
        self.leave.cancelled().await;
    }

    /// Whether connecting to `target` reaches the server itself.
    pub(crate) fn is_own(&self, target: SocketAddr) -> bool {
        own::reaches(target, self.address)
    }
}

/// What a server is made of.
pub struct Parts {
    /// The host key.
    pub host_key: PrivateKey,
    /// Who may enter.
    pub keyring: Arc<Keyring>,
    /// The files of the pod's resolver.
    pub files: PodFiles,
    /// The environment that clients are told.
    pub environment: Vec<Variable>,
    /// How long things may take.
    pub limits: Limits,
}

/// Serves connections to `listener` until `shutdown`, then lets streams under way finish for a while ([`Limits`]).
///
/// # Errors
/// That the listener has no address.
pub async fn run(
    listener: TcpListener,
    parts: Parts,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let server = Server::new(parts, listener.local_addr()?);
    let connections = TaskTracker::new();
    shutdown
        .run_until_cancelled(accept(&listener, &server, &connections))
        .await;
    drop(listener);
    end(&server, &connections).await;
    Ok(())
}

async fn accept(listener: &TcpListener, server: &Arc<Server>, connections: &TaskTracker) {
    let unauthenticated = Arc::new(Semaphore::new(UNAUTHENTICATED));
    let mut pause = ACCEPT_PAUSES.0;
    let mut id: u64 = 0;
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                pause = ACCEPT_PAUSES.0;
                let Ok(permit) = unauthenticated.clone().try_acquire_owned() else {
                    debug!(%from, "too many clients that are not authenticated: closed");
                    continue;
                };
                id += 1;
                let span = info_span!("connection", id);
                connections.spawn(serve(server.clone(), tcp, id, permit).instrument(span));
            }
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSES.1);
            }
        }
    }
}

/// Tells the clients, lets streams finish, then sends the clients away. New connections from within the pod are still opened
/// meanwhile: what is to be finished may need them.
async fn end(server: &Server, connections: &TaskTracker) {
    server.claims.end().await;
    server.ending.cancel();
    server.streams.close();
    info!(
        streams = server.streams.len(),
        "ending: streams under way may finish"
    );
    server.ours.close();
    let drain = server.limits.drain;
    let (drained, _) = tokio::join!(
        timeout(drain, server.streams.wait()),
        // They leave by themselves once they have another server.
        timeout(HANDOVER.min(drain), server.ours.wait())
    );
    if drained.is_err() {
        info!(
            streams = server.streams.len(),
            "ending: streams are cut off"
        );
    }
    server.leave.cancel();
    server.end.cancel();
    connections.close();
    if timeout(END_TIMEOUT, connections.wait()).await.is_err() {
        warn!(
            connections = connections.len(),
            "ending: connections did not end in time"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer;
    use tokio::time::Instant;

    /// How long the server takes to end.
    async fn ended_after(server: &Server, connections: &TaskTracker) -> Duration {
        let before = Instant::now();
        let ending = end(server, connections);
        let ended = timeout(Duration::from_secs(600), ending).await;
        ended.expect("it ends");
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn our_clients_are_not_waited_for_longer_than_a_handover_takes() {
        let (server, _) = peer::server();
        let _ours = server.count_ours();
        assert_eq!(ended_after(&server, &TaskTracker::new()).await, HANDOVER);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_cut_off_that_do_not_finish() {
        let (server, _) = peer::server();
        let _stream = server.streams().token();
        let waited = ended_after(&server, &TaskTracker::new()).await;
        assert_eq!(waited, server.limits().drain);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_end_is_left() {
        let (server, _) = peer::server();
        let connections = TaskTracker::new();
        let _connection = connections.token();
        assert_eq!(ended_after(&server, &connections).await, END_TIMEOUT);
    }
}
