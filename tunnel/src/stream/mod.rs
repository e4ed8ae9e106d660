//! A stream: ordered bytes both ways, each direction ended on its own, or all of it reset. What TCP gives, whatever carries it.
//!
//! [`shared`] is a stream as its two users see it: the program that reads and writes, and the leg that carries it. What they
//! do to each other is decided in `state`, without I/O.

#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod receiving;
mod sending;
pub(crate) mod shared;
pub(crate) mod state;

use async_trait::async_trait;
use bytes::Bytes;
pub use state::Position;
use thiserror::Error;

/// The other side of a stream is gone before it ended what it was sending: its socket was reset, or the link was lost for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream was reset")]
pub struct Reset;

/// The other end of a stream does what it must not: it is another version, or broken. Ends the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the other end {0}")]
pub(crate) struct Violation(pub(crate) &'static str);

/// The receiving direction.
#[async_trait]
pub trait Reader: Send {
    /// The next bytes, never empty; `None` after the other side ended its direction.
    ///
    /// Cancel-safe: no byte is lost when the future is dropped.
    async fn read(&mut self) -> Result<Option<Bytes>, Reset>;

    /// Waits until the stream is reset. Never returns where that cannot be known.
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
