//! What the streams of one SSH connection have in common.

use crate::gate::Gate;
use crate::ident::Peer;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What streams of a plain SSH peer may have unread here together, in bytes. SSH's own window is extended by russh on receipt, so
/// all that holds such a peer back is not to read on: that stalls its whole connection, and where it waits for one of
/// its streams to take what it sends on another, for ever. So there is much room before.
const POOL: usize = 64 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct Link {
    /// Who may send next.
    pub gate: Arc<Gate>,
    /// Runs the legs of streams; the connection's owner waits for it.
    pub tracker: TaskTracker,
    /// The other end.
    pub peer: Peer,
    /// Whether this end sends CHANNEL_CLOSE first: the client, always, as the side that does keeps memory for the channel until
    /// its connection ends.
    pub closes_first: bool,
    /// The other end has said that it will not come back: its streams end with the connection.
    pub left: CancellationToken,
    /// The legs of streams that are carried here.
    pub legs: TaskTracker,
    pub(crate) pool: Arc<Semaphore>,
}

impl Link {
    /// The link of a connection that sends through `gate`.
    pub fn new(gate: Arc<Gate>, tracker: TaskTracker, peer: Peer, closes_first: bool) -> Link {
        Link {
            gate,
            tracker,
            peer,
            closes_first,
            left: CancellationToken::new(),
            legs: TaskTracker::new(),
            pool: Arc::new(Semaphore::new(POOL)),
        }
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.gate, &other.gate)
    }
}
