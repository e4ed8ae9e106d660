//! The few fields of a DNS message that a relay looks at (RFC 1035 4.1).

use bytes::{BufMut, Bytes, BytesMut};

/// Length of the header, in bytes.
const HEADER: usize = 12;
/// Length of type and class behind a question's name, in bytes.
const TYPE_AND_CLASS: usize = 4;
/// Longest name, in bytes (RFC 1035 2.3.4).
const LONGEST_NAME: usize = 255;

/// In the third byte: the message is an answer.
const QR: u8 = 0x80;
/// In the third byte: the answer was cut off to fit into a datagram.
const TC: u8 = 0x02;
/// In the third byte: what an answer copies of its query (the opcode, and whether recursion is desired).
const OPCODE_AND_RD: u8 = 0x79;
/// In the fourth byte: recursion is available.
const RA: u8 = 0x80;

/// Response codes (RFC 1035 4.1.1) that say something of the nameserver and nothing of the name.
const FAILURES: [u8; 3] = [SERVFAIL, 4, 5];
/// The nameserver failed.
const SERVFAIL: u8 = 2;

/// A DNS message, a header long at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Bytes);

impl Message {
    /// `None` for what is too short to be one.
    pub fn new(bytes: Bytes) -> Option<Message> {
        (bytes.len() >= HEADER).then_some(Message(bytes))
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn byte(&self, index: usize) -> u8 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// What tells this message from others under way.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.byte(0), self.byte(1)])
    }

    /// The same message with another id.
    pub fn with_id(&self, id: u16) -> Message {
        let mut bytes = BytesMut::with_capacity(self.0.len());
        bytes.put_u16(id);
        bytes.put_slice(self.0.get(2..).unwrap_or_default());
        Message(bytes.freeze())
    }

    /// Whether the answer was cut off.
    pub fn truncated(&self) -> bool {
        self.byte(2) & TC != 0
    }

    /// Whether the answer is the nameserver's failure: another one may know better.
    pub fn failed(&self) -> bool {
        FAILURES.contains(&(self.byte(3) & 0x0f))
    }

    /// Whether this is the answer to `query`: the id, and the question where one is repeated (a nameserver that understood
    /// nothing sends a bare header).
    pub fn answers(&self, query: &Message) -> bool {
        self.byte(2) & QR != 0
            && self.id() == query.id()
            && match (self.question(), query.question()) {
                (Some(own), Some(asked)) => own.eq_ignore_ascii_case(asked),
                (None, _) => self.questions() == 0 && self.failed(),
                (Some(_), None) => false,
            }
    }

    fn questions(&self) -> u16 {
        u16::from_be_bytes([self.byte(4), self.byte(5)])
    }

    /// The first question: its name, type and class. Names are not compressed there, as there is nothing to refer to.
    fn question(&self) -> Option<&[u8]> {
        if self.questions() == 0 {
            return None;
        }
        let mut end = HEADER;
        loop {
            let label = usize::from(*self.0.get(end)?);
            end += 1 + label;
            if end > HEADER + LONGEST_NAME || label > 63 {
                return None;
            }
            if label == 0 {
                return self.0.get(HEADER..end + TYPE_AND_CLASS);
            }
        }
    }

    /// The answer to a query that no nameserver answered: SERVFAIL, with the query's id and question.
    pub fn failure(&self) -> Message {
        let question = self.question();
        let mut bytes = BytesMut::new();
        bytes.put_u16(self.id());
        bytes.put_u8(QR | self.byte(2) & OPCODE_AND_RD);
        bytes.put_u8(RA | SERVFAIL);
        bytes.put_u16(question.is_some().into());
        bytes.put_bytes(0, HEADER - bytes.len());
        bytes.put_slice(question.unwrap_or_default());
        Message(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message as Parsed, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};

    fn query(name: &str) -> Message {
        let mut message = Parsed::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(
            Name::from_ascii(name).unwrap(),
            RecordType::SRV,
        ));
        Message::new(message.to_vec().unwrap().into()).unwrap()
    }

    fn answer(query: &Message, edit: impl FnOnce(&mut Parsed)) -> Message {
        let mut message = Parsed::from_vec(query.as_bytes()).unwrap().into_response();
        edit(&mut message);
        Message::new(message.to_vec().unwrap().into()).unwrap()
    }

    #[test]
    fn an_answer_is_known_by_id_and_question() {
        let asked = query("thing1.ns.svc.cluster.local.");
        assert!(answer(&asked, |_| {}).answers(&asked));
        assert!(!asked.answers(&asked), "a query is no answer");
        assert!(!answer(&asked, |a| a.metadata.id = 8).answers(&asked));
        assert!(!answer(&query("other."), |_| {}).answers(&asked));
        assert!(!answer(&asked, |a| a.queries.clear()).answers(&asked));
        let formerr = |a: &mut Parsed| {
            a.queries.clear();
            a.metadata.response_code = ResponseCode::ServFail;
        };
        assert!(answer(&asked, formerr).answers(&asked));
    }

    #[test]
    fn the_case_of_the_question_does_not_matter() {
        let asked = query("Thing1.");
        assert!(answer(&query("tHING1."), |_| {}).answers(&asked));
    }

    #[test]
    fn a_failure_bears_id_and_question() {
        let asked = query("thing1.");
        let failure = asked.failure();
        assert!(failure.answers(&asked) && failure.failed() && !failure.truncated());
        let parsed = Parsed::from_vec(failure.as_bytes()).unwrap();
        assert_eq!(parsed.metadata.response_code, ResponseCode::ServFail);
        assert!(parsed.metadata.recursion_desired && parsed.metadata.recursion_available);
        assert_eq!(parsed.queries.len(), 1);
    }

    #[test]
    fn the_id_is_replaced_and_nothing_else() {
        let asked = query("thing1.");
        assert_eq!(asked.with_id(9).id(), 9);
        assert_eq!(asked.with_id(9).with_id(7), asked);
    }

    #[test]
    fn rubbish_does_no_harm() {
        assert_eq!(Message::new(Bytes::from_static(&[0; 11])), None);
        let asked = query("a.example.");
        for length in HEADER..asked.as_bytes().len() {
            let cut = Message::new(asked.0.slice(..length)).unwrap();
            assert_eq!(cut.question(), None);
            assert_eq!(cut.failure().as_bytes().len(), HEADER);
            assert!(!cut.answers(&asked));
        }
        // A name that points to itself, and one that never ends.
        for name in [vec![0xc0; 600], vec![63; 600]] {
            let mut bytes = vec![0, 7, QR, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            bytes.extend(name);
            assert_eq!(Message::new(bytes.into()).unwrap().question(), None);
        }
    }
}
