//! When a connection that works is replaced by a new one: its streams move over and notice nothing.
//!
//! russh keeps 3.4 KiB for each channel that this end closed, and a rekey under load ends its session; a cipher's key should
//! not be used for ever (RFC 4344 3.2, and 64 GiB where OpenSSH draws the line for AES). A new connection mends all three.

use super::connection::Connection;
use std::time::Duration;
use tokio::time::sleep;

/// What a connection may carry before it is replaced.
#[derive(Debug, Clone, Copy)]
pub struct Wear {
    /// Since when it stands.
    pub age: Duration,
    /// Channels opened by either end: 16 MiB of memory for those that were closed.
    pub channels: u64,
    /// Bytes both ways.
    pub bytes: u64,
}

impl Default for Wear {
    fn default() -> Wear {
        Wear {
            age: Duration::from_secs(3600),
            channels: 5000,
            bytes: 32 << 30,
        }
    }
}

/// How often a connection is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until `connection` has carried what it may. Cancel-safe.
pub async fn due(connection: &Connection, limit: Wear) {
    loop {
        let (age, channels, bytes) = connection.worn();
        if age >= limit.age || channels >= limit.channels || bytes >= limit.bytes {
            return;
        }
        sleep(INTERVAL).await;
    }
}
