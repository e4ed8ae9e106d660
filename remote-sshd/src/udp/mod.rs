//! The subsystem `udp` ([`tunnel::datagrams`]): a client's sockets in the pod. They belong to the client and not to one of its
//! connections, so that its peers go on with the same port when it comes back.

mod socket;

use nix::errno::Errno;
use socket::{Buffer, Event, Socket};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use tunnel::datagrams::{Frame, FrameReader, IDLE_TIMEOUT, Kind, Outbox, Recent, SOCKETS};
use tunnel::stream::{Reset, Stream};

/// The sockets of a client.
pub(crate) struct Sockets {
    sockets: Mutex<Recent<u32, Entry>>,
    /// That of the newest connection.
    outbox: Mutex<Arc<Outbox>>,
    buffer: Buffer,
    end: CancellationToken,
}

struct Entry {
    socket: Arc<Socket>,
    _end: DropGuard,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sockets {
    /// None yet; all of them end with `end`.
    pub(crate) fn new(end: CancellationToken) -> Arc<Sockets> {
        Arc::new(Sockets {
            sockets: Mutex::new(Recent::new(SOCKETS)),
            outbox: Mutex::default(),
            buffer: Buffer::new(),
            end,
        })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.sockets).is_empty()
    }

    /// Serves the client on `stream`, which from now on takes what comes to its sockets.
    ///
    /// # Errors
    /// [`Reset`] if the stream was.
    pub(crate) async fn serve(self: &Arc<Self>, stream: Stream) -> Result<(), Reset> {
        let outbox = Outbox::new();
        *lock(&self.outbox) = outbox.clone();
        let mut frames = FrameReader::new(stream.reader);
        let receiving = async {
            while let Some(frame) = frames.next().await? {
                self.take(&frame);
            }
            Ok(())
        };
        tokio::select! {
            ended = receiving => ended,
            ended = outbox.drain(stream.writer) => ended,
        }
    }

    fn take(self: &Arc<Self>, frame: &Frame) {
        match frame.kind {
            Kind::Datagram => match self.socket(frame.socket) {
                Ok(socket) => self.send(&socket, frame),
                Err(error) => debug!(%error, "no socket"),
            },
            Kind::Close => lock(&self.sockets).remove(&frame.socket),
            Kind::Unreachable => {}
        }
    }

    /// The socket of that number, made if need be.
    fn socket(self: &Arc<Self>, number: u32) -> io::Result<Arc<Socket>> {
        let mut sockets = lock(&self.sockets);
        if let Some(entry) = sockets.get(&number) {
            return Ok(entry.socket.clone());
        }
        let (socket, end) = (Arc::new(Socket::bind()?), self.end.child_token());
        let entry = Entry {
            socket: socket.clone(),
            _end: end.clone().drop_guard(),
        };
        sockets.insert(number, entry);
        let receiving = self.clone().receive(number, socket.clone());
        tokio::spawn(end.run_until_cancelled_owned(receiving));
        Ok(socket)
    }

    fn send(&self, socket: &Socket, frame: &Frame) {
        let Err(error) = socket.send(frame.peer, &frame.payload) else {
            return;
        };
        debug!(peer = %frame.peer, %error, "a datagram was not sent");
        if let Some(code) = unreachable_code(&error, frame.peer) {
            let to = frame.peer;
            self.tell(frame.socket, Event::Unreachable { to, code });
        }
    }

    /// Tells the client what came to a socket, if it is there and has room for it.
    fn tell(&self, socket: u32, event: Event<'_>) {
        let outbox = lock(&self.outbox);
        match event {
            Event::Datagram { from, payload } => outbox.send(Kind::Datagram, socket, from, payload),
            Event::Unreachable { to, code } => outbox.send(Kind::Unreachable, socket, to, &[code]),
        };
    }

    /// Passes on what comes to a socket, until nothing has come or gone for long.
    async fn receive(self: Arc<Self>, number: u32, socket: Arc<Socket>) {
        let receiving = async {
            let pass_on = |event: Event<'_>| {
                lock(&self.sockets).get(&number);
                self.tell(number, event);
            };
            loop {
                if let Err(error) = socket.receive(&self.buffer, pass_on).await {
                    debug!(%error, "a datagram is lost");
                }
            }
        };
        let used = || lock(&self.sockets).used(&number);
        let idle = async {
            while let Some(used) = used().filter(|used| used.elapsed() < IDLE_TIMEOUT) {
                sleep_until(used + IDLE_TIMEOUT).await;
            }
        };
        tokio::select! {
            () = receiving => {}
            () = idle => lock(&self.sockets).remove(&number),
        }
    }
}

/// What a router would have said of a datagram that this machine does not send (RFC 792, RFC 4443 3.1).
fn unreachable_code(error: &io::Error, peer: SocketAddr) -> Option<u8> {
    let (network, host, prohibited) = match peer {
        SocketAddr::V4(_) => (0, 1, 13),
        SocketAddr::V6(_) => (0, 3, 1),
    };
    match Errno::from_raw(error.raw_os_error()?) {
        Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT => Some(network),
        Errno::EHOSTUNREACH => Some(host),
        Errno::EACCES | Errno::EPERM => Some(prohibited),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_not_used_is_closed() {
        const LATER: Duration = Duration::from_secs(100);
        const LOOK: Duration = Duration::from_millis(100);
        let sockets = Sockets::new(CancellationToken::new());
        sockets.socket(7).unwrap();
        sleep(LATER).await;
        let before = Instant::now();
        sockets.socket(7).unwrap();
        while !sockets.is_empty() {
            assert!(before.elapsed() < IDLE_TIMEOUT * 2);
            sleep(LOOK).await;
        }
        let idle = before.elapsed();
        assert!(
            (IDLE_TIMEOUT..=IDLE_TIMEOUT + LOOK).contains(&idle),
            "{idle:?}"
        );
    }
}
