//! The pod's DNS answers, and what becomes of them.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record};
use std::net::Ipv4Addr;

/// Longest time an app may keep a loopback address, in seconds: as long as it does, the name's ports are not looked at.
const TTL_MAX: u32 = 30;

/// An answer of the pod's nameservers.
pub(super) struct Answer(Message);

impl From<Message> for Answer {
    fn from(message: Message) -> Answer {
        Answer(message)
    }
}

impl Answer {
    /// Reads an answer; `None` if it is none that can be read, and so none that could be changed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Answer> {
        Message::from_vec(bytes).ok().map(Answer)
    }

    pub(super) fn code(&self) -> ResponseCode {
        self.0.metadata.response_code
    }

    /// How long the addresses in it hold, in seconds; `None` if there are none.
    pub(super) fn address_ttl(&self) -> Option<u32> {
        let addresses = self.0.answers.iter().filter(|record| is_address(record));
        addresses.map(|record| record.ttl).min()
    }

    /// The names that the name asked for is an alias of.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &Name> {
        self.0
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::CNAME(target) => Some(&target.0),
                _ => None,
            })
    }

    /// The answer with `address` as the one of the name asked for.
    pub(super) fn with_address(self, question: Query, address: Ipv4Addr, ttl: u32) -> Message {
        let mut message = self.emptied();
        let address = RData::A(A(address));
        let record = Record::from_rdata(question.name, ttl.min(TTL_MAX), address);
        message.add_answer(record);
        message
    }

    /// The answer without its records (NODATA); `None` if it has none, or is no success.
    pub(super) fn without_records(self) -> Option<Message> {
        let some = self.code() == ResponseCode::NoError && !self.0.answers.is_empty();
        some.then(|| self.emptied())
    }

    /// The answer that the nameserver failed.
    pub(super) fn failed(self) -> Message {
        let mut message = self.emptied();
        message.metadata.response_code = ResponseCode::ServFail;
        message
    }

    /// The answer without the addresses that it adds unasked for names that are `claimed`, as with SRV records: they
    /// would lead past the name's listeners. `None` if there are none.
    pub(super) fn without_hints(mut self, claimed: impl Fn(&Name) -> bool) -> Option<Message> {
        let before = self.0.additionals.len();
        self.0
            .additionals
            .retain(|record| !(is_address(record) && claimed(&record.name)));
        (self.0.additionals.len() < before).then_some(self.0)
    }

    /// Header, question and EDNS alone.
    fn emptied(mut self) -> Message {
        self.0.answers.clear();
        self.0.authorities.clear();
        self.0.additionals.clear();
        self.0
    }
}

fn is_address(record: &Record) -> bool {
    matches!(record.data, RData::A(_) | RData::AAAA(_))
}
