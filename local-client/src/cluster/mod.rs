//! The way to remote-sshd: finds the pod, registers the client's key with it, and makes a byte stream to it. This room
//! alone knows Kubernetes.

mod api;
mod authorize;
mod connect;
mod container;
mod credentials;
mod errors;
mod find;
mod forward;
mod host_key;
mod server;
mod status;
mod through_api;
mod usable;
mod workload;

use crate::config::Options;
use crate::error::Error;
use crate::original::Original;
use async_trait::async_trait;
use connect::Direct;
use russh::keys::PublicKey;
use std::sync::Arc;
use through_api::ThroughApi;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to remote-sshd.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A way to remote-sshd that was just made.
pub struct Transport {
    /// Carries one SSH connection.
    pub stream: Box<dyn Io>,
    /// The host key that remote-sshd must show.
    pub host_key: PublicKey,
    /// The pod, for people.
    pub peer: String,
    /// Keys of the variables that the pod's specification sets by name; `None` where the specification cannot be read.
    pub declared_environment: Option<Vec<String>>,
}

/// Why there is no way to remote-sshd.
#[derive(Debug, Clone)]
pub enum DialFailure {
    /// Waiting will not help: at the start this ends the client.
    Fatal(Error),
    /// May pass by itself: the pod is not running yet, the API server does not answer.
    Passing(Error),
}

/// Makes ways to remote-sshd.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Finds the pod anew, has it accept `key`, and connects. Each step has its own timeout.
    ///
    /// # Errors
    /// See [`DialFailure`]; the message says what failed, on which object, and what to do next.
    async fn dial(&self, key: &PublicKey) -> Result<Transport, DialFailure>;
}

/// The dialer that `options` ask for, which looks names up by `original`.
///
/// # Errors
/// [`Error::Usage`] where options are missing or malformed, [`Error::Api`] where the kubeconfig cannot be used.
pub async fn dialer(options: &Options, original: Original) -> Result<Arc<dyn Dialer>, Error> {
    let host_key = options.host_key.as_deref().map(host_key).transpose()?;
    match (&options.connect, host_key) {
        (Some(address), Some(host_key)) => Ok(Arc::new(Direct {
            original,
            address: address.clone(),
            host_key,
        })),
        (_, host_key) => Ok(Arc::new(
            ThroughApi::new(options, host_key, original).await?,
        )),
    }
}

fn host_key(text: &str) -> Result<PublicKey, Error> {
    PublicKey::from_openssh(text).map_err(|error| {
        Error::Usage(format!(
            "--host-key is not a public key in OpenSSH format, such as \"ssh-ed25519 AAAA...\": {error}"
        ))
    })
}
