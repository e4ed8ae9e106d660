//! What a DNS answer tells.

use crate::dns::chosen::{Asked, Chosen};
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::{RData, RecordType};
use std::net::IpAddr;

/// Which of the chosen `names` `answer` is about, and the addresses in it.
pub(super) fn read(names: &Chosen, answer: &[u8]) -> (Option<Asked>, Vec<IpAddr>) {
    let message = Message::from_vec(answer).unwrap_or_else(|error| {
        tracing::debug!(%error, "an answer of the nameserver cannot be read");
        Message::query()
    });
    // Of other types, addresses are those of other names.
    let types = [RecordType::A, RecordType::AAAA, RecordType::HTTPS];
    let question = message.queries.first();
    let question = question.filter(|question| types.contains(&question.query_type));
    let asked = question.and_then(|question| names.find(&question.name));
    let records = message.answers.iter().chain(&message.additionals);
    let addresses = records.flat_map(|record| match &record.data {
        RData::SVCB(service) => hints(service),
        RData::HTTPS(service) => hints(service),
        data => Vec::from_iter(data.ip_addr()),
    });
    (asked, addresses.collect())
}

/// The addresses that a program may connect to without asking for them (RFC 9460 7.3).
fn hints(service: &SVCB) -> Vec<IpAddr> {
    let of = |value: &SvcParamValue| match value {
        SvcParamValue::Ipv4Hint(v4) => v4.0.iter().map(|hint| hint.0.into()).collect(),
        SvcParamValue::Ipv6Hint(v6) => v6.0.iter().map(|hint| hint.0.into()).collect(),
        _ => vec![],
    };
    let parameters = service.svc_params.iter();
    parameters.flat_map(|(_, value)| of(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey};
    use hickory_proto::rr::rdata::{A, AAAA, HTTPS, MX};
    use hickory_proto::rr::{Name, Record};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn told(record_type: RecordType, records: &[(&str, RData)]) -> (Option<Vec<usize>>, String) {
        let chosen = Chosen::of(&["db.example.com".parse().unwrap()], &[], b"");
        let mut answer = Message::query();
        answer.add_query(Query::query(name("db.example.com."), record_type));
        for (owner, data) in records {
            answer.add_answer(Record::from_rdata(name(owner), 5, data.clone()));
        }
        let (asked, addresses) = read(&chosen, &answer.to_vec().unwrap());
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        (asked.map(|asked| asked.indices), addresses.join(" "))
    }

    #[test]
    fn addresses_are_told_by_records_and_hints() {
        let v4 = |text: &str| A(text.parse().unwrap());
        let v6 = |text: &str| AAAA(text.parse().unwrap());
        let service = SVCB::new(
            1,
            Name::root(),
            vec![
                (SvcParamKey::Port, SvcParamValue::Port(8443)),
                (
                    SvcParamKey::Ipv4Hint,
                    SvcParamValue::Ipv4Hint(IpHint(vec![v4("192.0.2.1"), v4("192.0.2.2")])),
                ),
                (
                    SvcParamKey::Ipv6Hint,
                    SvcParamValue::Ipv6Hint(IpHint(vec![v6("fd00::1")])),
                ),
            ],
        );
        let hinted = "192.0.2.1 192.0.2.2 fd00::1";
        let itself = "db.example.com.";
        assert_eq!(
            told(
                RecordType::HTTPS,
                &[(itself, RData::HTTPS(HTTPS(service.clone())))]
            ),
            (Some(vec![0]), hinted.to_owned())
        );
        assert_eq!(
            told(RecordType::SVCB, &[(itself, RData::SVCB(service))]),
            (None, hinted.to_owned())
        );
        let alias = [
            (itself, RData::A(v4("192.0.2.3"))),
            ("other.example.com.", RData::A(v4("192.0.2.4"))),
        ];
        assert_eq!(
            told(RecordType::A, &alias),
            (Some(vec![0]), "192.0.2.3 192.0.2.4".to_owned())
        );
        // Of the mail server, not of the name.
        let mail = [
            (itself, RData::MX(MX::new(1, name("mx.example.com.")))),
            ("mx.example.com.", RData::AAAA(v6("fd00::2"))),
        ];
        assert_eq!(told(RecordType::MX, &mail), (None, "fd00::2".to_owned()));
    }
}
