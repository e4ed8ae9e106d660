//! The health of the running client, asked by `healthcheck` over a socket that only this container has.

use crate::session::Session;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// In a container's own /dev/shm: writable even with a read-only root, and not shared with the containers that join the
/// network, as an abstract socket would be.
pub const SOCKET: &str = "/dev/shm/local-telepresence.sock";

/// The answer of a client whose link works.
const HEALTHY: &[u8] = b"healthy\n";
/// The answer of a client whose link does not.
const UNHEALTHY: &[u8] = b"the link to the pod is down\n";

/// For the whole question; Docker's own limit for the command is 5 s.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Binds `path`, in the place of what a killed client left there.
///
/// # Errors
/// Those of `bind`.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers questions one after the other until `shutdown`.
pub async fn run(listener: UnixListener, session: &Session, shutdown: CancellationToken) {
    let answers = async {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = if session.healthy().await {
                HEALTHY
            } else {
                UNHEALTHY
            };
            // The one who asks may have gone.
            let _ = timeout(TIMEOUT, stream.write_all(answer)).await;
        }
    };
    shutdown.run_until_cancelled(answers).await;
}

/// Asks the client behind `path`: `Ok` if it is healthy, else why not.
///
/// # Errors
/// A sentence for people.
pub async fn ask(path: &Path) -> Result<(), String> {
    let question = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    match timeout(TIMEOUT, question).await {
        Ok(Ok(answer)) if answer == HEALTHY => Ok(()),
        Ok(Ok(answer)) => Err(String::from_utf8_lossy(&answer).trim_end().to_owned()),
        Ok(Err(error)) => Err(format!("the client is not ready: {error}")),
        Err(_) => Err(format!(
            "the client did not answer within {} s",
            TIMEOUT.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_is_not_healthy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _silent = bind(&path).unwrap();
        let before = Instant::now();
        let reason = ask(&path).await.unwrap_err();
        assert_eq!(reason, "the client did not answer within 4 s");
        assert_eq!(before.elapsed(), TIMEOUT);
    }
}
