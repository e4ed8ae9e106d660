//! The asking side: `remote-sshd authorize KEY`.

use super::namespace::Namespace;
use super::{AuthorizeError, ERROR, OK, TIMEOUT, wire};
use crate::authorized_keys::parse_line;
use std::io;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// A container that has just started may be asked before its server listens: how long that is waited for, ...
const STARTUP: Duration = Duration::from_secs(3);
/// ... and how often it is looked at.
const STARTUP_POLL: Duration = Duration::from_millis(50);

/// Registers `key` with the server for `port` in this container; returns the host key, in OpenSSH's format.
///
/// # Errors
/// See [`AuthorizeError`].
pub async fn authorize(key: &str, port: u16) -> Result<String, AuthorizeError> {
    let key = parse_line(key)?
        .to_openssh()
        .map_err(|_| crate::authorized_keys::BadKey::Malformed)?;
    let system = |doing| move |source| AuthorizeError::System { doing, source };
    let namespace = Namespace::own().map_err(system("opening /proc/self/ns/mnt"))?;
    let stream = connect(&namespace.socket_name(port))
        .await
        .map_err(system("connecting to the server"))?
        .ok_or(AuthorizeError::NotServing(port))?;

    let exchange = async {
        wire::send(&stream, &key, Some(rustix::fd::AsFd::as_fd(&namespace))).await?;
        wire::receive(&stream).await
    };
    let (answer, passed) = timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| AuthorizeError::TimedOut)?
        .map_err(system("talking to the server"))?;
    if let Some(reason) = answer.strip_prefix(ERROR) {
        return Err(AuthorizeError::Refused(reason.to_owned()));
    }
    let proven = match passed {
        Some(passed) => namespace.is(passed).map_err(system("fstat"))?,
        None => false,
    };
    match answer.strip_prefix(OK) {
        Some(host_key) if proven => Ok(host_key.to_owned()),
        _ => Err(AuthorizeError::Stranger),
    }
}

/// Connects to the abstract socket `name`; `None` if nobody listens.
async fn connect(name: &str) -> io::Result<Option<UnixStream>> {
    let deadline = Instant::now() + STARTUP;
    loop {
        match UnixStream::connect(format!("\0{name}")).await {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => return Err(error),
            Err(_) if Instant::now() >= deadline => return Ok(None),
            Err(_) => sleep(STARTUP_POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::{Algorithm, PrivateKey};
    use tokio::net::{TcpListener, UnixListener};

    /// Asks for the server of `port`; what that meets with, and after how long.
    async fn asked(port: u16) -> (AuthorizeError, Duration) {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let line = key.public_key().to_openssh().unwrap();
        let before = Instant::now();
        let asking = timeout(TIMEOUT * 60, authorize(&line, port)).await;
        let error = asking.expect("it gives up").unwrap_err();
        (error, before.elapsed())
    }

    /// A port that no other test has, as long as the listener lives.
    async fn port() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_given_up() {
        let (_reserved, port) = port().await;
        let name = Namespace::own().unwrap().socket_name(port);
        let _silent = UnixListener::bind(format!("\0{name}")).unwrap();
        let (error, waited) = asked(port).await;
        assert!(matches!(error, AuthorizeError::TimedOut), "{error}");
        assert_eq!(waited, TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_may_be_starting_is_waited_for() {
        let (_reserved, port) = port().await;
        let (error, waited) = asked(port).await;
        assert!(matches!(error, AuthorizeError::NotServing(_)), "{error}");
        assert_eq!(waited, STARTUP);
    }
}
