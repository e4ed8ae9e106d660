//! What comes back to the app, from the very address that it has sent to.

use super::listener::transparent;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use tunnel::datagrams::Recent;

/// Sockets that are kept, one for each address of a peer.
const SOCKETS: usize = 256;

/// A socket for each peer that has something to say.
pub(super) struct Replies(Mutex<Recent<SocketAddr, Socket>>);

impl Replies {
    pub(super) fn new() -> Replies {
        Replies(Mutex::new(Recent::new(SOCKETS)))
    }

    /// Sends a datagram to the app without waiting, from `peer`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn send(&self, peer: SocketAddr, app: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = sockets.get(&peer) {
            return socket.send_to(payload, &app.into()).map(drop);
        }
        let socket = transparent(peer.ip())?;
        socket.set_reuse_address(true)?;
        socket.bind(&peer.into())?;
        let sent = socket.send_to(payload, &app.into());
        sockets.insert(peer, socket);
        sent.map(drop)
    }
}
