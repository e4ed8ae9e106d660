//! Two ends that talk in every order, and are cut off at every place.

use super::*;
use crate::credit::{Budget, INITIAL, TOTAL};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::LazyLock;

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

/// A share that has grown to so many bytes.
fn share(bytes: u64) -> Share {
    let mut share = Budget::new(TOTAL).share().unwrap();
    while share.bytes() < bytes {
        assert!(share.extend());
    }
    share
}

/// What is said: each byte tells its place, or nearly.
static SAID: LazyLock<Bytes> = LazyLock::new(|| {
    let byte = |place: u32| place.wrapping_mul(0x9E37_79B1).to_be_bytes()[0];
    (0..400_000).map(byte).collect()
});

/// One end, and what it is to be told.
struct End {
    state: State,
    /// Still to be written.
    outgoing: Bytes,
    written: usize,
    incoming: Vec<u8>,
    ended: bool,
    /// It has given the stream up, or its reader has gone.
    left: bool,
    /// There will be no other leg.
    forgotten: bool,
    inbox: VecDeque<Output>,
}

/// These return whether they have changed anything.
impl End {
    fn new(outgoing: Bytes) -> End {
        End::with_share(outgoing, share(INITIAL))
    }

    fn with_share(outgoing: Bytes, share: Share) -> End {
        End {
            state: State::with_credit(share),
            outgoing,
            written: 0,
            incoming: vec![],
            ended: false,
            left: false,
            forgotten: false,
            inbox: VecDeque::new(),
        }
    }

    fn write(&mut self, most: usize) -> bool {
        let Some(n) = self.state.room(most.min(self.outgoing.len())) else {
            return false;
        };
        if n > 0 {
            self.written += n;
            self.state.write(self.outgoing.split_to(n));
        } else if self.outgoing.is_empty() {
            self.state.finish();
        }
        n > 0 || self.outgoing.is_empty()
    }

    fn read(&mut self) -> bool {
        match self.state.read() {
            Read::Bytes(bytes) => {
                self.incoming.extend_from_slice(&bytes);
                true
            }
            Read::End => !std::mem::replace(&mut self.ended, true),
            Read::Nothing | Read::Reset => false,
        }
    }

    fn receive(&mut self) -> bool {
        let output = self.inbox.pop_front();
        let received = output.is_some();
        match output {
            Some(Output::Data(bytes)) => self.state.data(bytes).unwrap(),
            Some(Output::Record(record)) => self.state.record(record).unwrap(),
            _ => {}
        }
        received
    }

    fn reset(&mut self) {
        self.left = true;
        self.state.reset();
    }

    fn leave_unread(&mut self) {
        self.left = true;
        self.state.leave_unread();
    }
}

fn send(from: &mut End, to: &mut End, most: usize) -> bool {
    if from.forgotten {
        return false;
    }
    match output(&mut from.state, most) {
        Output::Nothing | Output::Over => false,
        // As SSH may cut what it is given.
        Output::Data(mut bytes) if bytes.len() > 1 => {
            let begin = bytes.split_to(bytes.len() / 2);
            to.inbox.extend([begin, bytes].map(Output::Data));
            true
        }
        output => {
            to.inbox.push_back(output);
            true
        }
    }
}

