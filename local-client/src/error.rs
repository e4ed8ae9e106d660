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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_exit_code_once() {
        let codes = [
            Error::Usage,
            Error::Api,
            Error::Target,
            Error::Unhealthy,
            Error::Authentication,
            Error::Link,
            Error::Local,
        ]
        .map(|error| error(String::new()).exit_code());
        let reference = include_str!("../../docs/reference.md");
        let (_, table) = reference.split_once("\n### Exit codes\n").unwrap();
        let row = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse().ok();
        let rows: Vec<u8> = table
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(row)
            .collect();
        // A clean end, and what the health check says.
        assert_eq!(rows, [&[0, 1][..], &codes].concat());
        assert!(rows.is_sorted_by(|one, next| one < next), "{rows:?}");
    }
}
