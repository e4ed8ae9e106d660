//! Datagrams that the kernel hands over: each socket of the app's has one in the pod.

mod listener;
mod raw;

pub(super) use listener::Listener;

use crate::original::Original;
use crate::pod::{Datagrams, Inbox, Pod};
use raw::Raw;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio_util::sync::CancellationToken;
use tunnel::datagrams::{IDLE_TIMEOUT, Recent, SOCKETS};

/// Where nameservers listen.
const DNS: u16 = 53;

/// The flows of datagrams, one for each socket of the app's: what tells such a socket is its address.
pub(super) struct Flows {
    pod: Arc<dyn Pod>,
    original: Original,
    raw: Raw,
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
        flows.flows().touch(&self.app);
        // What claims to come from here would be the app's own.
        let sent = match from.ip().is_loopback() {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => flows.raw.datagram(from, self.app, payload),
        };
        if let Err(error) = sent {
            tracing::debug!(%from, to = %self.app, %error, "a datagram is lost");
        }
    }

    fn unreachable(&self, to: SocketAddr, code: u8) {
        let Some(flows) = self.flows.upgrade() else {
            return;
        };
        if let Err(error) = flows.raw.unreachable(self.app, to, code) {
            tracing::debug!(%to, from = %self.app, %error, "the app does not learn that a peer is not reached");
        }
    }
}

impl Flows {
    /// # Errors
    /// What the kernel says of raw sockets.
    pub(super) fn new(pod: Arc<dyn Pod>, original: Original) -> io::Result<Arc<Flows>> {
        Ok(Arc::new(Flows {
            pod,
            original,
            raw: Raw::open()?,
            flows: Mutex::new(Recent::new(SOCKETS, IDLE_TIMEOUT)),
        }))
    }

    fn flows(&self) -> MutexGuard<'_, Recent<SocketAddr, Arc<dyn Datagrams>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads what comes to `listener` to the pod, until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, listener: Listener, shutdown: CancellationToken) {
        let serving = listener.run(|from, to, payload| {
            if to.port() == DNS && self.original.asks(payload) {
                self.let_go(from, to, payload);
            } else {
                self.flow(from).send(to, payload);
            }
        });
        shutdown.run_until_cancelled(serving).await;
    }

    /// Sends a datagram where it was meant for, as if it had not been caught. Docker's resolver asks its own nameservers from within this network. What it asks
    /// for the client would else need the link, which may be what the client looks for.
    fn let_go(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        if let Err(error) = self.raw.datagram(from, to, payload) {
            tracing::debug!(%to, %error, "a query of Docker's resolver is lost");
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
