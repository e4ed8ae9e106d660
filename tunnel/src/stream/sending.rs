//! The sending direction of a stream: what was written, what the peer has of it, and how much it takes.

use super::Violation;
use crate::copy::CHUNK;
use crate::credit::LARGEST;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Pieces shorter than this are joined where several wait to be sent.
pub(super) const SMALL: usize = 4 << 10;

/// Pieces shorter than this are copied: they are kept until the peer has them, and what they are a part of is as large as what is read
/// from a socket at once. So what is kept takes no more than twice its memory.
const COPIED: usize = CHUNK / 2;

/// Bytes that may wait here to be sent. What makes a writer wait is the network then, and not its own queue.
const UNSENT: usize = 128 << 10;

/// Offsets count the bytes of the direction from its begin; its end (FIN) counts as one more.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Sent on the leg at hand, and not known to have arrived.
    sent: VecDeque<Bytes>,
    unsent: VecDeque<Bytes>,
    /// Up to here, the peer has it; where `sent` begins.
    acknowledged: u64,
    /// Where `unsent` begins.
    next: u64,
    /// Where `unsent` ends.
    written: u64,
    /// Up to here, the peer takes it.
    limit: u64,
    fin: Fin,
    /// Whether what was sent is kept until the peer has it.
    retain: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Fin {
    /// More may be written.
    #[default]
    Open,
    /// To be sent after what is unsent.
    Due,
    Sent,
    Acknowledged,
}

impl Sending {
    /// To a peer that says what it takes, and what has arrived.
    pub(super) fn with_credit() -> Sending {
        Sending {
            retain: true,
            ..Sending::default()
        }
    }

    /// To a peer whose flow control is not ours to see.
    pub(super) fn without_credit() -> Sending {
        Sending {
            limit: u64::MAX,
            ..Sending::default()
        }
    }

    /// How many of `wanted` bytes may be written now. Pieces are not cut where they need not be, as each leaves in a packet of its
    /// own (the silly window of RFC 9293 3.8.6.2): more is taken than has room, once, and what credit does not cover waits while
    /// there is something else to send.
    pub(super) fn room(&self, wanted: usize) -> usize {
        // Whatever a peer promises, no more is kept for it than one of ours would take.
        let kept = self.acknowledged.saturating_add(LARGEST);
        let limit = if self.retain {
            self.limit.min(kept)
        } else {
            self.limit
        };
        let taken = limit.saturating_sub(self.written);
        let taken = usize::try_from(taken).unwrap_or(usize::MAX);
        let wanted = wanted.min(UNSENT);
        match self.waiting() {
            0 => taken.min(wanted),
            waiting if waiting >= UNSENT || taken < wanted => 0,
            _ => wanted,
        }
    }

