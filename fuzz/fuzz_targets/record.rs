//! A record of any type and with any payload is read, ignored or refused; what is read means what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tunnel::record::Record;

fuzz_target!(|input: (u32, &[u8])| {
    let (offset, payload) = input;
    // Around the types of ours.
    let code = 0xFDFF_FFFE_u32.wrapping_add(offset % 8);
    if let Ok(Some(record)) = Record::decode(code, payload) {
        let (code, payload) = record.encode();
        assert_eq!(Record::decode(code, &payload), Ok(Some(record)));
    }
});
