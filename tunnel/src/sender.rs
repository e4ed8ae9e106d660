//! One of those that send on a connection, as its [gate](crate::gate) knows it.

use crate::attention::SenderId;
use crate::gate::{Gate, Turn};
use tokio::time::Instant;

/// Asks for turns. Small pieces of one that sends little pass all others, as far as the gate lets them.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    gate: &'a Gate,
    id: SenderId,
    quiet: Quiet,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(gate: &'a Gate) -> Sender<'a> {
        Sender {
            gate,
            id: gate.queue().attention.sender(),
            quiet: Quiet::new(),
        }
    }

    /// Waits until `count` bytes may be sent. Returns at once when the connection has ended.
    ///
    /// Cancel-safe.
    pub(crate) async fn turn(&mut self, count: usize) -> Turn<'a> {
        let now = Instant::now();
        if self.quiet.passes(count, now) {
            self.gate.queue().attention.said(self.id, now);
            if let Some(turn) = self.gate.pass(count) {
                return turn;
            }
        } else {
            self.gate.queue().attention.forget(self.id);
        }
        self.gate.turn(count).await
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        self.gate.queue().attention.forget(self.id);
    }
}

/// Tells a stream that sends little, whose bytes need not wait for their turn, from bulk.
#[derive(Debug)]
struct Quiet {
    /// Bytes that may still pass.
    allowance: u64,
    since: Instant,
}

impl Quiet {
    /// Bytes that may pass at once, ...
    const BURST: u64 = 16 << 10;
    /// ... and per millisecond: 2 MiB/s, more than anybody types or asks.
    const PER_MILLISECOND: u64 = 2 << 10;
    /// Longer pieces are bulk.
    const LONGEST: usize = 4 << 10;

    fn new() -> Quiet {
        Quiet {
            allowance: Quiet::BURST,
            since: Instant::now(),
        }
    }

    fn passes(&mut self, count: usize, now: Instant) -> bool {
        let elapsed = u64::try_from((now - self.since).as_millis()).unwrap_or(u64::MAX);
        if elapsed > 0 {
            let fresh = elapsed.saturating_mul(Quiet::PER_MILLISECOND);
            self.allowance = self.allowance.saturating_add(fresh).min(Quiet::BURST);
            self.since = now;
        }
        let spent = count as u64;
        if count > Quiet::LONGEST || spent > self.allowance {
            return false;
        }
        self.allowance -= spent;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Buf;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::{sleep_until, timeout_at};

    #[tokio::test(start_paused = true)]
    async fn bulk_in_small_pieces_does_not_pass() {
        let now = Instant::now();
        let mut quiet = Quiet::new();
        let longest = (0..9).filter(|_| quiet.passes(Quiet::LONGEST, now));
        assert_eq!(longest.count() * Quiet::LONGEST, 16 << 10);

        let mut quiet = Quiet::new();
        assert!(quiet.passes(64, now));
        assert!(!quiet.passes(Quiet::LONGEST + 1, now));
        let passed = (0..1000).filter(|_| quiet.passes(1000, now)).count();
        assert!(passed <= 16, "{passed}");
        assert!(quiet.passes(1000, now + Duration::from_millis(100)));
    }

    /// Sends pieces of `count` bytes, `pause` apart; returns how many bytes it was allowed in `time`.
    async fn send(gate: Arc<Gate>, count: usize, pause: Duration, time: Duration) -> usize {
        let (mut sender, end) = (Sender::new(&gate), Instant::now() + time);
        let mut sent = 0;
        while let Ok(turn) = timeout_at(end, sender.turn(count)).await {
            gate.queue().append(&vec![0; count]);
            turn.sent(count);
            sent += count;
            sleep_until((Instant::now() + pause).min(end)).await;
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_little_but_more_than_the_path_carries_leaves_bulk_its_turns() {
        const TIME: Duration = Duration::from_secs(10);
        let gate = Gate::new();
        // 1.5 MB/s and more over a path that carries a little more than 1 MB/s.
        let _little = tokio::spawn(send(gate.clone(), 3000, Duration::from_millis(2), TIME));
        let bulk = tokio::spawn(send(gate.clone(), 32 << 10, Duration::ZERO, TIME));
        let mut longest = 0;
        while !bulk.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut queue = gate.queue();
            longest = longest.max(queue.unsent());
            let written = queue.unsent().min(1 << 10);
            queue.bytes.advance(written);
            drop(queue);
            gate.drained();
        }
        assert!(longest < 400 << 10, "{longest}");
        let bulk = bulk.await.unwrap();
        assert!(bulk > 1 << 20, "{bulk}");
    }

    #[tokio::test(start_paused = true)]
    async fn attention_is_due_while_one_that_sends_little_is_there() {
        let gate = Gate::new();
        let is_due = || gate.queue().attention.is_due(Instant::now());
        let (mut little, mut bulk) = (Sender::new(&gate), Sender::new(&gate));
        bulk.turn(9).await.sent(0);
        assert!(is_due());
        bulk.turn(32 << 10).await.sent(0);
        assert!(!is_due(), "it was the begin of bulk");
        little.turn(64).await.sent(0);
        bulk.turn(32 << 10).await.sent(0);
        assert!(is_due());
        drop(little);
        assert!(!is_due());
    }
}
