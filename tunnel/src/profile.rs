//! How SSH is set up at both ends: algorithms, windows, limits, keepalives.

use crate::credit;
use crate::ident::{RunId, identification};
use russh::keys::PrivateKey;
use russh::{Limits, MethodKind, MethodSet, Preferred, cipher, client, compression, server};
use std::borrow::Cow;
use std::time::Duration;

/// Bytes a channel may carry before its receiver extends the window. Between our own ends, credit is what holds a sender back: this
/// is twice the most that may be under way, so that russh never has to wait for a window. russh extends it on receipt, so it
/// bounds no memory.
pub const WINDOW: u32 = 2 * (credit::LARGEST as u32);

/// Largest payload of one CHANNEL_DATA message, in bytes: the size every implementation must accept (RFC 4253 6.1).
pub const PACKET: u32 = 32 << 10;

/// How often the server asks a silent client for a sign of life; after three unanswered ones it ends the connection.
pub const SERVER_KEEPALIVE: Duration = Duration::from_secs(15);

/// How long the server takes to refuse a key, so that a refusal tells nothing by its time.
const REJECTION_TIME: Duration = Duration::from_millis(300);

/// Attempts to authenticate on one connection before it is closed.
const AUTH_ATTEMPTS: usize = 6;

/// The server's configuration, with `host_key` as its only host key.
pub fn server(host_key: PrivateKey) -> server::Config {
    server::Config {
        server_id: identification("remote-sshd", None),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION_TIME,
        // The "none" attempt that asks which methods there are tells nothing.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        limits: limits(),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: preferred(),
        max_auth_attempts: AUTH_ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(SERVER_KEEPALIVE),
        ..Default::default()
    }
}

/// The client's configuration. Its liveness is watched by the session's own heartbeat.
pub fn client(run: RunId) -> client::Config {
    client::Config {
        client_id: identification("local-client", Some(run)),
        limits: limits(),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: preferred(),
        ..Default::default()
    }
}

fn preferred() -> Preferred {
    Preferred {
        // The fastest first; zlib is not offered.
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}

/// Never rekey of our own accord: russh ends a session that has more than two windows of data in flight during a rekey.
/// A literal, because `Limits::new` does not take values this large. A rekey the peer asks for is answered.
fn limits() -> Limits {
    Limits {
        rekey_write_limit: usize::MAX,
        rekey_read_limit: usize::MAX,
        rekey_time_limit: Duration::from_secs(365 * 24 * 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::Algorithm;

    /// What the ends promise their users, and each other.
    #[test]
    fn keys_alone_let_in_nothing_is_compressed_and_nobody_rekeys() {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let (server, client) = (server(key), client(RunId::random()));
        assert_eq!(
            server.methods,
            MethodSet::from(&[MethodKind::PublicKey][..])
        );
        assert!(server.max_auth_attempts < 10);
        assert_eq!(server.auth_rejection_time, REJECTION_TIME);
        assert_eq!(server.auth_rejection_time_initial, Some(Duration::ZERO));
        for preferred in [&server.preferred, &client.preferred] {
            assert_eq!(*preferred.compression, [compression::NONE]);
            assert_eq!(preferred.cipher.first(), Some(&cipher::AES_128_GCM));
        }
        for limits in [&server.limits, &client.limits] {
            assert_eq!(limits.rekey_write_limit, usize::MAX);
            assert_eq!(limits.rekey_read_limit, usize::MAX);
            assert!(limits.rekey_time_limit > Duration::from_hours(24 * 364));
        }
        // A server asks a silent client for a sign of life, and ends nothing that is only silent.
        assert_eq!(server.keepalive_interval, Some(SERVER_KEEPALIVE));
        assert!(server.inactivity_timeout.is_none() && client.inactivity_timeout.is_none());
    }

    /// russh waits where a window is shorter than what may come.
    #[test]
    fn windows_are_larger_than_any_credit() {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let (server, client) = (server(key), client(RunId::random()));
        for window in [server.window_size, client.window_size] {
            assert!(u64::from(window) >= 2 * credit::LARGEST);
        }
        for packet in [server.maximum_packet_size, client.maximum_packet_size] {
            assert_eq!(packet, 32 * 1024);
        }
    }
}
