//! Any originator's address and any identification string are read; what is read means what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tunnel::ident::Peer;
use tunnel::label::{join, split};

fuzz_target!(|input: &[u8]| {
    Peer::parse(input);
    let Ok(field) = std::str::from_utf8(input) else {
        return;
    };
    if let (address, Some(label)) = split(field) {
        assert_eq!(split(&join(address, &label)), (address, Some(label)));
    }
});
