//! The receiving direction of a stream: what arrived and was not read, and what the peer was promised to be taken.

use super::Violation;
use super::sending::SMALL;
use crate::credit::Share;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Offsets count the bytes of the direction from its begin; its end (FIN) counts as one more.
#[derive(Debug)]
pub(super) struct Receiving {
    whole: VecDeque<Bytes>,
    /// Follows `whole`: small pieces, joined, as each on its own costs more than it holds.
    tail: BytesMut,
    received: u64,
    consumed: u64,
    fin: bool,
    credit: Option<Credit>,
}

/// What the peer was told.
#[derive(Debug)]
struct Credit {
    share: Share,
    /// The limit it was told last.
    promised: u64,
    /// It knows that this much arrived.
    acknowledged: u64,
    /// To be told again, whatever changed: on a new leg, or at the end.
    due: bool,
    /// Where the share was extended last.
    extended: u64,
}

/// What [`Receiving::read`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(Bytes),
    End,
    Nothing,
}

impl Receiving {
    /// From a peer that keeps to what `share` promises.
    pub(super) fn with_credit(share: Share) -> Receiving {
        let promised = share.bytes();
        Receiving::new(Some(Credit {
            share,
            promised,
            acknowledged: 0,
            due: false,
            extended: 0,
        }))
    }

    /// From a peer that cannot be told what is taken.
    pub(super) fn without_credit() -> Receiving {
        Receiving::new(None)
    }

    fn new(credit: Option<Credit>) -> Receiving {
        Receiving {
            whole: VecDeque::new(),
            tail: BytesMut::new(),
            received: 0,
            consumed: 0,
            fin: false,
            credit,
        }
    }

    /// Bytes that arrived and were not read.
    pub(super) fn buffered(&self) -> u64 {
        self.received - self.consumed
    }

    /// What arrived so far, the end included: where the peer goes on if the leg is lost.
    pub(super) fn position(&self) -> u64 {
        self.received + u64::from(self.fin)
    }

    /// Up to where the peer may send.
    pub(super) fn promised(&self) -> u64 {
        self.credit
            .as_ref()
            .map_or(u64::MAX, |credit| credit.promised)
    }

    /// Bytes arrived.
    pub(super) fn data(&mut self, bytes: Bytes) -> Result<(), Violation> {
        if self.fin {
            return Err(Violation("sent bytes after its end"));
        }
        let received = self.received + bytes.len() as u64;
        if received > self.promised() {
            return Err(Violation("sent more than it may"));
        }
        self.received = received;
        if bytes.len() < SMALL {
            if self.tail.len() + bytes.len() > 4 * SMALL {
                self.whole.push_back(self.tail.split().freeze());
            }
            self.tail.extend_from_slice(&bytes);
        } else {
            if !self.tail.is_empty() {
                self.whole.push_back(self.tail.split().freeze());
            }
            self.whole.push_back(bytes);
        }
        Ok(())
    }

    /// The peer's end arrived; `at` is where it has it, if it says.
    pub(super) fn fin(&mut self, at: Option<u64>) -> Result<(), Violation> {
        if at.is_some_and(|at| at != self.received) {
            return Err(Violation("ended at another place than its bytes"));
        }
        self.fin = true;
        if let Some(credit) = &mut self.credit {
            credit.due = true;
        }
        Ok(())
    }

    /// Takes out what comes next.
    pub(super) fn read(&mut self) -> Found {
        let bytes = match self.whole.pop_front() {
            Some(bytes) => bytes,
            None if !self.tail.is_empty() => self.tail.split().freeze(),
            None if self.fin => return Found::End,
            None => return Found::Nothing,
        };
        self.consumed += bytes.len() as u64;
        Found::Bytes(bytes)
    }

    /// Has the peer told what arrived and what is taken, on a new leg.
    pub(super) fn restate(&mut self) {
        if let Some(credit) = &mut self.credit {
            credit.due = true;
        }
    }

    /// Whether the peer is to be told anything.
    pub(super) fn credit_is_due(&self) -> bool {
        self.credit.as_ref().is_some_and(|credit| credit.due) || self.is_worth_telling()
    }

    /// Whether so much was read that the peer may send a good deal more.
    fn is_worth_telling(&self) -> bool {
        let fresh = |credit: &Credit| {
            let begun = credit.promised.saturating_sub(credit.share.bytes());
            self.consumed.saturating_sub(begun) >= credit.share.bytes() / 4
        };
        !self.fin && self.credit.as_ref().is_some_and(fresh)
    }

    /// What the peer is to be told now, if anything: what arrived, and the limit.
    pub(super) fn take_credit(&mut self) -> Option<(u64, u64)> {
        let (position, worth_it) = (self.position(), self.is_worth_telling());
        let all_read = self.buffered() == 0;
        let credit = self.credit.as_mut()?;
        if !credit.due && !worth_it {
            return None;
        }
        // A reader that has taken everything waits for the network: more may be under way.
        let keeps_up = all_read && self.consumed - credit.extended >= credit.share.bytes();
        if worth_it && keeps_up && credit.share.extend() {
            credit.extended = self.consumed;
        }
        if !self.fin {
            credit.promised = credit.promised.max(self.consumed + credit.share.bytes());
        }
        credit.acknowledged = position;
        credit.due = false;
        Some((position, credit.promised))
    }

