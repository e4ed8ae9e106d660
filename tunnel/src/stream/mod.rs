//! A stream: ordered bytes both ways, each direction ended on its own, or all of it reset. What TCP gives, whatever carries it.

#[cfg(any(test, feature = "memory"))]
pub mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

/// The other side of a stream is gone before it ended what it was sending: its socket was reset, or the link was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream was reset")]
pub struct Reset;

/// The receiving direction.
#[async_trait]
pub trait Reader: Send {
    /// The next bytes, never empty; `None` after the other side ended its direction.
    ///
    /// Cancel-safe: no byte is lost when the future is dropped.
    async fn read(&mut self) -> Result<Option<Bytes>, Reset>;

    /// Waits until the other side, which has ended this direction, is gone altogether and takes no more either. Never
    /// returns where that cannot be known.
    ///
    /// Cancel-safe.
    async fn lost(&mut self) {
        std::future::pending().await
    }
}

/// The sending direction. Dropped without [`finish`](Writer::finish), it is reset.
#[async_trait]
pub trait Writer: Send {
    /// Hands `bytes` on, waiting while the stream has no room.
    ///
    /// Not cancel-safe: a dropped future may have sent part of them.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Reset>;

    /// Ends this direction; the other one goes on (TCP's FIN).
    async fn finish(&mut self) -> Result<(), Reset>;

    /// Ends both directions at once, in a way the other side can tell from an orderly end (TCP's RST).
    async fn reset(&mut self);
}

/// Both directions of a stream. Dropping both closes it.
pub struct Stream {
    /// The receiving direction.
    pub reader: Box<dyn Reader>,
    /// The sending direction.
    pub writer: Box<dyn Writer>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}
