//! A stream's state at one end: no I/O, no waiting. What happens goes in by one method each; [`State::output`] says what to send.
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

    /// How many bytes may be written now; `None` after the end.
    pub(super) fn room(&self) -> Option<usize> {
        match (self.reset, self.sending.is_finished()) {
            (None, false) => Some(self.sending.room()),
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
mod tests {
    use super::*;
    use crate::credit::{Budget, TOTAL};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, PartialEq)]
    enum Output {
        Data(Bytes),
        Record(Record),
        /// All was said and heard.
        Over,
        Nothing,
    }

    /// What a leg would send next.
    fn output(state: &mut State, most: usize) -> Output {
        let credit = match state.take_credit() {
            Credit::Due(record) => return Output::Record(record),
            credit => credit,
        };
        match state.next() {
            Next::Data(n) => Output::Data(state.take(n.min(most)).unwrap()),
            Next::Fin => Output::Record(state.take_fin().unwrap()),
            Next::Reset => Output::Record(state.take_reset()),
            Next::Over if credit == Credit::Over => Output::Over,
            _ => Output::Nothing,
        }
    }

    /// One end, and what it is to be told.
    struct End {
        state: State,
        /// Still to be written.
        outgoing: VecDeque<u8>,
        incoming: Vec<u8>,
        ended: bool,
        inbox: VecDeque<Output>,
    }

    impl End {
        fn new(outgoing: Vec<u8>) -> End {
            End {
                state: State::with_credit(Budget::new(TOTAL).share().unwrap()),
                outgoing: outgoing.into(),
                incoming: vec![],
                ended: false,
                inbox: VecDeque::new(),
            }
        }

        fn write(&mut self, most: usize) {
            let Some(room) = self.state.room() else {
                return;
            };
            let n = room.min(most).min(self.outgoing.len());
            if n > 0 {
                let bytes: Vec<u8> = self.outgoing.drain(..n).collect();
                self.state.write(bytes.into());
            } else if self.outgoing.is_empty() {
                self.state.finish();
            }
        }

        fn read(&mut self) {
            match self.state.read() {
                Read::Bytes(bytes) => self.incoming.extend_from_slice(&bytes),
                Read::End => self.ended = true,
                Read::Nothing => {}
                Read::Reset => panic!("reset"),
            }
        }

        fn receive(&mut self) {
            match self.inbox.pop_front() {
                Some(Output::Data(bytes)) => self.state.data(bytes).unwrap(),
                Some(Output::Record(record)) => self.state.record(record).unwrap(),
                _ => {}
            }
        }
    }

    fn send(from: &mut End, to: &mut End, most: usize) -> bool {
        match output(&mut from.state, most) {
            Output::Nothing | Output::Over => false,
            output => {
                to.inbox.push_back(output);
                true
            }
        }
    }

    /// A new leg: what is under way is lost. The side that opens it tells its position, the other one answers with a record.
    fn cut(opener: &mut End, acceptor: &mut End) {
        opener.inbox.clear();
        acceptor.inbox.clear();
        opener.state.begin(None).unwrap();
        let position = opener.state.position();
        acceptor.state.begin(Some(position)).unwrap();
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Write(bool, usize),
        Read(bool),
        Send(bool, usize),
        Receive(bool),
        Cut,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (any::<bool>(), 1usize..9000).prop_map(|(end, n)| Act::Write(end, n)),
            4 => any::<bool>().prop_map(Act::Read),
            8 => (any::<bool>(), 1usize..9000).prop_map(|(end, n)| Act::Send(end, n)),
            8 => any::<bool>().prop_map(Act::Receive),
            1 => Just(Act::Cut),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever the order of things, and wherever the legs are cut: every byte arrives once and in order, then the end.
        #[test]
        fn every_byte_arrives_once_and_in_order(
            there in prop::collection::vec(any::<u8>(), 0..60_000),
            back in prop::collection::vec(any::<u8>(), 0..60_000),
            acts in prop::collection::vec(act(), 0..300),
        ) {
            let (mut a, mut b) = (End::new(there.clone()), End::new(back.clone()));
            cut(&mut a, &mut b);
            for act in acts {
                match act {
                    Act::Write(true, n) => a.write(n),
                    Act::Write(false, n) => b.write(n),
                    Act::Read(true) => a.read(),
                    Act::Read(false) => b.read(),
                    Act::Send(true, n) => { send(&mut a, &mut b, n); }
                    Act::Send(false, n) => { send(&mut b, &mut a, n); }
                    Act::Receive(true) => a.receive(),
                    Act::Receive(false) => b.receive(),
                    Act::Cut => cut(&mut a, &mut b),
                }
            }
            for _ in 0..10_000 {
                a.receive();
                b.receive();
                a.read();
                b.read();
                a.write(9000);
                b.write(9000);
                let silent = a.inbox.is_empty() && b.inbox.is_empty() && a.ended && b.ended;
                if !send(&mut a, &mut b, 9000) & !send(&mut b, &mut a, 9000) && silent {
                    break;
                }
            }
            prop_assert!(a.ended && b.ended);
            prop_assert_eq!(output(&mut a.state, 1), Output::Over);
            prop_assert_eq!(output(&mut b.state, 1), Output::Over);
            prop_assert!(a.incoming == back && b.incoming == there);
        }

        /// A peer that says whatever it likes is told off or taken at its word, and what it costs is bounded.
        #[test]
        fn whatever_a_peer_says_is_survived(records in prop::collection::vec((0u8..4, any::<u64>(), 0u64..300_000), 0..60)) {
            let mut end = End::new(vec![1; 5000]);
            for (kind, large, small) in records {
                end.write(700);
                let _ = output(&mut end.state, 500);
                let said = match kind {
                    0 => end.state.record(Record::Credit { received: small, limit: large }),
                    1 => end.state.record(Record::Fin { at: small }),
                    2 => end.state.data(vec![0; usize::try_from(small).unwrap()].into()),
                    _ => end.state.begin(Some(Position { received: small, limit: large })),
                };
                prop_assert!(end.state.buffered() <= 256 << 10);
                if said.is_err() {
                    break;
                }
            }
        }
    }

    fn connected() -> (End, End) {
        let (mut a, mut b) = (End::new(vec![]), End::new(vec![]));
        cut(&mut a, &mut b);
        (a, b)
    }

    /// Lets both ends say all they have to say.
    fn settle(a: &mut End, b: &mut End) {
        while send(a, b, 32 << 10) | send(b, a, 32 << 10) {
            a.receive();
            b.receive();
        }
    }

    #[test]
    fn a_writer_has_no_room_while_nobody_reads() {
        let (mut a, mut b) = connected();
        settle(&mut a, &mut b);
        let mut written = 0;
        while let Some(room @ 1..) = a.state.room() {
            a.state.write(vec![0; room].into());
            written += room;
            settle(&mut a, &mut b);
        }
        assert_eq!(written, 256 << 10);
        assert_eq!(b.state.buffered(), 256 << 10);
        while !matches!(b.state.read(), Read::Nothing) {}
        settle(&mut a, &mut b);
        assert!(a.state.room().unwrap() > 0);
    }

    #[test]
    fn the_promise_grows_while_the_reader_keeps_up() {
        let (mut a, mut b) = connected();
        settle(&mut a, &mut b);
        for _ in 0..4000 {
            let room = a.state.room().unwrap();
            a.state.write(vec![0; room].into());
            settle(&mut a, &mut b);
            while !matches!(b.state.read(), Read::Nothing) {}
        }
        settle(&mut a, &mut b);
        let Position { received, limit } = b.state.position();
        assert!(
            limit - received > crate::credit::LARGEST / 2,
            "{}",
            limit - received
        );
    }

    #[test]
    fn a_reset_passes_both_ways_and_frees_what_waits() {
        let (mut a, mut b) = connected();
        settle(&mut a, &mut b);
        a.state.write(vec![0; 1000].into());
        settle(&mut a, &mut b);
        b.state.write("last words".into());
        b.state.reset();
        assert_eq!(b.state.buffered(), 0);
        settle(&mut a, &mut b);
        assert_eq!(a.state.read(), Read::Bytes("last words".into()));
        assert_eq!((a.state.read(), b.state.read()), (Read::Reset, Read::Reset));
        assert_eq!(a.state.room(), None);
        assert_eq!(output(&mut a.state, 1), Output::Over);
        assert_eq!(output(&mut b.state, 1), Output::Over);
    }

    #[test]
    fn a_lost_peer_is_a_reset_unless_all_was_said() {
        let (mut a, mut b) = connected();
        a.state.finish();
        settle(&mut a, &mut b);
        a.state.lose();
        assert_eq!(a.state.read(), Read::Reset, "it was still to send");

        let (mut a, mut b) = connected();
        a.state.finish();
        b.state.finish();
        settle(&mut a, &mut b);
        a.state.lose();
        assert_eq!(a.state.read(), Read::End);
    }

    #[test]
    fn a_plain_peer_ends_by_eof() {
        let mut state = State::without_credit();
        state.data(Bytes::from_static(b"abc")).unwrap();
        state.eof().unwrap();
        state.write(Bytes::from_static(b"xyz"));
        state.finish();
        assert_eq!(state.read(), Read::Bytes("abc".into()));
        assert_eq!(state.read(), Read::End);
        assert_eq!(output(&mut state, 2), Output::Data("xy".into()));
        assert_eq!(output(&mut state, 2), Output::Data("z".into()));
        assert_eq!(output(&mut state, 2), Output::Record(Record::Fin { at: 3 }));
        assert_eq!(output(&mut state, 2), Output::Over);
    }
}
