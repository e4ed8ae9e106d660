//! One connection's outgoing queue as its senders see it: who may send next, and how much.

use crate::attention::Attention;
use crate::flight::{Flight, REPORT, REPORT_DELAY, REPORT_LEAST};
use bytes::BytesMut;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Unsent bytes above which the gate is shut: enough to keep a fast path busy, little enough for a ping to pass quickly.
const BUDGET: usize = 256 << 10;

/// What may be unsent beyond that, or under way beyond what fills the path, for the little that streams say. Bulk lies there with its last turn,
/// and pings have the rest; were there no end to it, many who send little would be bulk that waits for nobody.
const LITTLE: usize = 64 << 10;

/// Unsent bytes above which the connection is ended. The gate keeps the queue well below; what goes past it (answers to
/// a flood of requests that the peer never reads) must not fill the memory.
pub(crate) const HARD_LIMIT: usize = 64 << 20;

/// See the module. Also what is known of the connection's life: what arrived and when, and its end.
#[derive(Debug)]
pub struct Gate {
    queue: Mutex<Queue>,
    /// Something was queued, or the queue was closed.
    pub(crate) filled: Notify,
    /// There may be room, or the queue was closed.
    room: Notify,
    /// Senders wait in the order they came.
    line: tokio::sync::Mutex<()>,
    ended: CancellationToken,
    received: Mutex<Received>,
    /// So much arrived that the other end should be told, or soon.
    arrivals: Notify,
    pub(crate) identification: OnceLock<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) bytes: BytesMut,
    /// Bytes the draining task has taken and not yet written.
    pub(crate) draining: usize,
    /// Bytes let through the gate that have not reached the queue.
    coming: usize,
    pub(crate) closed: bool,
    pub(crate) reader: Option<Waker>,
    flight: Flight,
    pub(crate) attention: Attention,
}

#[derive(Debug)]
struct Received {
    at: Instant,
    bytes: u64,
    /// Of these, reported to the other end.
    reported: u64,
}

impl Queue {
    /// Bytes in the queue or being written.
    pub(crate) fn unsent(&self) -> usize {
        self.bytes.len() + self.draining
    }

    /// Whether it has some bytes, less than `count`, and more are about to come.
    pub(crate) fn fills(&self, count: usize) -> bool {
        !self.closed && self.coming > 0 && (1..count).contains(&self.bytes.len())
    }

    fn has_room(&mut self) -> bool {
        let attention = self.attention.is_due(Instant::now());
        let flies = self.flight.has_room(self.coming as u64, attention);
        self.unsent() + self.coming < BUDGET && flies
    }

    fn has_room_for_little(&self) -> bool {
        let flies = self
            .flight
            .has_room_beyond(self.coming as u64, LITTLE as u64);
        self.unsent() + self.coming < BUDGET + LITTLE && flies
    }

    /// Takes what SSH writes.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.coming = self.coming.saturating_sub(bytes.len());
        self.flight.sent(bytes.len() as u64, Instant::now());
    }
}

/// The right to send some bytes. What was not [sent](Turn::sent) when it is dropped goes back.
#[derive(Debug)]
#[must_use]
pub struct Turn<'a> {
    gate: &'a Gate,
    count: usize,
}

