//! A stream's state, shared between who reads and writes it and who carries it.

use super::state::{Credit, Next, Read, State};
use super::{Position, Reader, Reset, Stream, Violation, Writer};
use crate::credit::Share;
use crate::record::Record;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// A stream at one end. Each of those that may wait for it has a bell of its own.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// For the reader: something arrived.
    arrived: Notify,
    /// For the writer: there is room.
    room: Notify,
    /// For the leg: there is something to send, ...
    output: Notify,
    /// ... or to tell of what was received.
    credit: Notify,
    /// What plain peers of one connection may have here unread, in bytes.
    pool: Option<Arc<Semaphore>>,
}

impl Shared {
    /// A stream between our own ends; `share` is what its peer may send.
    pub(crate) fn with_credit(share: Share) -> Arc<Shared> {
        Arc::new(Shared::new(State::with_credit(share), None))
    }

    /// A stream with a plain SSH peer; what it sends takes its room out of `pool`.
    pub(crate) fn without_credit(pool: Arc<Semaphore>) -> Arc<Shared> {
        Arc::new(Shared::new(State::without_credit(), Some(pool)))
    }

    fn new(state: State, pool: Option<Arc<Semaphore>>) -> Shared {
        Shared {
            state: Mutex::new(state),
            arrived: Notify::new(),
            room: Notify::new(),
            output: Notify::new(),
            credit: Notify::new(),
            pool,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and gives back the room of what is no longer buffered.
    fn quietly<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.buffered();
        let changed = change(&mut state);
        let freed = before.saturating_sub(state.buffered());
        if let (Some(pool), 1..) = (&self.pool, freed) {
            pool.add_permits(usize::try_from(freed).unwrap_or(0));
        }
        changed
    }

    /// Changes the state, and rings for everybody: who finds nothing waits on.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = self.quietly(change);
        self.arrived.notify_one();
        self.room.notify_one();
        self.output.notify_one();
        self.credit.notify_one();
        changed
    }

    /// The two directions, as the program has them. To be called once.
    pub(crate) fn stream(self: &Arc<Shared>) -> Stream {
        Stream {
            reader: Box::new(SharedReader(self.clone())),
            writer: Box::new(SharedWriter(self.clone())),
        }
    }

    /// See [`State::has_credit`].
    pub(crate) fn has_credit(&self) -> bool {
        self.state().has_credit()
    }

    /// See [`State::position`].
    pub(crate) fn position(&self) -> Position {
        self.state().position()
    }

    /// See [`State::begin`].
    pub(crate) fn begin(&self, position: Option<Position>) -> Result<(), Violation> {
        self.change(|state| state.begin(position))
    }

    /// Room for `bytes` of a plain peer, for which its connection waits; of our own ends nothing is waited for, ever.
    pub(crate) async fn admit(&self, bytes: &Bytes) {
        if let Some(pool) = &self.pool {
            let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            // The semaphore is never closed.
            if let Ok(permit) = pool.acquire_many(count).await {
                permit.forget();
            }
        }
    }

    /// See [`State::data`].
    pub(crate) fn data(&self, bytes: Bytes) -> Result<(), Violation> {
        let length = bytes.len();
        let outcome = {
            let mut state = self.state();
            let before = state.buffered();
            let outcome = state.data(bytes);
            if state.is_reset() {
                // Nobody reads them: the peer is to be told.
                self.output.notify_one();
            }
            if state.credit_is_due() {
                // They were dropped, and made room.
                self.credit.notify_one();
            }
            if let Some(pool) = &self.pool {
                // What is not kept gives the room back that it was admitted to.
                let kept = usize::try_from(state.buffered() - before).unwrap_or(0);
                pool.add_permits(length.saturating_sub(kept));
            }
            outcome
        };
        self.arrived.notify_one();
        outcome
    }

    /// See [`State::record`].
    pub(crate) fn record(&self, record: Record) -> Result<(), Violation> {
        self.change(|state| state.record(record))
    }

