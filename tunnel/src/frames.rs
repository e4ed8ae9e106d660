//! Messages on a stream, each after its length in two bytes, big endian: as DNS over TCP has them (RFC 1035 4.2.2).

use crate::stream::{Reader, Reset, Writer};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest message, in bytes.
pub const MAX: usize = u16::MAX as usize;

/// Takes messages out of the receiving direction of a stream.
pub struct FrameReader {
    reader: Box<dyn Reader>,
    buffer: BytesMut,
}

impl FrameReader {
    /// Reads messages from `reader`.
    pub fn new(reader: Box<dyn Reader>) -> FrameReader {
        FrameReader {
            reader,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None` after the last. A stream that ends within a message is a reset.
    ///
    /// Cancel-safe: a message read in part is kept.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Reset> {
        loop {
            if let Some(message) = split(&mut self.buffer) {
                return Ok(Some(message));
            }
            match self.reader.read().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Reset),
            }
        }
    }
}

/// Splits the first whole message off `buffer`.
fn split(buffer: &mut BytesMut) -> Option<Bytes> {
    let (length, _) = buffer.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if buffer.len() < 2 + length {
        return None;
    }
    buffer.advance(2);
    Some(buffer.split_to(length).freeze())
}

/// The bytes of `message` as a frame; `None` if it is longer than [`MAX`].
pub fn frame(message: &[u8]) -> Option<Bytes> {
    let length = u16::try_from(message.len()).ok()?;
    let mut frame = BytesMut::with_capacity(2 + message.len());
    frame.put_u16(length);
    frame.put_slice(message);
    Some(frame.freeze())
}

/// Writes `message` as a frame.
///
/// # Errors
/// [`Reset`] if the stream is gone, or the message longer than [`MAX`].
pub async fn send(writer: &mut dyn Writer, message: &[u8]) -> Result<(), Reset> {
    writer.write(frame(message).ok_or(Reset)?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::memory;

    #[tokio::test]
    async fn messages_survive_any_cut() {
        let messages: [&[u8]; 4] = [b"", b"a", &[7; 300], &[9; MAX]];
        let all: Vec<u8> = messages
            .iter()
            .flat_map(|m| frame(m).unwrap().to_vec())
            .collect();
        for cut in [1, 2, 3, 1000, MAX] {
            let (near, mut far) = memory::pair();
            let all = all.clone();
            let sender = tokio::spawn(async move {
                for piece in all.chunks(cut) {
                    far.writer
                        .write(Bytes::copy_from_slice(piece))
                        .await
                        .unwrap();
                }
                far.writer.finish().await.unwrap();
            });
            let mut reader = FrameReader::new(near.reader);
            for message in messages {
                assert_eq!(reader.next().await.unwrap().unwrap(), message);
            }
            assert_eq!(reader.next().await, Ok(None));
            sender.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_cut_off_is_a_reset() {
        let (near, mut far) = memory::pair();
        far.writer
            .write(Bytes::from_static(&[0, 2, 1]))
            .await
            .unwrap();
        far.writer.finish().await.unwrap();
        assert_eq!(FrameReader::new(near.reader).next().await, Err(Reset));
    }

    #[tokio::test]
    async fn a_message_too_long_is_refused() {
        let (near, mut far) = memory::pair();
        let too_long = send(far.writer.as_mut(), &vec![0; MAX + 1]).await;
        assert_eq!(too_long, Err(Reset));
        send(far.writer.as_mut(), b"next").await.unwrap();
        let next = FrameReader::new(near.reader).next().await;
        assert_eq!(next.unwrap().unwrap(), "next");
    }
}
