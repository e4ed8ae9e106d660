//! The client's sockets in the pod. They outlive connections: the server knows them by their numbers.

use super::connection::Connection;
use crate::pod::{Datagrams, Inbox};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::datagrams::{self, Frame, FrameReader, Kind, Outbox};
use tunnel::stream::Stream;

/// All of one run, and where what comes for each goes.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    inboxes: Mutex<HashMap<u32, Arc<dyn Inbox>>>,
    last: AtomicU32,
}

impl Sockets {
    fn inboxes(&self) -> MutexGuard<'_, HashMap<u32, Arc<dyn Inbox>>> {
        self.0
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket of its own, that sends on whichever connection there is.
    pub fn socket(
        &self,
        inbox: Arc<dyn Inbox>,
        connections: watch::Receiver<Option<Arc<Connection>>>,
    ) -> Box<dyn Datagrams> {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) % datagrams::listening(0);
        self.numbered(number, inbox, connections)
    }

    /// The socket that listens on a port, once that is claimed.
    pub fn listening(
        &self,
        port: u16,
        inbox: Arc<dyn Inbox>,
        connections: watch::Receiver<Option<Arc<Connection>>>,
    ) -> Box<dyn Datagrams> {
        self.numbered(datagrams::listening(port), inbox, connections)
    }

    fn numbered(
        &self,
        number: u32,
        inbox: Arc<dyn Inbox>,
        connections: watch::Receiver<Option<Arc<Connection>>>,
    ) -> Box<dyn Datagrams> {
        self.inboxes().insert(number, inbox);
        Box::new(Socket {
            number,
            sockets: self.clone(),
            connections,
        })
    }

    /// Speaks on `stream`, until it ends, and its connection, which `ended` tells.
    pub fn carry(
        &self,
        stream: Stream,
        tracker: &TaskTracker,
        ended: &CancellationToken,
    ) -> Arc<Outbox> {
        let outbox = Outbox::new();
        let draining = {
            let outbox = outbox.clone();
            async move { outbox.drain(stream.writer).await }
        };
        tracker.spawn(ended.clone().run_until_cancelled_owned(draining));
        let (sockets, mut frames) = (self.clone(), FrameReader::new(stream.reader));
        tracker.spawn(async move {
            while let Ok(Some(frame)) = frames.next().await {
                sockets.deliver(&frame);
            }
        });
        outbox
    }

    fn deliver(&self, frame: &Frame) {
        // It may have been closed meanwhile.
        let Some(inbox) = self.inboxes().get(&frame.socket).cloned() else {
            return;
        };
        match (frame.kind, frame.payload.first()) {
            (Kind::Datagram, _) => inbox.datagram(frame.peer, &frame.payload),
            (Kind::Unreachable, Some(code)) => inbox.unreachable(frame.peer, *code),
            _ => {}
        }
    }
}

struct Socket {
    number: u32,
    sockets: Sockets,
    connections: watch::Receiver<Option<Arc<Connection>>>,
}

impl Socket {
    fn say(&self, kind: Kind, peer: SocketAddr, payload: &[u8]) {
        let connection = self.connections.borrow();
        let outbox = connection.as_ref().and_then(|it| it.datagrams());
        if !outbox.is_some_and(|outbox| outbox.send(kind, self.number, peer, payload)) {
            tracing::debug!(%peer, "there is no room for a datagram, or no link");
        }
    }
}

impl Datagrams for Socket {
    fn send(&self, to: SocketAddr, payload: &[u8]) {
        self.say(Kind::Datagram, to, payload);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.sockets.inboxes().remove(&self.number);
        self.say(Kind::Close, ([0; 4], 0).into(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tunnel::stream::memory;

    struct Heard(mpsc::UnboundedSender<String>);

    impl Inbox for Heard {
        fn datagram(&self, from: SocketAddr, payload: &[u8]) {
            let text = String::from_utf8_lossy(payload);
            self.0.send(format!("{text} from {from}")).unwrap();
        }

        fn unreachable(&self, to: SocketAddr, code: u8) {
            self.0.send(format!("{code} of {to}")).unwrap();
        }
    }

    #[tokio::test]
    async fn what_comes_finds_its_socket() {
        let sockets = Sockets::default();
        let (far, near) = memory::pair();
        let outbox = Outbox::new();
        let sending = outbox.clone();
        tokio::spawn(async move { sending.drain(far.writer).await });
        let ended = CancellationToken::new();
        sockets.carry(near, &TaskTracker::new(), &ended);
        let none = watch::Sender::new(None);
        let (heard, mut said) = mpsc::unbounded_channel();
        let inbox = |heard: &mpsc::UnboundedSender<String>| Arc::new(Heard(heard.clone()));
        let first = sockets.socket(inbox(&heard), none.subscribe());
        let _second = sockets.socket(inbox(&heard), none.subscribe());
        let peer = "198.18.0.1:53".parse().unwrap();
        outbox.send(Kind::Datagram, 1, peer, b"to the second");
        outbox.send(Kind::Unreachable, 0, peer, &[3]);
        assert_eq!(
            said.recv().await.unwrap(),
            "to the second from 198.18.0.1:53"
        );
        assert_eq!(said.recv().await.unwrap(), "3 of 198.18.0.1:53");
        drop(first);
        outbox.send(Kind::Datagram, 0, peer, b"to nobody");
        outbox.send(Kind::Datagram, 1, peer, b"next");
        assert_eq!(said.recv().await.unwrap(), "next from 198.18.0.1:53");
    }
}
