//! How long things may take, and how many there may be.

use std::time::Duration;

/// Connections at a time whose client is not authenticated; further ones are closed at once. Each may make russh hold one
/// packet of 256 KiB.
pub const UNAUTHENTICATED: usize = 64;

/// What a test may want to be over sooner.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a connection's first packet to its client being authenticated.
    pub login: Duration,
    /// From the last byte of an authenticated client to the end of its connection. russh asks a silent client for a sign
    /// of life, but not while it waits for a stream that nobody reads: this is longer than its patience, and ends those.
    pub silence: Duration,
    /// From the signal to end to the end of streams under way. Kubernetes kills after 30 s unless told otherwise.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            login: Duration::from_secs(10),
            silence: Duration::from_secs(75),
            drain: Duration::from_secs(25),
        }
    }
}