    /// See [`State::eof`].
    pub(crate) fn eof(&self) -> Result<(), Violation> {
        self.change(State::eof)
    }

    /// See [`State::is_reset`].
    pub(crate) fn is_reset(&self) -> bool {
        self.state().is_reset()
    }

    /// See [`State::is_over`].
    pub(crate) fn is_over(&self) -> bool {
        self.state().is_over()
    }

    /// See [`State::reset`].
    pub(crate) fn reset(&self) {
        self.change(State::reset);
    }

    /// See [`State::lose`].
    pub(crate) fn lose(&self) {
        self.change(State::lose);
    }

    /// Waits for the next thing to send; never [`Next::Nothing`]. Cancel-safe.
    pub(crate) async fn next(&self) -> Next {
        loop {
            match self.state().next() {
                Next::Nothing => {}
                next => return next,
            }
            self.output.notified().await;
        }
    }

    /// See [`State::take`]. What is taken counts as sent on the leg at hand.
    pub(crate) fn take(&self, most: usize) -> Option<Bytes> {
        let bytes = self.state().take(most);
        self.room.notify_one();
        bytes
    }

    /// See [`State::take_fin`].
    pub(crate) fn take_fin(&self) -> Option<Record> {
        self.state().take_fin()
    }

    /// See [`State::take_reset`].
    pub(crate) fn take_reset(&self) -> Record {
        self.state().take_reset()
    }

    /// Waits for the next thing to tell of what was received; `None` after the last. Cancel-safe, but what was returned counts
    /// as told on the leg at hand.
    pub(crate) async fn credit(&self) -> Option<Record> {
        loop {
            match self.state().take_credit() {
                Credit::Due(record) => return Some(record),
                Credit::Over => return None,
                Credit::Nothing => {}
            }
            self.credit.notified().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What was never read takes no room any more.
        self.quietly(State::leave_unread);
    }
}

struct SharedReader(Arc<Shared>);

#[async_trait]
impl Reader for SharedReader {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        let shared = &self.0;
        loop {
            let (read, credit_is_due) =
                shared.quietly(|state| (state.read(), state.credit_is_due()));
            if credit_is_due {
                shared.credit.notify_one();
            }
            match read {
                Read::Bytes(bytes) => return Ok(Some(bytes)),
                Read::End => return Ok(None),
                Read::Reset => return Err(Reset),
                Read::Nothing => shared.arrived.notified().await,
            }
        }
    }

    async fn lost(&mut self) {
        while !self.0.state().is_reset() {
            self.0.arrived.notified().await;
        }
    }
}

impl Drop for SharedReader {
    fn drop(&mut self) {
        self.0.change(State::leave_unread);
    }
}

struct SharedWriter(Arc<Shared>);

