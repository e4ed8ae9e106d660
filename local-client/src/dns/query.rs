//! The app's DNS queries, read just far enough to answer those that go wrong (RFC 1035 4.1).

use bytes::Bytes;
use hickory_proto::op::{self, Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::Record;

/// Largest payload of a UDP datagram over IPv4, in bytes.
const UDP_MAX: usize = 65_507;

/// A query that a nameserver can be asked.
#[derive(Debug)]
pub(super) struct Query {
    /// As the app sent it.
    pub(super) bytes: Bytes,
    message: Message,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What to answer if it is none; nothing for what is no query at all.
    pub(super) fn parse(bytes: Bytes) -> Result<Query, Option<Bytes>> {
        let [id_high, id_low, flags, ..] = *bytes else {
            return Err(None);
        };
        // An answer to an answer would go back and forth for ever.
        if flags & 0x80 != 0 {
            return Err(None);
        }
        let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
        let error = |code| {
            let id = u16::from_be_bytes([id_high, id_low]);
            let mut message = Message::error_msg(id, op_code, code);
            message.metadata.recursion_desired = flags & 1 != 0;
            encode(&message)
        };
        if op_code != OpCode::Query {
            return Err(error(ResponseCode::NotImp));
        }
        match Message::from_vec(&bytes) {
            Ok(message) if message.queries.len() == 1 => Ok(Query { bytes, message }),
            _ => Err(error(ResponseCode::FormErr)),
        }
    }

    /// What is asked; a query that was [parsed](Query::parse) asks one thing.
    pub(super) fn question(&self) -> Option<&op::Query> {
        self.message.queries.first()
    }

    /// The longest answer that fits into one datagram, in bytes (RFC 6891 6.2.5; 512 without EDNS).
    pub(super) fn udp_limit(&self) -> usize {
        usize::from(self.message.max_payload()).min(UDP_MAX)
    }

    /// The answer with these records.
    pub(super) fn answered(&self, records: Vec<Record>) -> Option<Bytes> {
        let mut message = self.response();
        message.answers = records;
        encode(&message)
    }

    /// The answer that the nameservers failed.
    pub(super) fn failed(&self) -> Option<Bytes> {
        let mut message = self.response();
        message.metadata.response_code = ResponseCode::ServFail;
        encode(&message)
    }

    /// The answer that says: ask again over TCP.
    pub(super) fn truncated(&self) -> Option<Bytes> {
        let mut message = self.response();
        message.metadata.truncation = true;
        encode(&message)
    }

    fn response(&self) -> Message {
        let mut message = Message::response(self.message.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.queries.clone_from(&self.message.queries);
        message.edns = self.message.edns.as_ref().map(|_| Edns::new());
        message
    }
}

fn encode(message: &Message) -> Option<Bytes> {
    message.to_vec().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Name, RecordType};

    fn query() -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 0xabcd;
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii("Example.com.").unwrap();
        message.add_query(op::Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    }

    /// The code that `bytes` are refused with; `None` if nothing is answered.
    fn refusal(bytes: &[u8]) -> Option<ResponseCode> {
        let answer = Query::parse(Bytes::copy_from_slice(bytes)).unwrap_err()?;
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 0xabcd);
        Some(answer.metadata.response_code)
    }

    #[test]
    fn every_part_of_a_query_is_refused() {
        let whole = query();
        for length in 0..whole.len() {
            let expected = (length >= 3).then_some(ResponseCode::FormErr);
            assert_eq!(refusal(&whole[..length]), expected, "{length} bytes");
        }
        assert!(Query::parse(whole.into()).is_ok());
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let mut answer = query();
        answer[2] |= 0x80;
        assert_eq!(refusal(&answer), None);
        let mut update = query();
        update[2] |= 5 << 3;
        assert_eq!(refusal(&update), Some(ResponseCode::NotImp));
        let mut without_question = query();
        without_question[5] = 0;
        assert_eq!(refusal(&without_question), Some(ResponseCode::FormErr));
    }

    #[test]
    fn a_failure_bears_id_and_question() {
        let bytes = query();
        let sent = Message::from_vec(&bytes).unwrap();
        let failed = Query::parse(bytes.into()).unwrap().failed().unwrap();
        let failed = Message::from_vec(&failed).unwrap();
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(failed.metadata.id, sent.metadata.id);
        assert!(failed.metadata.recursion_desired && failed.metadata.recursion_available);
        assert!(failed.queries[0].name.eq_case(&sent.queries[0].name));
    }
}
