//! Claims: ports of the pod that a client listens on (tcpip-forward, RFC 4254 7.1), also of UDP, if it is one of ours.
//!
//! A claim belongs to the holder of a key. A connection with the same key takes it over at once, with the listener and
//! all that waits in its queue: a client that lost its link is back before the server has noticed. What the old
//! connection does after that no longer concerns the claim, unless the new one ends first: then the claim goes to the newest that the client has.
//! Another key is refused.

mod bind;
mod callers;

pub(crate) use bind::no_ipv6;

use crate::connection::Connection;
use crate::keyring::Identity;
use crate::udp::Listening;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use tunnel::claims::{Claim, RefusalReason, UDP};

/// All claims of the server.
#[derive(Default)]
pub(crate) struct Claims {
    held: Mutex<Vec<Held>>,
    /// The tasks that accept; each ends with its claim.
    tasks: TaskTracker,
}

/// A claim; dropping it frees the port.
struct Held {
    /// As requested: part of the name by which the client knows the claim.
    address: String,
    port: u16,
    identity: Identity,
    since: SystemTime,
    owner: watch::Sender<Arc<Connection>>,
    listens: Listens,
}

enum Listens {
    /// Kept for its end.
    Tcp {
        _listeners: Listeners,
    },
    Udp(Listening),
}

struct Listeners {
    listeners: Vec<Arc<TcpListener>>,
    accepting: CancellationToken,
}

impl Held {
    /// Whether it stands in the way of another one.
    fn stands_for(&self, address: &str, port: u16) -> bool {
        self.port == port && (self.address == UDP) == (address == UDP)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.accepting.cancel();
        for listener in &self.listeners {
            // Frees the port now, and not when the task that accepts is next run. An error leaves it to that.
            let _ = socket2::SockRef::from(listener.as_ref()).shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims `port` (0: any) on `address` for `owner`; returns the port.
    pub(crate) fn claim(
        &self,
        owner: &Arc<Connection>,
        address: &str,
        port: u16,
    ) -> Result<u16, RefusalReason> {
        let mut held = self.held();
        if self.tasks.is_closed() {
            return Err(RefusalReason::Ending);
        }
        if address == UDP && (owner.client().is_none() || port == 0) {
            let text = "UDP is for clients of ours, and for a port that they name";
            return Err(RefusalReason::Other(text.to_owned()));
        }
        let same = |claim: &&mut Held| claim.port == port && claim.address == address;
        if let Some(claim) = held.iter_mut().find(same) {
            if claim.identity != *owner.identity() || claim.owner.borrow().id() == owner.id() {
                return Err(RefusalReason::Held);
            }
            if let (Listens::Udp(listening), Some(client)) = (&mut claim.listens, owner.client()) {
                listening.hand_to(&client.sockets);
            }
            claim.owner.send_replace(owner.clone());
            info!(
                address,
                port, "port taken over from an older connection of the same client"
            );
            return Ok(port);
        }
        let (port, owner_sender, listens) =
            self.listen(owner, address, port)
                .map_err(|reason| match reason {
                    RefusalReason::InUse
                        if held.iter().any(|claim| claim.stands_for(address, port)) =>
                    {
                        RefusalReason::Held
                    }
                    reason => reason,
                })?;
        held.push(Held {
            address: address.to_owned(),
            port,
            identity: owner.identity().clone(),
            since: SystemTime::now(),
            owner: owner_sender,
            listens,
        });
        info!(address, port, "listening for the client");
        Ok(port)
    }

    fn listen(
        &self,
        owner: &Arc<Connection>,
        address: &str,
        port: u16,
    ) -> Result<(u16, watch::Sender<Arc<Connection>>, Listens), RefusalReason> {
        let (owner_sender, owner_receiver) = watch::channel(owner.clone());
        if let Some(client) = owner.client()
            && address == UDP
        {
            let listening = client.sockets.listen(port);
            let listening = listening.map_err(|error| bind::refusal(&error))?;
            return Ok((port, owner_sender, Listens::Udp(listening)));
        }
        let bound = bind::bind(address, port)?;
        let accepting = CancellationToken::new();
        let name: Arc<str> = address.into();
        let listeners: Vec<_> = bound.listeners.into_iter().map(Arc::new).collect();
        for listener in &listeners {
            let accept = callers::accept(
                listener.clone(),
                owner_receiver.clone(),
                bound.port,
                name.clone(),
            );
            let task = accepting.clone().run_until_cancelled_owned(accept);
            self.tasks.spawn(task);
        }
        let listeners = Listeners {
            listeners,
            accepting,
        };
        Ok((
            bound.port,
            owner_sender,
            Listens::Tcp {
                _listeners: listeners,
            },
        ))
    }

    /// Gives up one claim of `owner`; whether there was one.
    pub(crate) fn cancel(&self, owner: &Connection, address: &str, port: u16) -> bool {
        let mut held = self.held();
        let before = held.len();
        held.retain(|claim| {
            claim.owner.borrow().id() != owner.id()
                || claim.address != address
                || claim.port != port
        });
        held.len() != before
    }

    /// Takes all claims from `owner` that are still its own: its client has left it. They are given up, unless the client has another connection.
    pub(crate) fn release(&self, owner: &Connection) {
        let mut held = self.held();
        // Under the lock: an heir that leaves meanwhile comes here after this, and finds what it was given.
        let heir = owner
            .client()
            .and_then(|client| client.connection().borrow().clone());
        held.retain(|claim| {
            let stays = claim.owner.borrow().id() != owner.id();
            if let (false, Some(heir)) = (stays, &heir) {
                claim.owner.send_replace(heir.clone());
            }
            stays || heir.is_some()
        });
    }

    /// Gives up all claims; no more are made.
    pub(crate) async fn end(&self) {
        self.tasks.close();
        self.held().clear();
        self.tasks.wait().await;
    }

    /// Every claim, as `asker` is to see it.
    pub(crate) fn report(&self, asker: &Connection) -> Vec<Claim> {
        let seconds = |since: SystemTime| {
            since
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |age| age.as_secs())
        };
        self.held()
            .iter()
            .map(|claim| Claim {
                address: claim.address.clone(),
                port: claim.port,
                fingerprint: claim.identity.fingerprint.clone(),
                comment: claim.identity.comment.clone(),
                since: seconds(claim.since),
                yours: claim.identity == *asker.identity(),
            })
            .collect()
    }
}