/// A new leg: what is under way is lost. The side that opens it tells its position, the other one answers with a record. Where either knows of a
/// reset, it has forgotten the stream, and the other one loses it.
fn cut(opener: &mut End, acceptor: &mut End) {
    let knows = |end: &End| end.state.is_reset() && end.state.is_over();
    let forgotten = opener.forgotten || knows(opener) || knows(acceptor);
    for end in [&mut *opener, &mut *acceptor] {
        end.inbox.clear();
        end.forgotten = forgotten;
        if forgotten {
            end.state.lose();
        }
    }
    if !forgotten {
        opener.state.begin(None).unwrap();
        let position = opener.state.position();
        acceptor.state.begin(Some(position)).unwrap();
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Write(bool, usize),
    Read(bool),
    Send(bool, usize),
    Receive(bool),
    Cut,
    Reset(bool),
    LeaveUnread(bool),
}

/// Of the 300 of a case, one ends the stream early in about half of all cases.
fn act() -> impl Strategy<Value = Act> {
    let length = || prop_oneof![1usize..9000, 1usize..200_000];
    prop_oneof![
        400 => (any::<bool>(), length()).prop_map(|(end, n)| Act::Write(end, n)),
        400 => any::<bool>().prop_map(Act::Read),
        800 => (any::<bool>(), length()).prop_map(|(end, n)| Act::Send(end, n)),
        800 => any::<bool>().prop_map(Act::Receive),
        100 => Just(Act::Cut),
        3 => any::<bool>().prop_map(Act::Reset),
        3 => any::<bool>().prop_map(Act::LeaveUnread),
    ]
}

/// What an end writes, and the peer's share: of the smallest, over those that grow as they are used, to what is more than waits to be sent.
fn direction() -> impl Strategy<Value = (Bytes, u64, usize)> {
    let length = prop_oneof![0usize..20_000, 0..SAID.len()];
    let total = prop_oneof![Just(8 << 10), Just(64 << 10), Just(TOTAL)];
    (length, total, 0usize..4)
        .prop_map(|(length, total, doubled)| (SAID.slice(..length), total, doubled))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever the order of things, and wherever the legs are cut: every byte arrives once and in order, then the end. Where
    /// an end gives the stream up, the other one has what was written before; unless it was forgotten on the way, all of it.
    #[test]
    fn every_byte_arrives_once_and_in_order(
        directions in [direction(), direction()],
        acts in prop::collection::vec(act(), 0..300),
    ) {
        let [mut a, mut b] = directions.map(|(outgoing, total, doubled)| {
            let mut share = Budget::new(total).share().unwrap();
            for _ in 0..doubled {
                share.extend();
            }
            End::with_share(outgoing, share)
        });
        cut(&mut a, &mut b);
        for act in acts {
            match act {
                Act::Write(true, n) => { a.write(n); }
                Act::Write(false, n) => { b.write(n); }
                Act::Read(true) => { a.read(); }
                Act::Read(false) => { b.read(); }
                Act::Send(true, n) => { send(&mut a, &mut b, n); }
                Act::Send(false, n) => { send(&mut b, &mut a, n); }
                Act::Receive(true) => { a.receive(); }
                Act::Receive(false) => { b.receive(); }
                Act::Cut => cut(&mut a, &mut b),
                Act::Reset(true) => a.reset(),
                Act::Reset(false) => b.reset(),
                Act::LeaveUnread(true) => a.leave_unread(),
                Act::LeaveUnread(false) => b.leave_unread(),
            }
        }
        let mut rounds = 0;
        while a.receive() | b.receive() | a.read() | b.read() | a.write(9000) | b.write(9000)
            | send(&mut a, &mut b, 9000) | send(&mut b, &mut a, 9000)
        {
            rounds += 1;
            prop_assert!(rounds < 10_000, "no end");
        }
        for (from, to) in [(&a, &b), (&b, &a)] {
            let said = &SAID[..from.written];
            prop_assert!(said.starts_with(&to.incoming));
            prop_assert!(to.incoming == said || to.left || to.forgotten);
            let whole = from.outgoing.is_empty() && to.ended;
            prop_assert!(whole || from.left || to.left);
        }
        for end in [&mut a, &mut b].into_iter().filter(|end| !end.forgotten) {
            prop_assert_eq!(output(&mut end.state, 1), Output::Over);
        }
    }

    /// A peer that says whatever it likes is told off or taken at its word, and what it costs is bounded.
    #[test]
    fn whatever_a_peer_says_is_survived(records in prop::collection::vec((0u8..4, any::<u64>(), 0u64..300_000), 0..60)) {
        let mut end = End::new(SAID.slice(..5000));
        for (kind, large, small) in records {
            end.write(700);
            let _ = output(&mut end.state, 500);
            let said = match kind {
                0 => end.state.record(Record::Credit { received: small, limit: large }),
                1 => end.state.record(Record::Fin { at: small }),
                2 => end.state.data(vec![0; usize::try_from(small).unwrap()].into()),
                _ => end.state.begin(Some(Position { received: small, limit: large })),
            };
            prop_assert!(end.state.buffered() <= INITIAL);
            if said.is_err() {
                break;
            }
        }
    }
}

fn connected() -> (End, End) {
    let (mut a, mut b) = (End::new(Bytes::new()), End::new(Bytes::new()));
    cut(&mut a, &mut b);
    (a, b)
}

/// Lets both ends say all they have to say.
fn settle(a: &mut End, b: &mut End) {
    while send(a, b, 32 << 10) | send(b, a, 32 << 10) {
        while a.receive() | b.receive() {}
    }
}

#[test]
fn a_writer_has_no_room_while_nobody_reads() {
    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    let mut written = 0;
    while let Some(room @ 1..) = a.state.room(usize::MAX) {
        a.state.write(vec![0; room].into());
        written += room;
        settle(&mut a, &mut b);
    }
    assert_eq!(written as u64, INITIAL);
    assert_eq!(b.state.buffered(), INITIAL);
    while !matches!(b.state.read(), Read::Nothing) {}
    settle(&mut a, &mut b);
    assert!(a.state.room(usize::MAX).unwrap() > 0);
}

#[test]
fn the_promise_grows_while_the_reader_keeps_up() {
    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    for _ in 0..4000 {
        let room = a.state.room(usize::MAX).unwrap();
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
    assert_eq!(a.state.room(usize::MAX), None);
    assert_eq!(output(&mut a.state, 1), Output::Over);
    assert_eq!(output(&mut b.state, 1), Output::Over);
}

#[test]
fn what_waits_for_a_peer_that_gave_up_is_dropped() {
    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    a.state.write("in vain".into());
    a.state.record(Record::Reset).unwrap();
    assert_eq!(a.state.take(9), None);
}

#[test]
fn a_leg_begins_where_the_peer_can_be() {
    for (received, possible) in [(3, false), (4, true), (6, true), (7, false)] {
        let (mut a, mut b) = connected();
        settle(&mut a, &mut b);
        for (bytes, arrives) in [("seen", true), ("it", false)] {
            a.state.write(bytes.into());
            let sent = a.state.take(9).unwrap();
            if arrives {
                let received = sent.len() as u64;
                let limit = 1 << 20;
                a.state.record(Record::Credit { received, limit }).unwrap();
            }
        }
        let limit = 1 << 20;
        let begun = a.state.begin(Some(Position { received, limit }));
        assert_eq!(begun.is_ok(), possible, "{received}");
    }
}

/// What comes after the end, or after a reset, changes nothing.
#[test]
fn an_end_and_a_reset_are_for_good() {
    let (mut a, mut b) = connected();
    a.state.finish();
    b.state.finish();
    settle(&mut a, &mut b);
    a.state.reset();
    assert!(!a.state.is_reset());
    assert_eq!(a.state.read(), Read::End);

    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    b.state.reset();
    settle(&mut a, &mut b);
    a.state.reset();
    a.state.record(Record::Fin { at: 999 }).unwrap();
    assert_eq!(a.state.next(), Next::Over, "the peer knows");
}

#[test]
fn an_end_that_crosses_a_reset_is_no_violation() {
    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    a.state.write("for nobody".into());
    a.state.finish();
    b.state.reset();
    while send(&mut a, &mut b, 99) {}
    while b.receive() {}
    settle(&mut a, &mut b);
    assert_eq!((a.state.read(), b.state.read()), (Read::Reset, Read::Reset));
}

/// A leg on which it is not known what the peer has carries no data; and no reset that would overtake what must be sent again.
#[test]
fn a_reset_waits_for_what_was_sent_before() {
    let (mut a, _) = connected();
    a.state.reset();
    assert_eq!(a.state.next(), Next::Reset);

    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    a.state.write("lost".into());
    assert_eq!(a.state.take(9), Some("lost".into()));
    cut(&mut a, &mut b);
    a.state.reset();
    assert_eq!(a.state.next(), Next::Nothing);
    settle(&mut a, &mut b);
    assert_eq!(b.state.read(), Read::Bytes("lost".into()));
    assert_eq!(b.state.read(), Read::Reset);
}

#[test]
fn there_is_more_to_tell_until_the_end_has_arrived() {
    let (mut a, mut b) = connected();
    settle(&mut a, &mut b);
    assert_eq!(a.state.take_credit(), Credit::Nothing);
    b.state.finish();
    settle(&mut a, &mut b);
    assert_eq!(a.state.take_credit(), Credit::Over);
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

/// A peer that promises the world and acknowledges nothing is not kept everything for.
#[test]
fn what_is_kept_for_a_peer_is_bounded() {
    let mut state = State::with_credit(Budget::new(TOTAL).share().unwrap());
    let (received, limit) = (0, u64::MAX);
    state.begin(Some(Position { received, limit })).unwrap();
    let mut kept = 0;
    while let Some(room @ 1..) = state.room(usize::MAX) {
        state.write(vec![0; room].into());
        kept += state.take(room).unwrap().len() as u64;
    }
    assert_eq!(kept, crate::credit::LARGEST);
}

#[test]
fn pieces_are_not_cut_where_they_need_not_be() {
    const PIECE: usize = 30_000;
    let (mut a, mut b) = (
        End::new(Bytes::new()),
        End::with_share(Bytes::new(), share(256 << 10)),
    );
    cut(&mut a, &mut b);
    settle(&mut a, &mut b);
    let mut pieces = 0;
    // More fits than the queue has room for, but no part of a piece, and nothing that the peer does not take.
    while a.state.room(PIECE).unwrap() > 0 {
        assert_eq!(a.state.room(PIECE), Some(PIECE));
        a.state.write(vec![0; PIECE].into());
        pieces += 1;
    }
    assert_eq!(pieces, (128 << 10) / PIECE + 1);
    settle(&mut a, &mut b);
    while a.state.room(PIECE) == Some(PIECE) {
        a.state.write(vec![0; PIECE].into());
    }
    assert_eq!(a.state.room(PIECE), Some(0));
    settle(&mut a, &mut b);
    // What is left of the promise is used once nothing else can be sent.
    assert_eq!(a.state.room(PIECE), Some((256 << 10) % PIECE));
}
