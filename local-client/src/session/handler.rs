//! russh's callbacks, turned into calls. They run inside the session's loop, so nothing is awaited here.

use super::plain;
use super::ports::Ports;
use crate::pod::Caller;
use futures::FutureExt;
use russh::Channel;
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::acceptor::{Acceptor, Offer};
use tunnel::gate::Gate;
use tunnel::ident::Peer;
use tunnel::label;
use tunnel::link::Link;

/// The adapter between russh and one [`Connection`](super::connection::Connection).
pub struct Handler {
    pub(super) host_key: PublicKey,
    pub(super) gate: Arc<Gate>,
    pub(super) tracker: TaskTracker,
    /// The connection's one link.
    pub(super) link: Arc<OnceLock<Link>>,
    pub(super) ports: Ports,
    /// Callers of the pod's ports.
    pub(super) acceptor: Arc<Acceptor<Msg>>,
    /// Counts the channels.
    pub(super) channels: Arc<AtomicU64>,
    /// Cancelled when the connection has ended, whoever ended it.
    pub(super) ended: CancellationToken,
}

impl Handler {
    /// The other end is known once its identification string has arrived, which is before any channel.
    fn link(&self) -> Link {
        let peer = self.gate.identification().map_or(Peer::Plain, Peer::parse);
        let link = || Link::new(self.gate.clone(), self.tracker.clone(), peer, true);
        self.link.get_or_init(link).clone()
    }
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(matches!(key, PublicKeyOrCertificate::PublicKey { key, .. }
            if key.key_data() == self.host_key.key_data()))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.fetch_add(1, Ordering::Relaxed);
        let (from, label) = label::split(originator_address);
        let from = format!("{from}:{originator_port}");
        let (port, link) = (u16::try_from(connected_port), self.link());
        let (port, label) = match (port, label) {
            (Ok(port), Some(label)) => (port, label),
            (Ok(port), None) if !link.peer.is_ours() => {
                let accept = || plain::accept(channel, link, reply).boxed();
                self.ports.deliver(port, Caller::new(from, accept));
                return Ok(());
            }
            // Dropped, it is refused.
            _ => return Ok(()),
        };
        let offer = Offer {
            channel,
            link,
            answer: Box::new(move |answer| {
                Box::pin(async move {
                    match answer {
                        Ok(()) => reply.accept().await,
                        Err(failure) => reply.reject(failure).await,
                    }
                })
            }),
        };
        if let Some(ticket) = self.acceptor.offer(label, offer) {
            let accept = move || ticket.accept().boxed();
            self.ports.deliver(port, Caller::new(from, accept));
        }
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                tracing::debug!(message = info.message, "the pod ended the connection");
            }
            DisconnectReason::Error(error) => tracing::debug!(%error, "the connection failed"),
        }
        Ok(())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}