impl Turn<'_> {
    /// Of the bytes asked for, `count` were handed to SSH, which will queue them.
    pub fn sent(mut self, count: usize) {
        self.count = self.count.saturating_sub(count);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            let mut queue = self.gate.queue();
            queue.coming = queue.coming.saturating_sub(self.count);
            drop(queue);
            self.gate.room.notify_one();
        }
    }
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        let now = Instant::now();
        Arc::new(Gate {
            queue: Mutex::new(Queue {
                bytes: BytesMut::new(),
                draining: 0,
                coming: 0,
                closed: false,
                reader: None,
                flight: Flight::new(now),
                attention: Attention::default(),
            }),
            filled: Notify::new(),
            room: Notify::new(),
            line: tokio::sync::Mutex::default(),
            ended: CancellationToken::new(),
            received: Mutex::new(Received {
                at: now,
                bytes: 0,
                reported: 0,
            }),
            arrivals: Notify::new(),
            identification: OnceLock::new(),
        })
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `count` bytes may be sent, in the order of asking. Returns at once when the connection has ended.
    ///
    /// Cancel-safe: a dropped future gives its place to the next.
    pub async fn turn(&self, count: usize) -> Turn<'_> {
        let _line = self.line.lock().await;
        loop {
            {
                let mut queue = self.queue();
                if queue.closed || queue.has_room() {
                    queue.coming += count;
                    return Turn { gate: self, count };
                }
            }
            self.room.notified().await;
        }
    }

    /// Lets `count` bytes pass all who wait: few bytes of a stream that sends little. `None` while so many have passed that they have
    /// to wait, too.
    pub fn pass(&self, count: usize) -> Option<Turn<'_>> {
        let mut queue = self.queue();
        if !queue.has_room_for_little() {
            return None;
        }
        queue.coming += count;
        Some(Turn { gate: self, count })
    }

    /// Some of the queue was written.
    pub(crate) fn drained(&self) {
        self.room.notify_one();
    }

    /// Ends the connection: pending and future reads and writes fail.
    pub fn close(&self) {
        let reader = {
            let mut queue = self.queue();
            queue.closed = true;
            queue.reader.take()
        };
        self.ended.cancel();
        self.filled.notify_one();
        self.room.notify_one();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits for the connection's end. Cancel-safe.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// When the last byte arrived from the other end (at first: when the connection was made).
    pub fn last_received(&self) -> Instant {
        self.received().at
    }

    /// Bytes sent and received so far.
    pub fn carried(&self) -> u64 {
        self.queue().flight.total() + self.received().bytes
    }

    /// The other end's identification string, once it has arrived. russh shows it to a server, but not to a client.
    pub fn identification(&self) -> Option<&[u8]> {
        self.identification.get().map(Vec::as_slice)
    }

    /// `count` bytes arrived.
    pub(crate) fn receive(&self, count: usize) {
        let mut received = self.received();
        received.at = Instant::now();
        let before = received.bytes - received.reported;
        received.bytes += count as u64;
        let now = received.bytes - received.reported;
        let crosses = |threshold| before < threshold && now >= threshold;
        if crosses(REPORT_LEAST) || crosses(REPORT) {
            drop(received);
            self.arrivals.notify_one();
        }
    }

    /// Waits until the other end should be told how much has arrived, and returns that.
    ///
    /// Cancel-safe.
    pub(crate) async fn arrivals(&self) -> u64 {
        loop {
            let (due, soon) = {
                let received = self.received();
                let new = received.bytes - received.reported;
                (new >= REPORT, new >= REPORT_LEAST)
            };
            let news = self.arrivals.notified();
            if !due && !soon {
                news.await;
            } else {
                let waited = due || timeout(REPORT_DELAY, news).await.is_err();
                if waited {
                    let mut received = self.received();
                    received.reported = received.bytes;
                    return received.bytes;
                }
            }
        }
    }

    /// The other end reports how much has arrived there.
    pub(crate) fn arrived(&self, total: u64) {
        self.queue().flight.arrived(total, Instant::now());
        self.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;
    use tokio::task::JoinSet;

    const TURN: usize = 32 << 10;

    /// Takes a turn, and does what SSH does with its bytes.
    async fn send(gate: &Gate) {
        let turn = gate.turn(TURN).await;
        gate.queue().append(&[0; TURN]);
        turn.sent(TURN);
    }

    /// What the transport takes.
    fn drain(gate: &Gate) -> usize {
        let count = {
            let mut queue = gate.queue();
            let count = queue.bytes.len();
            queue.bytes.clear();
            count
        };
        gate.drained();
        count
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_stays_short_whoever_sends() {
        let gate = Gate::new();
        let mut senders = JoinSet::new();
        for _ in 0..16 {
            let gate = gate.clone();
            senders.spawn(async move {
                for _ in 0..100 {
                    send(&gate).await;
                }
            });
        }
        let (mut total, mut longest) = (0, 0);
        while total < 1600 * TURN {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let count = drain(&gate);
            longest = longest.max(count);
            total += count;
        }
        senders.join_all().await;
        assert!(longest <= BUDGET, "{longest}");
    }

    #[test]
    fn a_queue_fills_while_it_has_something_and_more_is_coming() {
        let gate = Gate::new();
        let fills = || gate.queue().fills(100);
        assert!(!fills(), "it is empty");
        let turn = gate.pass(120).unwrap();
        assert!(!fills(), "it is still empty");
        gate.queue().append(&[0; 99]);
        assert!(fills());
        gate.queue().append(&[0; 1]);
        assert!(!fills(), "it is full");
        drain(&gate);
        gate.queue().append(&[0; 19]);
        assert!(fills());
        gate.queue().append(&[0; 1]);
        assert!(!fills(), "no more is coming");
        turn.sent(120);
        let _more = gate.pass(1);
        assert!(fills());
        gate.close();
        assert!(!fills(), "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_of_asking() {
        let gate = Gate::new();
        let order = Arc::new(Mutex::new(vec![]));
        let mut senders = JoinSet::new();
        for n in 0..20 {
            let (gate, order) = (gate.clone(), order.clone());
            senders.spawn(async move {
                send(&gate).await;
                order.lock().unwrap().push(n);
            });
            tokio::task::yield_now().await;
        }
        while !senders.is_empty() {
            drain(&gate);
            senders.join_next().await;
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_used_goes_back() {
        let gate = Gate::new();
        let unused = gate.turn(BUDGET).await;
        let waiting = timeout(Duration::from_secs(1), gate.turn(1));
        assert!(waiting.await.is_err(), "all is taken");
        drop(gate.pass(1).unwrap());
        drop(unused);
        let partly = gate.turn(BUDGET).await;
        partly.sent(0);
        gate.turn(1).await.sent(1);
    }

    #[tokio::test(start_paused = true)]
    async fn few_bytes_pass_and_after_the_end_nobody_waits() {
        let gate = Gate::new();
        let _all = gate.turn(BUDGET).await;
        drop(gate.pass(64).unwrap());
        gate.close();
        let _ = gate.turn(BUDGET).await;
        gate.ended().await;
        assert!(gate.has_ended());
    }

    /// Whoever waits for a report is woken for that, and not before.
    #[tokio::test(start_paused = true)]
    async fn a_report_is_waited_for() {
        let gate = Gate::new();
        let reporting = |gate: &Arc<Gate>| {
            let gate = gate.clone();
            tokio::spawn(async move { gate.arrivals().await })
        };
        let first = reporting(&gate);
        let least = usize::try_from(REPORT_LEAST).unwrap();
        gate.receive(least - 1);
        tokio::time::sleep(REPORT_DELAY * 10).await;
        assert!(!first.is_finished(), "it is not worth it");
        let before = Instant::now();
        gate.receive(1);
        assert_eq!(first.await.unwrap(), REPORT_LEAST);
        assert_eq!(before.elapsed(), REPORT_DELAY);

        let second = reporting(&gate);
        let before = Instant::now();
        gate.receive(least);
        tokio::time::sleep(REPORT_DELAY / 5).await;
        gate.receive(usize::try_from(REPORT).unwrap() - least);
        assert_eq!(second.await.unwrap(), REPORT_LEAST + REPORT);
        assert_eq!(before.elapsed(), REPORT_DELAY / 5);

        // What comes meanwhile does not put it off.
        let third = reporting(&gate);
        let before = Instant::now();
        gate.receive(least);
        tokio::time::sleep(REPORT_DELAY / 5).await;
        gate.receive(1);
        assert_eq!(third.await.unwrap(), 2 * REPORT_LEAST + REPORT + 1);
        assert_eq!(before.elapsed(), REPORT_DELAY);
        gate.queue().append(&[0; 9]);
        assert_eq!(gate.carried(), 2 * REPORT_LEAST + REPORT + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_unsent_and_what_passes_is_coming() {
        let gate = Gate::new();
        gate.queue().append(&[0; BUDGET / 2]);
        gate.queue().draining = BUDGET / 4;
        let passing = gate.pass(BUDGET / 4 - 1).unwrap();
        let last = gate.turn(1).await;
        assert!(!gate.queue().has_room(), "all is taken");
        last.sent(1);
        gate.queue().append(&[0]);
        assert!(!gate.queue().has_room(), "it is unsent now");
        drop(passing);
        assert!(gate.queue().has_room());
    }

    /// However many send little: what passes bulk is bounded, be it unsent or under way.
    #[tokio::test(start_paused = true)]
    async fn little_passes_bulk_up_to_a_bound() {
        const PIECE: usize = 1 << 10;
        for under_way in [false, true] {
            let gate = Gate::new();
            gate.arrived(0);
            while let Some(turn) = gate.turn(TURN).now_or_never() {
                gate.queue().append(&[0; TURN]);
                turn.sent(TURN);
            }
            if under_way {
                drain(&gate);
            }
            for _ in 0..LITTLE / PIECE {
                let turn = gate.pass(PIECE).expect("it passes bulk");
                gate.queue().append(&[0; PIECE]);
                turn.sent(PIECE);
            }
            assert!(gate.pass(1).is_none(), "it waits like bulk");
            drain(&gate);
            gate.arrived(gate.carried());
            assert!(gate.pass(PIECE).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reports_open_the_gate() {
        let gate = Gate::new();
        gate.arrived(0);
        gate.queue().append(&[0; BUDGET]);
        drain(&gate);
        let waiting = timeout(Duration::from_secs(1), gate.turn(1));
        assert!(waiting.await.is_err(), "all is under way");
        let (turn, ()) = tokio::join!(gate.turn(1), async { gate.arrived(BUDGET as u64) });
        turn.sent(0);
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_are_reported_when_it_is_worth_it() {
        let gate = Gate::new();
        gate.receive(100);
        let silence = timeout(Duration::from_secs(60), gate.arrivals());
        assert!(
            silence.await.is_err(),
            "a report would be answered by a report"
        );

        let before = Instant::now();
        gate.receive(2000);
        assert_eq!(gate.arrivals().await, 2100);
        assert!(before.elapsed() >= REPORT_DELAY);

        // Who waits already is woken for it, each time.
        for total in [152_100, 302_100] {
            let before = Instant::now();
            let mut report = std::pin::pin!(gate.arrivals());
            assert_eq!(report.as_mut().now_or_never(), None);
            gate.receive(150_000);
            assert_eq!(report.await, total);
            assert!(before.elapsed() < REPORT_DELAY);
        }
    }
}
