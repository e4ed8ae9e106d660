//! russh's callbacks, turned into calls. They run inside the session's loop, so nothing is awaited here.

use super::ports::Ports;
use crate::pod::Caller;
use futures::FutureExt;
use russh::Channel;
use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::carrier::Gate;
use tunnel::channel::{self, Link};
use tunnel::ident::Peer;

/// The adapter between russh and one [`Connection`](super::connection::Connection).
pub struct Handler {
    pub(super) host_key: PublicKey,
    pub(super) gate: Arc<Gate>,
    pub(super) tracker: TaskTracker,
    pub(super) ports: Ports,
    /// Cancelled when the connection has ended, whoever ended it.
    pub(super) ended: CancellationToken,
}

impl Handler {
    fn link(&self) -> Link {
        link(&self.gate, &self.tracker)
    }
}

/// What the streams of a connection share. Its other end is known once its identification string has arrived, which is
/// before any channel.
pub(super) fn link(gate: &Arc<Gate>, tracker: &TaskTracker) -> Link {
    Link {
        gate: gate.clone(),
        tracker: tracker.clone(),
        records: gate
            .identification()
            .is_some_and(|line| Peer::parse(line).is_ours()),
        closes_first: true,
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
        let link = self.link();
        let accept = move || {
            async move {
                reply.accept().await;
                channel::settle(&channel).await;
                Ok(channel::stream(channel, link))
            }
            .boxed()
        };
        if let Ok(port) = u16::try_from(connected_port) {
            let from = format!("{originator_address}:{originator_port}");
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
