//! Datagrams from the cluster to the app, and back: for each peer there is a socket here, by whose port the app tells peers apart.

use super::addresses;
use crate::pod::{Datagrams, Inbox, ListenError, Pod};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tunnel::datagrams::{IDLE_TIMEOUT, MAX_PAYLOAD, Recent};

/// Peers of one port at a time. One more takes the place of the one that was silent for longest.
const PEERS: usize = 1024;

/// A port of the app.
struct Port {
    local: u16,
    remote: u16,
    /// Where the app was last seen to listen.
    app: Mutex<IpAddr>,
    peers: Mutex<Recent<SocketAddr, Peer>>,
    back: OnceLock<Box<dyn Datagrams>>,
    /// One for all peers, as it is used for a moment.
    buffer: Mutex<Box<[u8]>>,
    /// Datagrams that the app has not taken since it last answered.
    missed: AtomicUsize,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

struct Peer {
    socket: Arc<UdpSocket>,
    _end: DropGuard,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leads datagrams of the pod's port `remote` to the app's port `local` until `shutdown`, by tasks on `tracker`.
///
/// # Errors
/// See [`ListenError`].
pub async fn start(
    local: u16,
    remote: u16,
    pod: &dyn Pod,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), ListenError> {
    let port = Arc::new(Port {
        local,
        remote,
        app: Mutex::new(Ipv4Addr::LOCALHOST.into()),
        peers: Mutex::new(Recent::new(PEERS, IDLE_TIMEOUT)),
        back: OnceLock::new(),
        buffer: Mutex::new(vec![0; MAX_PAYLOAD].into()),
        missed: AtomicUsize::new(0),
        tracker: tracker.clone(),
        shutdown: shutdown.clone(),
    });
    let back = pod
        .listen_udp(remote, Arc::new(ToApp(port.clone())))
        .await?;
    // It is the only one.
    let _ = port.back.set(back);
    Ok(())
}

/// Takes what comes to the pod's port.
struct ToApp(Arc<Port>);

impl Inbox for ToApp {
    fn datagram(&self, from: SocketAddr, payload: &[u8]) {
        let port = &self.0;
        let sent = port.peer(from).and_then(|socket| {
            let send = || SockRef::from(&socket).send(payload);
            // The first attempt may fail for what has become of the datagram before.
            send().or_else(|_| send())
        });
        if let Err(error) = sent {
            tracing::debug!(%from, port = port.local, %error, "a datagram is lost");
        }
    }

    /// A server in the pod would not learn of it.
    fn unreachable(&self, _: SocketAddr, _: u8) {}
}

/// A socket to an address of the loopback interface.
fn connected(app: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((app.ip(), 0))?;
    // With nobody listening, a port out of the ephemeral range may be this socket's own.
    if socket.local_addr()? == app {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    socket.set_nonblocking(true)?;
    socket.connect(app)?;
    UdpSocket::from_std(socket)
}

impl Port {
    /// The socket for a peer.
    fn peer(self: &Arc<Self>, from: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(&from) {
            return Ok(peer.socket.clone());
        }
        let mut app = *lock(&self.app);
        let socket = connected((app, self.local).into()).or_else(|_| {
            // Where IPv6 is off, or the address has gone.
            app = Ipv4Addr::LOCALHOST.into();
            connected((app, self.local).into())
        })?;
        let socket = Arc::new(socket);
        let end = self.shutdown.child_token();
        let peer = Peer {
            socket: socket.clone(),
            _end: end.clone().drop_guard(),
        };
        peers.insert(from, peer);
        let answering = self.clone().answer(from, app, socket.clone());
        self.tracker.spawn(end.run_until_cancelled_owned(answering));
        Ok(socket)
    }

    /// Passes on what the app answers to a peer, until it does not listen any more.
    async fn answer(self: Arc<Self>, peer: SocketAddr, app: IpAddr, socket: Arc<UdpSocket>) {
        let take = || {
            let mut buffer = lock(&self.buffer);
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
            if let (Some(back), Some(payload)) = (self.back.get(), buffer.get(..length)) {
                back.send(peer, payload);
            }
            Ok(())
        };
        loop {
            match socket
                .async_io(Interest::READABLE | Interest::ERROR, take)
                .await
            {
                Ok(()) => {
                    lock(&self.peers).touch(&peer);
                    self.missed.store(0, Ordering::Relaxed);
                }
                Err(error) => {
                    self.missed(peer, app, &error);
                    return;
                }
            }
            yield_now().await;
        }
    }

    /// Nobody listens on the app's port at `app`: from now on the next address is tried.
    fn missed(&self, peer: SocketAddr, app: IpAddr, error: &io::Error) {
        let all = addresses();
        let next = all.iter().skip_while(|address| **address != app).nth(1);
        *lock(&self.app) = *next.unwrap_or(&Ipv4Addr::LOCALHOST.into());
        lock(&self.peers).remove(&peer);
        let (local, remote) = (self.local, self.remote);
        // Before, it may have been the wrong address; and further ones are no news.
        if self.missed.fetch_add(1, Ordering::Relaxed) + 1 == all.len() {
            tracing::warn!(
                "{peer} sent to port {remote}/udp: your program does not listen on port {local}/udp: {error}"
            );
        } else {
            tracing::debug!("{peer}: port {local}/udp of {app}: {error}");
        }
    }
}
