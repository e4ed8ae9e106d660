//! The key this client shows: a fresh one for each run, or the user's.

use crate::config::Options;
use crate::error::Error;
use russh::keys::{Algorithm, PrivateKey, key::safe_rng, load_secret_key};

/// The key of `options`: the file given, else a fresh one that never leaves the memory. Its comment tells other users who
/// holds a port.
///
/// # Errors
/// [`Error::Local`] if the file is not a private key that can be used.
pub fn load(options: &Options) -> Result<PrivateKey, Error> {
    let Some(path) = &options.identity else {
        let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
            .map_err(|error| Error::Local(format!("no key could be made: {error}")))?;
        key.set_comment(comment());
        return Ok(key);
    };
    load_secret_key(path, None).map_err(|error| {
        Error::Local(format!(
            "{} is not a private key that can be used (Ed25519 or ECDSA in OpenSSH format, without a passphrase): {error}",
            path.display()
        ))
    })
}

/// Tells the run apart for other users: the container's name in the network, which `docker ps` shows as its id.
fn comment() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("local-telepresence@{}", host.to_string_lossy())
}
