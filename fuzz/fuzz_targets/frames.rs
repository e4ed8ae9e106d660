//! Whatever comes on a stream of messages, however it is cut: each is as long as it says, nothing is lost, and the begin of one is a
//! reset.
#![no_main]

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use tunnel::frames::FrameReader;
use tunnel::stream::{Reader, Reset};

struct Pieces(std::vec::IntoIter<Vec<u8>>);

#[async_trait]
impl Reader for Pieces {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        Ok(self.0.find(|piece| !piece.is_empty()).map(Bytes::from))
    }
}

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let all = pieces.concat();
    let mut frames = FrameReader::new(Box::new(Pieces(pieces.into_iter())));
    let mut next = || block_on(frames.next());
    let mut rest = all.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk()
        && let Some((message, behind)) = behind.split_at_checked(u16::from_be_bytes(*length).into())
    {
        assert_eq!(next().unwrap().unwrap(), message);
        rest = behind;
    }
    let end = match rest {
        [] => Ok(None),
        _ => Err(Reset),
    };
    assert_eq!(next(), end);
});
