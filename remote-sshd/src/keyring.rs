//! Who may enter: the keys that the configuration names, and those registered through the API server, which lapse.

use russh::keys::ssh_key::Fingerprint;
use russh::keys::{HashAlg, PublicKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a registered key is good for after its last use.
pub const LAPSE: Duration = Duration::from_secs(600);

/// Longest comment that is kept of a key, in characters.
const LONGEST_COMMENT: usize = 128;

/// A client, as other clients and the log see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 fingerprint of the key, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The comment of the key, without control characters.
    pub comment: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.comment, self.fingerprint)
    }
}

/// All keys that may enter.
#[derive(Debug)]
pub struct Keyring {
    lasting: HashMap<Fingerprint, String>,
    registered: Mutex<HashMap<Fingerprint, Registration>>,
}

#[derive(Debug)]
struct Registration {
    comment: String,
    /// Open connections.
    uses: usize,
    last_used: Instant,
}

impl Registration {
    fn lapsed(&self) -> bool {
        self.uses == 0 && self.last_used.elapsed() >= LAPSE
    }
}

impl Keyring {
    /// A keyring with the keys that never lapse.
    pub fn new(keys: &[PublicKey]) -> Keyring {
        Keyring {
            lasting: keys
                .iter()
                .map(|key| (fingerprint(key), comment(key)))
                .collect(),
            registered: Mutex::default(),
        }
    }

    fn registered(&self) -> MutexGuard<'_, HashMap<Fingerprint, Registration>> {
        let mut registered = self
            .registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        registered.retain(|_, registration| !registration.lapsed());
        registered
    }

    /// Lets a key in, until [`LAPSE`] after its last use.
    pub fn register(&self, key: &PublicKey) {
        let comment = comment(key);
        let mut registered = self.registered();
        let registration = registered
            .entry(fingerprint(key))
            .or_insert_with(|| Registration {
                comment: String::new(),
                uses: 0,
                last_used: Instant::now(),
            });
        registration.comment = comment;
        registration.last_used = Instant::now();
    }

    /// Whether `key` may enter.
    pub fn knows(&self, key: &PublicKey) -> bool {
        let fingerprint = fingerprint(key);
        self.lasting.contains_key(&fingerprint) || self.registered().contains_key(&fingerprint)
    }

    /// Lets the holder of `key` in, for as long as the admission lives.
    pub fn admit(self: &Arc<Self>, key: &PublicKey) -> Option<Admission> {
        let fingerprint = fingerprint(key);
        let mut registered = self.registered();
        let registration = registered.get_mut(&fingerprint);
        let comment = match (self.lasting.get(&fingerprint), &registration) {
            (Some(comment), _) => comment.clone(),
            (None, Some(registration)) => registration.comment.clone(),
            (None, None) => return None,
        };
        if let Some(registration) = registration {
            registration.uses += 1;
        }
        drop(registered);
        Some(Admission {
            identity: Identity {
                fingerprint: fingerprint.to_string(),
                comment,
            },
            fingerprint,
            keyring: self.clone(),
        })
    }
}

/// A client that was let in; its key counts as used until this is dropped.
#[derive(Debug)]
pub struct Admission {
    /// Who it is.
    pub identity: Identity,
    fingerprint: Fingerprint,
    keyring: Arc<Keyring>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(registration) = self.keyring.registered().get_mut(&self.fingerprint) {
            registration.uses = registration.uses.saturating_sub(1);
            registration.last_used = Instant::now();
        }
    }
}

/// The name of a key: keys with one fingerprint are one key.
fn fingerprint(key: &PublicKey) -> Fingerprint {
    key.fingerprint(HashAlg::Sha256)
}

/// The comment of a key, safe to be shown on a terminal.
fn comment(key: &PublicKey) -> String {
    key.comment()
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_COMMENT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::{Algorithm, PrivateKey};
    use tokio::time::advance;

    fn key(comment: &str) -> PublicKey {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .unwrap()
            .public_key()
            .clone();
        key.set_comment(comment);
        key
    }

    #[tokio::test(start_paused = true)]
    async fn a_registered_key_lapses_after_its_last_use() {
        let (keyring, key) = (Arc::new(Keyring::new(&[])), key("me"));
        assert!(!keyring.knows(&key));
        keyring.register(&key);
        advance(LAPSE - Duration::from_secs(1)).await;
        let admission = keyring.admit(&key).unwrap();
        assert_eq!(admission.identity.comment, "me");

        advance(LAPSE * 10).await;
        assert!(keyring.knows(&key), "in use by an open connection");
        drop(admission);
        advance(LAPSE - Duration::from_secs(1)).await;
        assert!(keyring.knows(&key));
        advance(Duration::from_secs(1)).await;
        assert!(!keyring.knows(&key));
        assert!(keyring.admit(&key).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_registered_again_keeps_its_uses() {
        let (keyring, key) = (Arc::new(Keyring::new(&[])), key("me"));
        keyring.register(&key);
        let first = keyring.admit(&key).unwrap();
        keyring.register(&key);
        let second = keyring.admit(&key).unwrap();
        drop(first);
        advance(LAPSE * 2).await;
        assert!(keyring.knows(&key));
        drop(second);
        advance(LAPSE).await;
        assert!(!keyring.knows(&key));
    }

    #[tokio::test(start_paused = true)]
    async fn a_configured_key_never_lapses() {
        let key = key("a\u{1b}[31mb\u{7}");
        let keyring = Arc::new(Keyring::new(std::slice::from_ref(&key)));
        advance(LAPSE * 100).await;
        let admission = keyring.admit(&key).unwrap();
        assert_eq!(admission.identity.comment, "a[31mb");
        assert!(admission.identity.fingerprint.starts_with("SHA256:"));
    }
}
