//! Whether anybody waits for the little that streams say.
//!
//! A queue on the path makes bulk faster, as each process on the way finds more to do when it wakes, and everything else slower. So
//! there is one only while nothing but bulk is sent.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Who has said little is expected to say more within twice the time that lies between its words, but at least this, ...
const SHORTEST: Duration = Duration::from_millis(100);
/// ... and at most this. As a name is looked up before bulk begins, bulk waits for the shortest.
const LONGEST: Duration = Duration::from_millis(500);

/// Who said little of late, of the senders of one connection.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    said: HashMap<SenderId, Said>,
    made: u64,
}

#[derive(Debug)]
struct Said {
    last: Instant,
    /// Until when more is expected.
    until: Instant,
}

/// A sender among those of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SenderId(u64);

impl Attention {
    /// One more sender.
    pub(crate) fn sender(&mut self) -> SenderId {
        self.made += 1;
        SenderId(self.made)
    }

    /// The sender said little.
    pub(crate) fn said(&mut self, sender: SenderId, now: Instant) {
        let gap = self.said.get(&sender).map(|said| now - said.last);
        let gap = gap.filter(|gap| *gap < LONGEST).unwrap_or_default();
        let until = now + (gap * 2).clamp(SHORTEST, LONGEST);
        self.said.insert(sender, Said { last: now, until });
    }

    /// The sender is gone, or what it sends is bulk: what it said little of was the begin of that.
    pub(crate) fn forget(&mut self, sender: SenderId) {
        self.said.remove(&sender);
    }

    /// Whether anybody is expected to say more.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.said.retain(|_, said| now - said.last < LONGEST);
        self.said.values().any(|said| now < said.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the next word is no longer expected of one who speaks at these times, in milliseconds.
    fn expected_until(times: &[u64]) -> u64 {
        let (mut attention, begin) = (Attention::default(), Instant::now());
        let sender = attention.sender();
        for time in times {
            attention.said(sender, begin + Duration::from_millis(*time));
        }
        let last = times.last().copied().unwrap_or_default();
        let at = |time| begin + Duration::from_millis(time);
        (last..).find(|time| !attention.is_due(at(*time))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_twice_the_time_between_words_within_bounds() {
        assert_eq!(expected_until(&[]), 0);
        assert_eq!(expected_until(&[0]), 100);
        assert_eq!(expected_until(&[0, 10]), 110);
        assert_eq!(expected_until(&[0, 200]), 600);
        assert_eq!(expected_until(&[0, 450]), 950);
        assert_eq!(expected_until(&[0, 500]), 600, "it was forgotten");
        assert_eq!(expected_until(&[0, 200, 210]), 310);
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
    async fn who_is_silent_is_forgotten() {
        let (mut attention, begin) = (Attention::default(), Instant::now());
        for _ in 0..1000 {
            let sender = attention.sender();
            attention.said(sender, begin);
        }
        assert!(attention.is_due(begin) && attention.said.len() == 1000);
        assert!(!attention.is_due(begin + LONGEST) && attention.said.is_empty());
    }
}
