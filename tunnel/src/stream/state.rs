//! A stream's state at one end: no I/O, no waiting. What happens goes in by one method each; [`State::next`] and [`State::take_credit`] say what to send.
//!
//! A stream is longer than the channels that carry it, its legs. Each new one begins with [`State::begin`] at the place where the
//! peer has arrived; what was sent and did not arrive is sent again.

use super::Violation;
use super::receiving::{Found, Receiving};
use super::sending::Sending;
use crate::credit::Share;
use crate::record::Record;
use bytes::Bytes;

/// One end of a stream.
#[derive(Debug)]
pub(super) struct State {
    sending: Sending,
    receiving: Receiving,
    reset: Option<Reset>,
    /// Whether it is known what the peer has, without which nothing may be sent on the leg at hand.
    begun: bool,
    /// What arrives is dropped: its reader has gone.
    unread: bool,
    credit: bool,
}

/// Who gave the stream up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// This end; the peer is still to be told.
    Here,
    /// This end, and the peer was told; or the peer.
    Known,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(Bytes),
    End,
    Reset,
    /// Nothing yet.
    Nothing,
}

/// What is to be sent next on the leg at hand, beside credit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many bytes, or more.
    Data(usize),
    /// The direction's end.
    Fin,
    /// That the stream is given up.
    Reset,
    /// Nothing any more: both directions have ended, or the stream was given up.
    Over,
    /// Nothing at the moment.
    Nothing,
}

/// What the peer is to be told of the other direction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    Due(Record),
    /// Nothing any more: it was told that its end has arrived, or the stream was given up.
    Over,
    /// Nothing at the moment.
    Nothing,
}

/// Where the peer of a stream is, as it says when a leg begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// It has everything before this.
    pub received: u64,
    /// It takes everything before this.
    pub limit: u64,
}

impl State {
    /// A stream between our own ends; `share` is what its peer may send.
    pub(super) fn with_credit(share: Share) -> State {
        State::new(Sending::with_credit(), Receiving::with_credit(share), true)
    }

    /// A stream with a plain SSH peer, on the one channel that carries it.
    pub(super) fn without_credit() -> State {
        State::new(
            Sending::without_credit(),
            Receiving::without_credit(),
            false,
        )
    }

    fn new(sending: Sending, receiving: Receiving, credit: bool) -> State {
        State {
            sending,
            receiving,
            reset: None,
            begun: !credit,
            unread: false,
            credit,
        }
    }

    /// Whether records are exchanged.
    pub(super) fn has_credit(&self) -> bool {
        self.credit
    }

    /// Where this end is, to tell the peer on a new leg.
    pub(super) fn position(&self) -> Position {
        Position {
            received: self.receiving.position(),
            limit: self.receiving.promised(),
        }
    }

    /// Begins a leg, whose peer is at `position` or will say so in its first record.
    pub(super) fn begin(&mut self, position: Option<Position>) -> Result<(), Violation> {
        if !self.credit {
            return Ok(());
        }
        self.receiving.restate();
        self.begun = false;
        match position {
            Some(position) => self.resume(position),
            None => Ok(()),
        }
    }

    fn resume(&mut self, Position { received, limit }: Position) -> Result<(), Violation> {
        self.begun = true;
        self.sending.rewind(received)?;
        self.sending.credit(received, limit)
    }

    /// How many of `wanted` bytes may be written now; `None` after the end.
    pub(super) fn room(&self, wanted: usize) -> Option<usize> {
        match (self.reset, self.sending.is_finished()) {
            (None, false) => Some(self.sending.room(wanted)),
            _ => None,
        }
    }

    /// Takes bytes that there is [room](State::room) for.
    pub(super) fn write(&mut self, bytes: Bytes) {
        self.sending.write(bytes);
    }

    /// Ends the direction to the peer.
    pub(super) fn finish(&mut self) {
        self.sending.finish();
    }

    /// Whether the direction to the peer was ended.
    pub(super) fn is_finished(&self) -> bool {
        self.sending.is_finished()
    }

    /// Whether both directions have come to their ends.
    fn has_ended(&self) -> bool {
        self.sending.is_complete() && self.receiving.has_ended()
    }

    /// Whether nothing is left that the peer must hear.
    pub(super) fn is_over(&self) -> bool {
        self.reset == Some(Reset::Known) || self.has_ended()
    }

