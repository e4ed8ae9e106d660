//! The subsystem `udp` ([`tunnel::datagrams`]): a client's sockets in the pod. They belong to the client and not to one of its
//! connections, so that its peers go on with the same port when it comes back.

mod socket;

use nix::errno::Errno;
use socket::{Buffer, Event, Socket};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;
use tunnel::datagrams::{self, Frame, FrameReader, IDLE_TIMEOUT, Kind, Outbox, Recent, SOCKETS};
use tunnel::stream::{Reset, Stream};

/// The sockets of a client.
pub(crate) struct Sockets {
    sockets: Mutex<Recent<u32, Entry>>,
    listening: Mutex<HashMap<u16, Entry>>,
    /// Those of the connections that there are, the newest last, which takes all.
    outboxes: Mutex<Vec<Arc<Outbox>>>,
    buffer: Buffer,
    end: CancellationToken,
}

struct Entry {
    socket: Arc<Socket>,
    _end: DropGuard,
}

/// A port that is listened on, until this is dropped.
pub(crate) struct Listening {
    sockets: Arc<Sockets>,
    port: u16,
    socket: Arc<Socket>,
}

impl Listening {
    /// Leads what comes to the port to `sockets`, which may be those of another client.
    pub(crate) fn hand_to(&mut self, sockets: &Arc<Sockets>) {
        if !Arc::ptr_eq(&self.sockets, sockets) {
            *self = sockets.clone().adopt(self.port, self.socket.clone());
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.sockets.listening).remove(&self.port);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes an outbox off the list when its connection ends.
struct Serving<'a>(&'a Sockets, &'a Arc<Outbox>);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        lock(&self.0.outboxes).retain(|outbox| !Arc::ptr_eq(outbox, self.1));
    }
}

impl Sockets {
    /// None yet; all of them end with `end`.
    pub(crate) fn new(end: CancellationToken) -> Arc<Sockets> {
        Arc::new(Sockets {
            sockets: Mutex::new(Recent::new(SOCKETS, IDLE_TIMEOUT)),
            listening: Mutex::default(),
            outboxes: Mutex::default(),
            buffer: Buffer::new(),
            end,
        })
    }

    /// Whether there are none, but for those that listen.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.sockets).is_empty()
    }

    /// Listens on a port.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn listen(self: &Arc<Self>, port: u16) -> io::Result<Listening> {
        Ok(self.clone().adopt(port, Arc::new(Socket::bind(port)?)))
    }

    fn adopt(self: Arc<Self>, port: u16, socket: Arc<Socket>) -> Listening {
        let number = datagrams::listening(port);
        let receiving = self.clone().receive(number, socket.clone());
        lock(&self.listening).insert(port, self.run(socket.clone(), receiving));
        Listening {
            sockets: self,
            port,
            socket,
        }
    }

    /// A socket, and its task, which ends with it.
    fn run(
        &self,
        socket: Arc<Socket>,
        receiving: impl Future<Output = ()> + Send + 'static,
    ) -> Entry {
        let end = self.end.child_token();
        let _end = end.clone().drop_guard();
        tokio::spawn(end.run_until_cancelled_owned(receiving));
        Entry { socket, _end }
    }

    /// Serves the client on `stream`, which takes what comes to its sockets while there is no newer one.
    ///
    /// # Errors
    /// [`Reset`] if the stream was.
    pub(crate) async fn serve(self: &Arc<Self>, stream: Stream) -> Result<(), Reset> {
        let outbox = Outbox::new();
        lock(&self.outboxes).push(outbox.clone());
        let _serving = Serving(self, &outbox);
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
                Ok(Some(socket)) => self.send(&socket, frame),
                Ok(None) => debug!("nobody listens there any more"),
                Err(error) => debug!(%error, "no socket"),
            },
            Kind::Close => lock(&self.sockets).remove(&frame.socket),
            Kind::Unreachable => {}
        }
    }

    /// The socket of that number, made if need be, and if it does not listen.
    fn socket(self: &Arc<Self>, number: u32) -> io::Result<Option<Arc<Socket>>> {
        if let Some(port) = datagrams::port(number) {
            let listening = lock(&self.listening);
            return Ok(listening.get(&port).map(|entry| entry.socket.clone()));
        }
        let mut sockets = lock(&self.sockets);
        if let Some(entry) = sockets.get(&number) {
            return Ok(Some(entry.socket.clone()));
        }
        let socket = Arc::new(Socket::bind(0)?);
        let receiving = self.clone().receive_while_used(number, socket.clone());
        sockets.insert(number, self.run(socket.clone(), receiving));
        Ok(Some(socket))
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
        let outboxes = lock(&self.outboxes);
        let Some(outbox) = outboxes.last() else {
            return;
        };
        // Only while somebody hears of it: a client that has gone keeps no socket open.
        lock(&self.sockets).touch(&socket);
        match event {
            Event::Datagram { from, payload } => outbox.send(Kind::Datagram, socket, from, payload),
            Event::Unreachable { to, code } => outbox.send(Kind::Unreachable, socket, to, &[code]),
        };
    }

    /// Passes on what comes to a socket, until nothing has come or gone for long.
    async fn receive_while_used(self: Arc<Self>, number: u32, socket: Arc<Socket>) {
        let used = || lock(&self.sockets).used(&number);
        let idle = async {
            while let Some(used) = used().filter(|used| used.elapsed() < IDLE_TIMEOUT) {
                sleep_until(used + IDLE_TIMEOUT).await;
            }
        };
        tokio::select! {
            () = self.clone().receive(number, socket) => {}
            () = idle => lock(&self.sockets).remove(&number),
        }
    }

    /// Passes on what comes to a socket.
    async fn receive(self: Arc<Self>, number: u32, socket: Arc<Socket>) {
        loop {
            let pass_on = |event: Event<'_>| self.tell(number, event);
            if let Err(error) = socket.receive(&self.buffer, pass_on).await {
                debug!(%error, "a datagram is lost");
            }
            yield_now().await;
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
