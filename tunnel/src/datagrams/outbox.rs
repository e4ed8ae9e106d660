//! Frames on their way to the stream.

use super::{Frame, Kind};
use crate::stream::{Reset, Writer};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What waits to be sent, in bytes: about what a socket of the kernel's holds (net.core.wmem_default).
const LIMIT: usize = 256 << 10;

/// Takes frames without waiting, for whoever writes them to the stream.
#[derive(Debug, Default)]
pub struct Outbox {
    wire: Mutex<BytesMut>,
    filled: Notify,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Arc<Outbox> {
        Arc::default()
    }

    fn wire(&self) -> MutexGuard<'_, BytesMut> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame; `false` if it found no room, and is lost.
    pub fn send(&self, kind: Kind, socket: u32, peer: SocketAddr, payload: &[u8]) -> bool {
        let mut wire = self.wire();
        if wire.len() + Frame::length(payload) > LIMIT {
            return false;
        }
        Frame::encode(&mut wire, kind, socket, peer, payload);
        self.filled.notify_one();
        true
    }

    /// Writes what comes to `writer`, for as long as that takes it.
    ///
    /// # Errors
    /// [`Reset`] if the stream was, which is the only end.
    pub async fn drain(&self, mut writer: Box<dyn Writer>) -> Result<(), Reset> {
        loop {
            self.filled.notified().await;
            let wire = self.wire().split();
            if !wire.is_empty() {
                writer.write(wire.freeze()).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagrams::FrameReader;
    use crate::stream::memory;

    #[tokio::test]
    async fn frames_arrive_in_order_and_what_finds_no_room_is_lost() {
        let outbox = Outbox::new();
        let peer = "198.18.0.1:53".parse().unwrap();
        let payload = [0; 1000];
        let mut taken = 0;
        while outbox.send(Kind::Datagram, taken, peer, &payload) {
            taken += 1;
        }
        let room = LIMIT / Frame::length(&payload);
        assert_eq!(usize::try_from(taken).unwrap(), room);

        let (near, far) = memory::pair();
        let draining = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.drain(near.writer).await }
        });
        let mut frames = FrameReader::new(far.reader);
        for number in 0..taken {
            assert_eq!(frames.next().await.unwrap().unwrap().socket, number);
        }
        assert!(outbox.send(Kind::Close, taken, peer, &[]));
        let next = frames.next().await.unwrap().unwrap();
        assert_eq!((next.kind, next.socket), (Kind::Close, taken));
        drop(frames);
        outbox.send(Kind::Close, taken, peer, &[]);
        assert_eq!(draining.await.unwrap(), Err(Reset));
    }
}