#[async_trait]
impl Writer for SharedWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Reset> {
        let shared = &self.0;
        while !bytes.is_empty() {
            let written = {
                let mut state = shared.state();
                let room = state.room(bytes.len()).ok_or(Reset)?;
                if room > 0 {
                    state.write(bytes.split_to(room));
                }
                room
            };
            match written {
                0 => shared.room.notified().await,
                _ => shared.output.notify_one(),
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Reset> {
        self.0.change(|state| {
            state.finish();
            match state.is_reset() {
                true => Err(Reset),
                false => Ok(()),
            }
        })
    }

    async fn reset(&mut self) {
        self.0.reset();
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        self.0.change(|state| {
            if !state.is_finished() {
                state.reset();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::{Budget, TOTAL};
    use futures::FutureExt;

    fn ours() -> (Arc<Shared>, Stream) {
        let shared = Shared::with_credit(Budget::new(TOTAL).share().unwrap());
        let stream = shared.stream();
        (shared, stream)
    }

    #[tokio::test]
    async fn a_reset_is_known_at_once_to_all() {
        let (shared, mut stream) = ours();
        assert!(stream.reader.lost().now_or_never().is_none());
        stream.writer.reset().await;
        assert!(shared.is_reset());
        assert_eq!(stream.reader.lost().now_or_never(), Some(()));
        assert_eq!(stream.reader.read().await, Err(Reset));
        assert_eq!(stream.writer.write("x".into()).await, Err(Reset));
    }

    #[tokio::test]
    async fn a_peer_is_told_when_enough_was_read() {
        let (shared, mut stream) = ours();
        let start = Position {
            received: 0,
            limit: 0,
        };
        shared.begin(Some(start)).unwrap();
        assert!(shared.credit().now_or_never().flatten().is_some());
        let mut credit = std::pin::pin!(shared.credit());
        shared.data(vec![0; 64 << 10].into()).unwrap();
        assert_eq!(credit.as_mut().now_or_never(), None);
        stream.reader.read().await.unwrap();
        assert!(credit.now_or_never().flatten().is_some());
    }

    /// ... and when nobody will read: what arrives is dropped, and the peer goes on.
    #[tokio::test]
    async fn a_peer_is_told_of_what_is_dropped() {
        let (shared, stream) = ours();
        let start = Position {
            received: 0,
            limit: 0,
        };
        shared.begin(Some(start)).unwrap();
        assert!(shared.credit().now_or_never().flatten().is_some());
        let Stream {
            reader,
            writer: _writer,
        } = stream;
        drop(reader);
        let telling = async {
            let mut credit = std::pin::pin!(shared.credit());
            assert_eq!(credit.as_mut().now_or_never(), None);
            shared.data(vec![0; 64 << 10].into()).unwrap();
            credit.now_or_never().flatten()
        };
        assert!(telling.await.is_some());
    }

    #[tokio::test]
    async fn a_writer_without_room_leaves_nothing_behind() {
        let (shared, mut stream) = ours();
        let write = stream.writer.write("x".into());
        assert!(write.now_or_never().is_none(), "nothing was promised yet");
        assert_eq!(shared.take(9), None);
    }

    /// What a plain peer sends is admitted while there is room for it, and gives the room back whatever becomes of it.
    #[tokio::test]
    async fn what_plain_peers_have_unread_is_bounded() {
        let pool = Arc::new(Semaphore::new(10));
        let shared = Shared::without_credit(pool.clone());
        let Stream { mut reader, writer } = shared.stream();
        let arrive = || async {
            let bytes = Bytes::from_static(b"8 bytes!");
            shared.admit(&bytes).await;
            shared.data(bytes).unwrap();
        };
        arrive().await;
        assert_eq!(pool.available_permits(), 2);
        assert!(arrive().now_or_never().is_none(), "there is no room");
        reader.read().await.unwrap();
        assert_eq!(pool.available_permits(), 10);

        arrive().await;
        drop(reader);
        assert_eq!(pool.available_permits(), 10, "its reader has gone");
        arrive().await;
        assert_eq!(pool.available_permits(), 10, "nobody reads it");
        drop((writer, shared));
        assert_eq!(pool.available_permits(), 10);
    }

    #[tokio::test]
    async fn what_a_plain_peer_sends_after_its_end_takes_no_room() {
        let pool = Arc::new(Semaphore::new(10));
        let shared = Shared::without_credit(pool.clone());
        for (bytes, taken) in [("4 is", true), ("more", false)] {
            let bytes = Bytes::from(bytes);
            shared.admit(&bytes).await;
            assert_eq!(shared.data(bytes).is_ok(), taken);
            assert_eq!(pool.available_permits(), 6);
            shared.eof().unwrap();
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_unread_gives_its_room_back() {
        let pool = Arc::new(Semaphore::new(10));
        let shared = Shared::without_credit(pool.clone());
        let bytes = Bytes::from_static(b"8 bytes!");
        shared.admit(&bytes).await;
        shared.data(bytes).unwrap();
        assert_eq!(pool.available_permits(), 2);
        drop(shared);
        assert_eq!(pool.available_permits(), 10);
    }
}
