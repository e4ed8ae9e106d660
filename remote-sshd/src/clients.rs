//! Clients of ours, each one run of one: what belongs to it outlives its connections. Another key, or another run with the same
//! key, is another client.

use crate::connection::Connection;
use crate::keyring::Identity;
use crate::udp::Sockets;
use russh::server::Msg;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::Acceptor;
use tunnel::credit::Budget;
use tunnel::ident::RunId;

/// All clients that have a connection, or streams that wait for one.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<(String, RunId), Arc<Client>>>);

/// One of them.
pub(crate) struct Client {
    /// The streams that it opened.
    pub(crate) acceptor: Arc<Acceptor<Msg>>,
    /// Its UDP sockets.
    pub(crate) sockets: Arc<Sockets>,
    /// Those that live, in the order in which they came.
    connections: Mutex<Vec<Arc<Connection>>>,
    /// The newest of them.
    connection: watch::Sender<Option<Arc<Connection>>>,
}

impl Clients {
    fn map(&self) -> MutexGuard<'_, HashMap<(String, RunId), Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that holds the key of `identity` in `run`; its streams end with `end`.
    pub(crate) fn client(
        &self,
        identity: &Identity,
        run: RunId,
        budget: &Arc<Budget>,
        streams: &TaskTracker,
        end: &CancellationToken,
    ) -> Arc<Client> {
        let mut map = self.map();
        // Those that nobody uses any more, and that have nothing left to say.
        map.retain(|_, client| {
            Arc::strong_count(client) > 1
                || !client.acceptor.is_empty()
                || !client.sockets.is_empty()
        });
        map.entry((identity.fingerprint.clone(), run))
            .or_insert_with(|| {
                Arc::new(Client {
                    acceptor: Acceptor::new(budget.clone(), streams.clone(), end.clone()),
                    sockets: Sockets::new(end.clone()),
                    connections: Mutex::default(),
                    connection: watch::Sender::new(None),
                })
            })
            .clone()
    }
}

impl Client {
    /// The client's connection at each time.
    pub(crate) fn connection(&self) -> watch::Receiver<Option<Arc<Connection>>> {
        self.connection.subscribe()
    }

    /// From now on, `connection` is the client's: it is its newest.
    pub(crate) fn arrives(&self, connection: &Arc<Connection>) {
        self.change(|connections| connections.push(connection.clone()));
    }

    /// `connection` has ended. Another one may have taken its place already; or it is the one that was to do so, and the client goes on
    /// with the older one.
    pub(crate) fn leaves(&self, connection: &Connection) {
        self.change(|connections| connections.retain(|other| other.id() != connection.id()));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Connection>>)) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut connections);
        let id = |connection: Option<&Arc<Connection>>| connection.map(|it| it.id());
        let newest = connections.last();
        self.connection.send_if_modified(|current| {
            let changes = id(current.as_ref()) != id(newest);
            if changes {
                *current = newest.cloned();
            }
            changes
        });
    }
}
