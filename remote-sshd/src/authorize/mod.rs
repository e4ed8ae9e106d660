//! Registering a key from within the container: `remote-sshd authorize KEY`, run through the API server's exec, meets the
//! server on an abstract Unix socket.
//!
//! Containers of one pod share the network namespace, and with it abstract sockets, but not the mount namespace. So each
//! side passes a descriptor of its own `/proc/self/ns/mnt` and refuses a peer whose namespace is another one. The asking
//! side goes first: the server shows its descriptor, which would open this very door, to nobody it does not know yet.
//!
//! Request: the key as one line in OpenSSH's format. Answer: `ok ` and the host key, or `error ` and a reason; one line.

pub mod ask;
pub mod listen;
mod namespace;
mod wire;

use std::time::Duration;
use thiserror::Error;

/// How long one side waits for the other.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Starts an answer that carries the host key.
const OK: &str = "ok ";
/// Starts an answer that carries a reason.
const ERROR: &str = "error ";

/// Why a key could not be registered.
#[derive(Debug, Error)]
pub enum AuthorizeError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] crate::authorized_keys::BadKey),
    /// Nobody listens.
    #[error("no remote-sshd is serving on port {0} in this container")]
    NotServing(u16),
    /// The server is one of another container, and must not be told who wants to enter this one.
    #[error("the answer came from another container of the pod: nothing was registered here")]
    Stranger,
    /// The server said no.
    #[error("refused: {0}")]
    Refused(String),
    /// The server went silent.
    #[error("the server did not answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut,
    /// A system call failed.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        source: std::io::Error,
    },
}
