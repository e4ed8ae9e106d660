//! Whatever queries and answers meet in the pod: an answer belongs to a query only if that asked for it, and a failure of our own always
//! does.
#![no_main]

// The room that has it is not the crate's to show.
#[allow(dead_code)]
#[path = "../../remote-sshd/src/dns/message.rs"]
mod message;

use libfuzzer_sys::fuzz_target;
use message::Message;

fuzz_target!(|input: (Vec<u8>, Vec<u8>, u16)| {
    let (query, answer, id) = input;
    let (Some(query), Some(answer)) = (Message::new(query.into()), Message::new(answer.into()))
    else {
        return;
    };
    let renamed = query.with_id(id);
    assert_eq!(renamed.id(), id);
    assert_eq!(renamed.with_id(query.id()), query);
    if answer.answers(&query) {
        assert_eq!(answer.id(), query.id());
    }
    let failure = query.failure();
    assert!(failure.failed() && !failure.truncated());
    assert!(failure.answers(&query));
});
