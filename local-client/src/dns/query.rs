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

    /// The answer that there is no such name.
    pub(super) fn unknown(&self) -> Option<Bytes> {
        self.without_records(ResponseCode::NXDomain)
    }

    /// The answer that the nameservers failed.
    pub(super) fn failed(&self) -> Option<Bytes> {
        self.without_records(ResponseCode::ServFail)
    }

    fn without_records(&self, code: ResponseCode) -> Option<Bytes> {
        let mut message = self.response();
        message.metadata.response_code = code;
        encode(&message)
    }

    /// `answer`, or as many of its records as fit into one datagram, marked as truncated (RFC 2181 9): some resolvers use those, others
    /// ask again over TCP.
    pub(super) fn cut(&self, answer: Bytes) -> Option<Bytes> {
        if answer.len() <= self.udp_limit() {
            return Some(answer);
        }
        let mut message = Message::from_vec(&answer).unwrap_or_else(|_| self.response());
        message.metadata.truncation = true;
        let code = message.metadata.response_code;
        message.authorities.clear();
        message.additionals.clear();
        // Not left to the encoder: it wants room for names that it then makes pointers of.
        let records = std::mem::take(&mut message.answers);
        let mut with = |count| {
            message.answers = records.iter().take(count).cloned().collect();
            encode(&message)
        };
        let (mut fitting, mut beyond) = (0, records.len() + 1);
        while fitting + 1 < beyond {
            let count = usize::midpoint(fitting, beyond);
            match with(count) {
                Some(answer) if answer.len() <= self.udp_limit() => fitting = count,
                _ => beyond = count,
            }
        }
        // Not even without records, where a nameserver's options are long.
        with(fitting)
            .filter(|answer| answer.len() <= self.udp_limit())
            .or_else(|| {
                let mut bare = self.response();
                bare.metadata.truncation = true;
                bare.metadata.response_code = code;
                encode(&bare)
            })
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
    use hickory_proto::rr::rdata::opt::EdnsOption;
    use hickory_proto::rr::{Name, RData, RecordType};
    use std::net::Ipv4Addr;

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
    fn as_many_records_as_fit_are_told() {
        for edns in [None, Some(1232)] {
            let mut asked = Message::from_vec(&query()).unwrap();
            asked.edns = edns.map(|size| {
                let mut edns = Edns::new();
                edns.set_max_payload(size);
                edns
            });
            let parsed = Query::parse(asked.to_vec().unwrap().into()).unwrap();
            let answer = |count: u16| {
                let mut answer = parsed.response();
                answer.metadata.authoritative = true;
                let name = &asked.queries[0].name;
                let records = (0..count).map(|n| {
                    let address = Ipv4Addr::from(u32::from(n));
                    Record::from_rdata(name.clone(), 5, RData::A(address.into()))
                });
                answer.answers = records.collect();
                answer
            };
            // A header of 12 bytes, a question of 17, an OPT record of 11; 16 for each record, whose name is a pointer.
            let limit = usize::from(edns.unwrap_or(512));
            let fitting = (limit - 29 - edns.map_or(0, |_| 11)) / 16;
            let whole = encode(&answer(fitting as u16)).unwrap();
            assert_eq!(parsed.cut(whole.clone()), Some(whole));

            let cut = parsed.cut(encode(&answer(fitting as u16 + 1)).unwrap());
            let cut = cut.unwrap();
            assert!(cut.len() <= limit && cut.len() + 16 > limit);
            let cut = Message::from_vec(&cut).unwrap();
            let mut expected = answer(fitting as u16);
            expected.metadata.truncation = true;
            assert_eq!(cut.metadata, expected.metadata);
            assert_eq!(cut.answers, expected.answers);
            assert_eq!(cut.edns, expected.edns);
        }
    }

    #[test]
    fn what_cannot_be_read_is_asked_for_over_tcp() {
        let parsed = Query::parse(query().into()).unwrap();
        let cut = parsed.cut(Bytes::from_static(&[7; 513])).unwrap();
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        assert_eq!(cut.metadata.id, 0xabcd);
    }

    #[test]
    fn options_that_are_too_long_are_left_out() {
        let parsed = Query::parse(query().into()).unwrap();
        let mut answer = parsed.response();
        answer.metadata.response_code = ResponseCode::NXDomain;
        let mut edns = Edns::new();
        edns.options_mut()
            .insert(EdnsOption::Unknown(65001, vec![0; 600]));
        answer.edns = Some(edns);
        let cut = parsed.cut(encode(&answer).unwrap()).unwrap();
        assert!(cut.len() <= 512);
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.metadata.truncation);
        assert_eq!(cut.metadata.response_code, ResponseCode::NXDomain);
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
