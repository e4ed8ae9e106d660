//! Whatever messages an API server sends, in whatever order: each is understood or refused, and no byte of the pod is lost or added.
#![no_main]

// The room that has it is not the crate's to show.
#[allow(dead_code)]
#[path = "../../local-client/src/cluster/forward/protocol.rs"]
mod protocol;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{Event, Incoming};

fuzz_target!(|input: (bool, Vec<Vec<u8>>)| {
    let (ends_channels, messages) = input;
    let mut incoming = Incoming::new(0x1f56, ends_channels);
    for message in messages {
        let length = message.len();
        if let Ok(Event::Data(bytes)) = incoming.read(Bytes::from(message)) {
            assert_eq!(bytes.len() + 1, length);
        }
    }
});
