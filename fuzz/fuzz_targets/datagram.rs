//! Whatever comes on the stream of the datagrams, however it is cut: each frame is whole, and nothing is added to it.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tunnel::datagrams::Frame;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let (mut wire, mut came, mut taken) = (BytesMut::new(), 0, 0);
    for piece in pieces {
        came += piece.len();
        wire.extend_from_slice(&piece);
        while let Some(frame) = Frame::split(&mut wire) {
            taken += frame.payload.len();
            assert!(taken + wire.len() <= came);
        }
    }
});
