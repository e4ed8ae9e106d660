//! What ends the client, and the exit code it ends with. A message says what failed, on which object, and what to do next.

use thiserror::Error;

/// What ends the client other than the user's wish.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// Options that contradict each other, or a value that only the run can find wrong.
    #[error("{0}")]
    Usage(String),
    /// The kubeconfig, the credentials in it, or the API server.
    #[error("{0}")]
    Api(String),
    /// The workload, the pod or the container named does not exist or cannot be used.
    #[error("{0}")]
    Target(String),
    /// The pod does not run.
    #[error("{0}")]
    Unhealthy(String),
    /// The two ends do not accept each other.
    #[error("{0}")]
    Authentication(String),
    /// There is no link to the pod.
    #[error("{0}")]
    Link(String),
    /// Something on this side: a port, a file, a permission.
    #[error("{0}")]
    Local(String),
}

impl Error {
    /// The exit code; `docs/reference.md` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Api(_) => 3,
            Error::Target(_) => 4,
            Error::Unhealthy(_) => 5,
            Error::Authentication(_) => 6,
            Error::Link(_) => 7,
            Error::Local(_) => 8,
        }
    }
}
