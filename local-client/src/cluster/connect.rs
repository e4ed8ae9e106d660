//! `--connect`: a TCP connection to where the user runs `kubectl port-forward`.

use super::errors;
use super::{DialFailure, Dialer, Transport};
use crate::config::Address;
use crate::error::Error;
use crate::original::{CONNECT_TIMEOUT, Original};
use async_trait::async_trait;
use russh::keys::PublicKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

/// The way that needs no API server: key and host key are known.
pub(super) struct Direct {
    pub(super) original: Original,
    pub(super) address: Address,
    pub(super) host_key: PublicKey,
}

#[async_trait]
impl Dialer for Direct {
    async fn dial(&self, _: &PublicKey) -> Result<Transport, DialFailure> {
        let stream = connect(&self.original, &self.address).await?;
        Ok(Transport {
            stream: Box::new(stream),
            host_key: self.host_key.clone(),
            peer: self.address.to_string(),
            declared_environment: None,
        })
    }
}

/// Connects to `address`, whose name is looked up as the container did at the start.
///
/// # Errors
/// [`DialFailure`]: the port-forward may be started later, or again.
pub(super) async fn connect(
    original: &Original,
    address: &Address,
) -> Result<TcpStream, DialFailure> {
    let failed = |reason: String| {
        let hint = "is kubectl port-forward running there, and listening on an address that this container reaches \
                    (--address)?";
        DialFailure::Passing(Error::Link(format!(
            "cannot connect to {address}: {reason}: {hint}"
        )))
    };
    // As a URL: that is what the connector takes.
    let host = match address.host.contains(':') {
        true => format!("[{}]", address.host),
        false => address.host.clone(),
    };
    let url = format!("http://{host}:{}", address.port)
        .parse()
        .map_err(|_| {
            DialFailure::Fatal(Error::Usage(format!(
                "--connect {address}: not a host name"
            )))
        })?;
    let mut connector = original.connector();
    match timeout(CONNECT_TIMEOUT, connector.call(url)).await {
        Ok(Ok(stream)) => Ok(stream.into_inner()),
        Ok(Err(error)) => Err(failed(errors::cause(&error).to_string())),
        Err(_) => Err(failed("timed out".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent::Silent;
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    async fn connected(host: &str, port: u16) -> Result<TcpStream, DialFailure> {
        let address = Address {
            host: host.into(),
            port,
        };
        connect(&Original::read().unwrap(), &address).await
    }

    #[tokio::test]
    async fn names_and_addresses_are_reached() {
        for host in ["127.0.0.1", "localhost"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = connected(host, port).await.unwrap();
            assert!(stream.nodelay().unwrap());
            assert!(SockRef::from(&stream).keepalive().unwrap());
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_address_and_may_pass() {
        // A port that is bound and not listened on refuses.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        match connected("127.0.0.1", port).await.unwrap_err() {
            DialFailure::Passing(Error::Link(message)) => {
                assert!(
                    message.contains(&format!("127.0.0.1:{port}: connection refused")),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_is_given_up_and_may_answer_later() {
        let silent = Silent::new().await;
        let before = Instant::now();
        let failure = connected("127.0.0.1", silent.port).await.unwrap_err();
        assert_eq!(before.elapsed(), CONNECT_TIMEOUT);
        match failure {
            DialFailure::Passing(Error::Link(message)) => {
                let part = format!("cannot connect to 127.0.0.1:{}: timed out", silent.port);
                assert!(message.contains(&part), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}
