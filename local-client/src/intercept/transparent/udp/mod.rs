//! Datagrams that the kernel hands over: each socket of the app's has one in the pod.

mod icmp;
mod listener;
mod replies;

pub(super) use listener::Listener;

use crate::pod::{Datagrams, Inbox, Pod};
use icmp::Icmp;
use replies::Replies;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tunnel::datagrams::{IDLE_TIMEOUT, Recent, SOCKETS};

/// How often it is looked for flows that are idle.
const SWEEP: Duration = Duration::from_secs(10);

/// The flows of datagrams, one for each socket of the app's: what tells such a socket is its address.
pub(super) struct Flows {
    pod: Arc<dyn Pod>,
    replies: Replies,
    icmp: Icmp,
    flows: Mutex<Recent<SocketAddr, Arc<dyn Datagrams>>>,
}

/// What comes to the pod's socket for the app's one.
struct ToApp {
    app: SocketAddr,
    flows: Weak<Flows>,
}

impl Inbox for ToApp {
    fn datagram(&self, from: SocketAddr, payload: &[u8]) {
        let Some(flows) = self.flows.upgrade() else {
            return;
        };
        flows.flows().get(&self.app);
        if let Err(error) = flows.replies.send(from, self.app, payload) {
            tracing::debug!(%from, to = %self.app, %error, "a datagram is lost");
        }
    }

    fn unreachable(&self, to: SocketAddr, code: u8) {
        let Some(flows) = self.flows.upgrade() else {
            return;
        };
        if let Err(error) = flows.icmp.unreachable(self.app, to, code) {
            tracing::debug!(%to, from = %self.app, %error, "the app does not learn that a peer is not reached");
        }
    }
}

impl Flows {
    pub(super) fn new(pod: Arc<dyn Pod>) -> Arc<Flows> {
        Arc::new(Flows {
            pod,
            replies: Replies::new(),
            icmp: Icmp::open(),
            flows: Mutex::new(Recent::new(SOCKETS)),
        })
    }

    fn flows(&self) -> MutexGuard<'_, Recent<SocketAddr, Arc<dyn Datagrams>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads what comes to `listener` to the pod, until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) {
        let serving = listener.run(|from, to, payload| self.flow(from).send(to, payload));
        shutdown.run_until_cancelled(serving).await;
    }

    /// Closes flows that are idle, until `shutdown`.
    pub(super) async fn sweep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut interval = interval(SWEEP);
        while shutdown
            .run_until_cancelled(interval.tick())
            .await
            .is_some()
        {
            self.flows().expire(IDLE_TIMEOUT);
        }
    }

    /// The pod's socket for the app's one.
    fn flow(self: &Arc<Self>, app: SocketAddr) -> Arc<dyn Datagrams> {
        let mut flows = self.flows();
        if let Some(datagrams) = flows.get(&app) {
            return datagrams.clone();
        }
        let flow = Arc::downgrade(self);
        let datagrams: Arc<dyn Datagrams> =
            self.pod.udp(Arc::new(ToApp { app, flows: flow })).into();
        flows.insert(app, datagrams.clone());
        datagrams
    }
}
