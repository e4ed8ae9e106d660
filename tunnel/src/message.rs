//! The subsystems that answer with one JSON document and end: facts and claims.

use crate::stream::{Reader, Reset, Writer};
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest document accepted, in bytes. An environment is at most a few megabytes (the kernel's limit is the stack's).
const MAX: usize = 32 << 20;

/// Why a document could not be had.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The stream ended before the document did.
    #[error("the link was lost")]
    Reset(#[from] Reset),
    /// More than `MAX` bytes.
    #[error("the answer is longer than {MAX} bytes")]
    TooLong,
    /// Not the document that was expected: another version, in all likelihood.
    #[error("the answer was not understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reads the one document that the stream carries.
///
/// # Errors
/// See [`MessageError`].
pub async fn receive<T: DeserializeOwned>(reader: &mut dyn Reader) -> Result<T, MessageError> {
    let mut all = BytesMut::new();
    while let Some(bytes) = reader.read().await? {
        if all.len() + bytes.len() > MAX {
            return Err(MessageError::TooLong);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(serde_json::from_slice(&all)?)
}

/// Writes `document` and ends the direction.
///
/// # Errors
/// See [`MessageError`].
pub async fn send<T: Serialize>(writer: &mut dyn Writer, document: &T) -> Result<(), MessageError> {
    writer.write(serde_json::to_vec(document)?.into()).await?;
    Ok(writer.finish().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::memory;

    /// What comes of a number with so many spaces before it.
    async fn received(spaces: usize) -> Result<u8, MessageError> {
        let (mut near, mut far) = memory::pair();
        let sending = tokio::spawn(async move {
            for piece in vec![b' '; spaces].chunks(1 << 20) {
                // The other end may have heard enough.
                let _ = far.writer.write(piece.to_vec().into()).await;
            }
            let _ = send(far.writer.as_mut(), &7).await;
        });
        let received = receive(near.reader.as_mut()).await;
        drop(near);
        sending.await.unwrap();
        received
    }

    #[tokio::test]
    async fn a_document_may_be_large_but_not_larger() {
        assert_eq!(received(0).await.unwrap(), 7);
        assert_eq!(received(MAX - 1).await.unwrap(), 7);
        assert!(matches!(received(MAX).await, Err(MessageError::TooLong)));
    }
}
