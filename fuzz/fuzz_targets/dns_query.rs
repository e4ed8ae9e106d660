//! Whatever a program sends to the nameserver that it is given, and whatever the pod's answer: what is answered has the query's id, is
//! a DNS message, and fits into the program's datagram.
#![no_main]

// The room that has it is not the crate's to show.
#[allow(dead_code)]
#[path = "../../local-client/src/dns/query.rs"]
mod query;

use bytes::Bytes;
use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use query::Query;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (asked, answer) = input;
    let id = asked.get(..2).map(<[u8]>::to_vec);
    let check = |answer: Option<Bytes>| {
        let Some(answer) = answer else { return };
        assert_eq!(answer.get(..2).map(<[u8]>::to_vec), id);
        Message::from_vec(&answer).unwrap();
    };
    match Query::parse(asked.into()) {
        Err(refusal) => check(refusal),
        Ok(query) => {
            check(query.unknown());
            check(query.failed());
            check(query.answered(vec![]));
            // As the nameservers' answers come: with the query's id.
            let answer = [&query.bytes[..2], &answer].concat();
            let limit = query.udp_limit();
            if let Some(cut) = query.cut(answer.into()) {
                assert!(cut.len() <= limit);
                assert_eq!(cut[..2], query.bytes[..2]);
            }
        }
    }
});