    /// Whether [`Sending::finish`] was called.
    pub(super) fn is_finished(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Takes bytes that there is [room](Sending::room) for.
    pub(super) fn write(&mut self, bytes: Bytes) {
        self.written += bytes.len() as u64;
        if bytes.len() < COPIED {
            self.unsent.push_back(Bytes::copy_from_slice(&bytes));
        } else {
            self.unsent.push_back(bytes);
        }
    }

    /// Ends the direction.
    pub(super) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Due;
        }
    }

    /// How many bytes wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        usize::try_from(self.written - self.next).unwrap_or(usize::MAX)
    }

    /// Whether the end is to be sent after what waits.
    pub(super) fn is_end_due(&self) -> bool {
        self.fin == Fin::Due
    }

    /// The next bytes to send, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        let mut piece = self.unsent.pop_front()?;
        if piece.len() > most {
            self.unsent.push_front(piece.split_off(most));
        } else if piece.len() < SMALL && !self.unsent.is_empty() {
            piece = self.join(piece, most);
        }
        self.next += piece.len() as u64;
        if self.retain {
            self.sent.push_back(piece.clone());
        } else {
            self.acknowledged = self.next;
        }
        Some(piece)
    }

    fn join(&mut self, first: Bytes, most: usize) -> Bytes {
        let mut joined = BytesMut::from(first);
        while let Some(next) = self.unsent.front()
            && next.len() < SMALL
            && joined.len() + next.len() <= most
        {
            joined.extend_from_slice(next);
            self.unsent.pop_front();
        }
        joined.freeze()
    }

    /// Where the direction ends, once, when that is the next thing to tell.
    pub(super) fn take_fin(&mut self) -> Option<u64> {
        if self.fin != Fin::Due || !self.unsent.is_empty() {
            return None;
        }
        self.fin = if self.retain {
            Fin::Sent
        } else {
            Fin::Acknowledged
        };
        Some(self.written)
    }

    /// The peer has everything before `received`, and takes what is before `limit`.
    pub(super) fn credit(&mut self, received: u64, limit: u64) -> Result<(), Violation> {
        if received > self.end() {
            return Err(Violation("acknowledged what was never sent"));
        }
        self.acknowledge(received);
        self.limit = self.limit.max(limit);
        Ok(())
    }

    /// What can be acknowledged.
    fn end(&self) -> u64 {
        self.next + u64::from(self.has_told_end())
    }

    fn acknowledge(&mut self, received: u64) {
        if received > self.written {
            self.fin = Fin::Acknowledged;
        }
        let mut fresh = received.min(self.next).saturating_sub(self.acknowledged);
        self.acknowledged += fresh;
        while let Some(piece) = self.sent.pop_front() {
            let length = piece.len() as u64;
            if length > fresh {
                let rest =
                    usize::try_from(fresh).map_or_else(|_| Bytes::new(), |n| piece.slice(n..));
                self.sent.push_front(rest);
                return;
            }
            fresh -= length;
        }
    }

    /// Begins a new leg, on which the peer expects what follows `received`.
    pub(super) fn rewind(&mut self, received: u64) -> Result<(), Violation> {
        if received < self.acknowledged || received > self.end() {
            return Err(Violation("resumes at an impossible place"));
        }
        self.acknowledge(received);
        while let Some(piece) = self.sent.pop_back() {
            self.unsent.push_front(piece);
        }
        self.next = self.acknowledged;
        if self.fin == Fin::Sent {
            self.fin = Fin::Due;
        }
        Ok(())
    }

    /// Whether the peer has all that was written.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.written
    }

    /// Whether the end was sent on the leg at hand, and all before it.
    pub(super) fn has_told_end(&self) -> bool {
        matches!(self.fin, Fin::Sent | Fin::Acknowledged)
    }

    /// Whether the peer has everything, the end included.
    pub(super) fn is_complete(&self) -> bool {
        self.fin == Fin::Acknowledged
    }

    /// Forgets what nobody will ask for any more.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.unsent.clear();
        self.next = self.written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    /// With `pieces` written to a peer that takes everything.
    fn written(pieces: &[usize]) -> Sending {
        let mut sending = Sending::with_credit();
        sending.credit(0, u64::MAX).unwrap();
        for piece in pieces {
            sending.write(vec![0; *piece].into());
        }
        sending
    }

    fn taken(sending: &mut Sending, most: usize) -> usize {
        sending.take(most).unwrap().len()
    }

    #[test]
    fn small_pieces_leave_together_and_others_alone() {
        assert_eq!(taken(&mut written(&[100, 100, 100]), 1000), 300);
        assert_eq!(taken(&mut written(&[100, 100]), 200), 200);
        assert_eq!(taken(&mut written(&[100, 100]), 199), 100);
        assert_eq!(taken(&mut written(&[100, SMALL]), SMALL + 100), 100);
        assert_eq!(taken(&mut written(&[SMALL, 100]), SMALL + 100), SMALL);
    }

    /// As a socket is read: what is kept of each read does not keep the buffer, unless it fills half of it.
    #[test]
    fn what_is_much_shorter_than_its_buffer_leaves_it() {
        for (length, copied) in [(CHUNK / 2 - 1, true), (CHUNK / 2, false), (CHUNK, false)] {
            let mut sending = written(&[]);
            let mut buffer = BytesMut::with_capacity(CHUNK);
            let begin = buffer.as_ptr();
            buffer.put_bytes(0, length);
            sending.write(buffer.split().freeze());
            assert_eq!(sending.take(length).unwrap().len(), length);
            buffer.reserve(CHUNK);
            assert_eq!(buffer.as_ptr() == begin, copied, "{length}");
        }
    }

    #[test]
    fn a_piece_that_fits_exactly_is_taken_whole() {
        let mut sending = Sending::with_credit();
        sending.credit(0, 10).unwrap();
        sending.write(vec![0; 4].into());
        assert_eq!((sending.room(6), sending.room(7)), (6, 0));
        assert_eq!(Sending::without_credit().room(5), 5);
    }

    #[test]
    fn an_end_comes_after_all_bytes_and_is_acknowledged_like_one() {
        let mut sending = written(&[5]);
        assert_eq!(sending.take_fin(), None, "nobody has ended it");
        sending.finish();
        assert!(sending.is_finished());
        assert_eq!(sending.take_fin(), None, "bytes come first");
        taken(&mut sending, 5);
        assert!(!sending.has_told_end() && !sending.is_acknowledged());
        assert!(sending.credit(6, 0).is_err(), "the end was not sent");
        assert_eq!(sending.take_fin(), Some(5));
        sending.credit(5, 0).unwrap();
        assert!(sending.has_told_end() && sending.is_acknowledged() && !sending.is_complete());
        sending.credit(6, 0).unwrap();
        assert!(sending.is_complete());
    }
}
