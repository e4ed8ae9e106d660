//! The answering side, in the server.

use super::namespace::Namespace;
use super::{ERROR, OK, TIMEOUT, wire};
use crate::authorized_keys::parse_line;
use crate::keyring::Keyring;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Requests under way at a time; others wait in the socket's queue.
const REQUESTS: usize = 8;

/// Pause after a failed `accept`, for the descriptors to come back that it lacked.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Takes keys from within the container.
#[derive(Debug)]
pub struct Registrar {
    listener: UnixListener,
    desk: Arc<Desk>,
}

/// What answering one request takes.
#[derive(Debug)]
struct Desk {
    namespace: Namespace,
    keyring: Arc<Keyring>,
    host_key: String,
}

impl Registrar {
    /// Binds the socket of the server for `port`, whose host key is `host_key` in OpenSSH's format.
    ///
    /// # Errors
    /// That the name is taken, above all: by a process that has no business to be there.
    pub fn bind(port: u16, keyring: Arc<Keyring>, host_key: String) -> io::Result<Registrar> {
        let namespace = Namespace::own()?;
        let listener = UnixListener::bind(format!("\0{}", namespace.socket_name(port)))?;
        let desk = Arc::new(Desk {
            namespace,
            keyring,
            host_key,
        });
        Ok(Registrar { listener, desk })
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let requests = TaskTracker::new();
        let limit = Arc::new(Semaphore::new(REQUESTS));
        let accepting = async {
            // The semaphore is never closed.
            while let Ok(permit) = limit.clone().acquire_owned().await {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let desk = self.desk.clone();
                        requests.spawn(async move {
                            if !matches!(timeout(TIMEOUT, desk.answer(&stream)).await, Ok(Ok(()))) {
                                debug!("authorize: the request was not finished");
                            }
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "authorize: accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accepting).await;
        requests.close();
        requests.wait().await;
    }
}

impl Desk {
    async fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        let (line, passed) = wire::receive(stream).await?;
        let proven = match passed {
            Some(passed) => self.namespace.is(passed)?,
            None => false,
        };
        if !proven {
            warn!("a process outside this container asked to register a key: refused");
            let text = format!("{ERROR}you are not in the container of this server");
            return wire::send(stream, &text, None).await;
        }
        match parse_line(&line) {
            Ok(key) => {
                self.keyring.register(&key);
                let fingerprint = key.fingerprint(Default::default());
                info!(%fingerprint, "registered a key");
                let text = format!("{OK}{}", self.host_key);
                wire::send(stream, &text, Some(self.namespace.as_fd())).await
            }
            Err(error) => wire::send(stream, &format!("{ERROR}{error}"), None).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::{Algorithm, PrivateKey, PublicKey};
    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    fn key() -> PublicKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .unwrap()
            .public_key()
            .clone()
    }

    fn desk() -> Desk {
        Desk {
            namespace: Namespace::own().unwrap(),
            keyring: Arc::new(Keyring::new(&[])),
            host_key: "ssh-ed25519 HOST".into(),
        }
    }

    #[tokio::test]
    async fn without_a_proof_nothing_is_registered_and_nothing_shown() {
        let (desk, key) = (desk(), key());
        let net = std::fs::File::open("/proc/self/ns/net").unwrap();
        for proof in [None, Some(net.as_fd())] {
            let (near, far) = UnixStream::pair().unwrap();
            wire::send(&near, &key.to_openssh().unwrap(), proof)
                .await
                .unwrap();
            desk.answer(&far).await.unwrap();
            let (answer, passed) = wire::receive(&near).await.unwrap();
            assert!(answer.starts_with(ERROR), "{answer}");
            assert!(passed.is_none(), "the server's descriptor would be a proof");
            assert!(!desk.keyring.knows(&key));
        }
    }

    #[tokio::test]
    async fn with_a_proof_the_key_is_registered() {
        let (desk, key) = (desk(), key());
        let (near, far) = UnixStream::pair().unwrap();
        let own = Namespace::own().unwrap();
        wire::send(&near, &key.to_openssh().unwrap(), Some(own.as_fd()))
            .await
            .unwrap();
        desk.answer(&far).await.unwrap();
        let (answer, passed) = wire::receive(&near).await.unwrap();
        assert_eq!(answer, "ok ssh-ed25519 HOST");
        assert!(own.is(passed.unwrap()).unwrap());
        assert!(desk.keyring.knows(&key));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_not_finished_is_dropped() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let desk = desk();
        let registrar = Registrar::bind(port, desk.keyring, desk.host_key).unwrap();
        let shutdown = CancellationToken::new();
        let _running = tokio::spawn(registrar.run(shutdown.clone()));
        let name = desk.namespace.socket_name(port);
        let mut silent = UnixStream::connect(format!("\0{name}")).await.unwrap();
        let before = Instant::now();
        let end = timeout(TIMEOUT * 60, silent.read(&mut [0])).await;
        assert_eq!(end.expect("an end").unwrap(), 0);
        assert_eq!(before.elapsed(), TIMEOUT);
    }
}
