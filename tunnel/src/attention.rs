//! Whether anybody waits for the little that streams say.
//!
//! A queue on the path makes bulk faster, as each process on the way finds more to do when it wakes, and everything else slower. So
//! there is one only while nothing but bulk is sent.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long somebody is expected to say more after having said little. As a name is looked up before bulk begins, bulk waits as long.
const SPAN: Duration = Duration::from_millis(500);
/// Who speaks again within this is not noted again.
const STEP: Duration = Duration::from_millis(100);

/// Who said little of late, of the senders of one connection. At most ten entries for each.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    said: VecDeque<(Instant, SenderId)>,
    made: u64,
}

/// A sender among those of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderId(u64);

impl Attention {
    /// One more sender.
    pub(crate) fn sender(&mut self) -> SenderId {
        self.made += 1;
        SenderId(self.made)
    }

    /// The sender said little.
    pub(crate) fn said(&mut self, sender: SenderId, now: Instant) {
        let recent = self.said.iter().rev();
        let mut recent = recent.take_while(|(at, _)| now - *at < STEP);
        if recent.all(|(_, who)| *who != sender) {
            self.said.push_back((now, sender));
        }
    }

    /// The sender is gone, or what it sends is bulk: what it said little of was the begin of that.
    pub(crate) fn forget(&mut self, sender: SenderId) {
        self.said.retain(|(_, who)| *who != sender);
    }

    /// Whether anybody is expected to say more.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        while self.said.front().is_some_and(|(at, _)| now - *at >= SPAN) {
            self.said.pop_front();
        }
        !self.said.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_as_long_as_somebody_says_little() {
        let mut attention = Attention::default();
        let (one, other) = (attention.sender(), attention.sender());
        let begin = Instant::now();
        assert!(!attention.is_due(begin));
        attention.said(one, begin);
        attention.said(other, begin + SPAN / 2);
        assert!(attention.is_due(begin + SPAN));
        assert!(!attention.is_due(begin + SPAN / 2 + SPAN));
    }

    #[tokio::test(start_paused = true)]
    async fn the_begin_of_bulk_is_forgotten_and_of_that_only() {
        let mut attention = Attention::default();
        let (one, other) = (attention.sender(), attention.sender());
        let begin = Instant::now();
        attention.said(one, begin);
        attention.said(other, begin);
        attention.forget(one);
        assert!(attention.is_due(begin));
        attention.forget(other);
        assert!(!attention.is_due(begin));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_much_is_noted_ten_times() {
        let mut attention = Attention::default();
        let senders = [attention.sender(), attention.sender()];
        let begin = Instant::now();
        for millisecond in 0..3000 {
            let now = begin + Duration::from_millis(millisecond);
            for sender in senders {
                attention.said(sender, now);
            }
            assert!(attention.is_due(now));
        }
        assert!(attention.said.len() <= 20, "{}", attention.said.len());
    }
}