    /// Whether the peer's end arrived, and it was told so.
    pub(super) fn is_complete(&self) -> bool {
        let told = |credit: &Credit| credit.acknowledged > self.received;
        self.fin && self.credit.as_ref().is_none_or(told)
    }

    /// Whether the peer's end arrived.
    pub(super) fn has_ended(&self) -> bool {
        self.fin
    }

    /// Forgets what nobody will read any more.
    pub(super) fn clear(&mut self) {
        self.whole.clear();
        self.tail = BytesMut::new();
        self.consumed = self.received;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::{Budget, INITIAL, TOTAL};

    const KIB: usize = 1 << 10;

    fn receiving() -> Receiving {
        Receiving::with_credit(Budget::new(TOTAL).share().unwrap())
    }

    fn read(receiving: &mut Receiving) -> Option<usize> {
        match receiving.read() {
            Found::Bytes(bytes) => Some(bytes.len()),
            _ => None,
        }
    }

    #[test]
    fn small_pieces_are_joined_and_others_left_alone() {
        let nine = [2 * KIB; 9];
        let cases: [(&[usize], &[usize]); 2] = [
            (&[100, 100, SMALL, 100], &[200, SMALL, 100]),
            (&nine, &[4 * SMALL, 2 * KIB]),
        ];
        for (pieces, found) in cases {
            let mut receiving = receiving();
            for piece in pieces {
                receiving.data(vec![0; *piece].into()).unwrap();
            }
            let read: Vec<_> = std::iter::from_fn(|| read(&mut receiving)).collect();
            assert_eq!(read, found);
        }
    }

    /// What the peer is told while it sends 16 KiB at a time, `behind` of which the reader leaves: where the reader is, and how much the
    /// peer may send from there, in KiB.
    fn told(behind: usize, pieces: usize) -> Vec<(u64, u64)> {
        let (mut receiving, mut told) = (receiving(), vec![]);
        for piece in 0..pieces {
            receiving.data(vec![0; 16 * KIB].into()).unwrap();
            if piece >= behind {
                read(&mut receiving).unwrap();
            }
            let due = receiving.credit_is_due();
            let credit = receiving.take_credit();
            assert_eq!(credit.is_some(), due);
            if let Some((position, limit)) = credit {
                assert_eq!(position, receiving.received);
                told.push((receiving.consumed >> 10, (limit - receiving.consumed) >> 10));
            }
        }
        told
    }

    #[test]
    fn the_peer_is_told_at_every_quarter_and_gets_more_after_a_whole_share() {
        let grows = [
            (16, 64),
            (32, 64),
            (48, 64),
            (64, 128),
            (96, 128),
            (128, 128),
            (160, 128),
            (192, 256),
        ];
        assert_eq!(told(0, 12), grows);
        let stays = [16, 32, 48, 64, 80, 96].map(|consumed| (consumed, 64));
        assert_eq!(told(1, 7), stays);
    }

    /// Lets the peer send all it may, and the reader take it, until it may send no more than before.
    fn promised_at_last(receiving: &mut Receiving) -> u64 {
        let mut last = 0;
        loop {
            let promised = receiving.promised() - receiving.consumed;
            if promised == last {
                return promised;
            }
            last = promised;
            let all = usize::try_from(promised).unwrap();
            receiving.data(vec![0; all].into()).unwrap();
            while read(receiving).is_some() {}
            receiving.take_credit().unwrap();
        }
    }

    #[test]
    fn a_share_that_was_short_grows_once_others_are_given_back() {
        let budget = Budget::new(1 << 20);
        let mut others: Vec<_> = std::iter::from_fn(|| budget.share()).collect();
        let mut receiving = Receiving::with_credit(others.pop().unwrap());
        let short = receiving.promised();
        assert_eq!(promised_at_last(&mut receiving), short);
        drop(others);
        let promised = promised_at_last(&mut receiving);
        assert!(promised > (1 << 20) / 4, "{promised}");
    }

    #[test]
    fn what_is_to_be_told_again_is_told_once() {
        let mut receiving = receiving();
        assert!(!receiving.credit_is_due() && receiving.take_credit().is_none());
        receiving.data(vec![0; 10].into()).unwrap();
        receiving.restate();
        assert!(receiving.credit_is_due());
        assert_eq!(receiving.take_credit(), Some((10, INITIAL)));
        assert!(!receiving.credit_is_due() && receiving.take_credit().is_none());
        assert!(!receiving.is_complete());

        receiving.fin(Some(10)).unwrap();
        assert!(!receiving.is_complete(), "the peer does not know it yet");
        assert_eq!(receiving.take_credit(), Some((11, INITIAL)));
        assert!(receiving.is_complete());
    }
}
