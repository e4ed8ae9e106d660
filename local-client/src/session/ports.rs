//! The ports of the pod that are listened on. They outlive connections: each new one claims them all again.

use crate::pod::Caller;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tunnel::claims::Port;

/// Callers of one port that wait to be looked at; more are refused.
const QUEUE: usize = 128;

/// The ports listened on, each with the way to its listener.
#[derive(Debug, Clone, Default)]
pub struct Ports(Arc<Mutex<BTreeMap<Port, mpsc::Sender<Caller>>>>);

impl Ports {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Port, mpsc::Sender<Caller>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a port and returns what its callers come out of; none do for UDP.
    pub fn add(&self, port: Port) -> mpsc::Receiver<Caller> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.map().insert(port, sender);
        receiver
    }

    /// Takes a port off the list.
    pub fn remove(&self, port: Port) {
        self.map().remove(&port);
    }

    /// All ports listened on.
    pub fn all(&self) -> Vec<Port> {
        self.map().keys().copied().collect()
    }

    /// Hands `caller` to the listener of `port`; dropped, and so refused, where there is none or it is behind.
    pub fn deliver(&self, port: u16, caller: Caller) {
        let sender = self.map().get(&Port::Tcp(port)).cloned();
        let Some(sender) = sender else {
            tracing::debug!(
                port,
                from = caller.from,
                "a caller of a port nobody listens on"
            );
            return;
        };
        if let Err(error) = sender.try_send(caller) {
            tracing::warn!(port, %error, "refused a caller");
        }
    }
}
