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