    /// Gives the stream up, unless it has come to its end. What was written before is still sent.
    pub(super) fn reset(&mut self) {
        if self.reset.is_none() && !self.has_ended() {
            self.reset = Some(Reset::Here);
            self.receiving.clear();
        }
    }

    /// The peer is gone, and with it the stream, unless that has come to its end.
    pub(super) fn lose(&mut self) {
        // All that it said has arrived, and it forgets a stream in order only after it has what was said to it.
        let over = self.receiving.has_ended() && self.sending.has_told_end();
        if !over {
            self.end_by_reset();
        }
    }

    /// What came before is still read.
    fn end_by_reset(&mut self) {
        if self.reset != Some(Reset::Known) {
            self.reset = Some(Reset::Known);
            self.sending.clear();
        }
    }

    /// Whether the stream was given up.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.is_some()
    }

    /// What arrives is not going to be read. Where nothing is sent either, that is a reset, as a closed socket is for its peer.
    pub(super) fn leave_unread(&mut self) {
        self.unread = true;
        if self.receiving.buffered() > 0 {
            self.drop_unread();
        }
    }

    fn drop_unread(&mut self) {
        self.receiving.clear();
        if self.sending.is_finished() {
            self.reset();
        }
    }

    /// Whether reading has made room that the peer should know of.
    pub(super) fn credit_is_due(&self) -> bool {
        self.receiving.credit_is_due()
    }

    /// Bytes that arrived and were not read.
    pub(super) fn buffered(&self) -> u64 {
        self.receiving.buffered()
    }

    /// What the reader finds.
    pub(super) fn read(&mut self) -> Read {
        match self.receiving.read() {
            Found::Bytes(bytes) => Read::Bytes(bytes),
            _ if self.reset.is_some() => Read::Reset,
            Found::End => Read::End,
            Found::Nothing => Read::Nothing,
        }
    }

    /// Bytes arrived on the leg at hand.
    pub(super) fn data(&mut self, bytes: Bytes) -> Result<(), Violation> {
        if self.reset.is_some() {
            return Ok(());
        }
        self.receiving.data(bytes)?;
        if self.unread {
            self.drop_unread();
        }
        Ok(())
    }

    /// SSH's own end of the direction arrived, of a peer without records.
    pub(super) fn eof(&mut self) -> Result<(), Violation> {
        match (self.credit, self.receiving.has_ended()) {
            (false, false) => self.receiving.fin(None),
            _ => Ok(()),
        }
    }

    /// A record arrived on the leg at hand.
    pub(super) fn record(&mut self, record: Record) -> Result<(), Violation> {
        match record {
            Record::Nothing => Ok(()),
            Record::Reset => {
                self.end_by_reset();
                Ok(())
            }
            _ if self.reset == Some(Reset::Known) => Ok(()),
            Record::Credit { received, limit } if self.begun => {
                self.sending.credit(received, limit)
            }
            Record::Credit { received, limit } => self.resume(Position { received, limit }),
            // The bytes before it were dropped.
            Record::Fin { .. } if self.reset.is_some() => Ok(()),
            Record::Fin { at } => self.receiving.fin(Some(at)),
        }
    }

    /// What is to be sent next.
    pub(super) fn next(&self) -> Next {
        let waiting = match (self.reset, self.begun) {
            (Some(Reset::Known), _) => return Next::Over,
            (_, true) => self.sending.waiting(),
            (Some(Reset::Here), false) if self.sending.is_acknowledged() => 0,
            (_, false) => return Next::Nothing,
        };
        match waiting {
            0 if self.reset.is_some() => Next::Reset,
            0 if self.sending.is_end_due() => Next::Fin,
            0 if self.has_ended() => Next::Over,
            0 => Next::Nothing,
            bytes => Next::Data(bytes),
        }
    }

    /// Takes bytes to send, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        self.sending.take(most)
    }

    /// Takes the record of the direction's end.
    pub(super) fn take_fin(&mut self) -> Option<Record> {
        self.sending.take_fin().map(|at| Record::Fin { at })
    }

    /// The peer is being told that the stream is given up.
    pub(super) fn take_reset(&mut self) -> Record {
        self.end_by_reset();
        Record::Reset
    }

    /// Takes what the peer is to be told of the other direction.
    pub(super) fn take_credit(&mut self) -> Credit {
        if self.reset.is_some() {
            return Credit::Over;
        }
        match self.receiving.take_credit() {
            Some((received, limit)) => Credit::Due(Record::Credit { received, limit }),
            None if self.receiving.is_complete() => Credit::Over,
            None => Credit::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
