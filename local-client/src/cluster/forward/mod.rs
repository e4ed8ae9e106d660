//! A port-forward of Kubernetes as a byte stream. kube has one of its own, which sends 4 KiB at a time and in which a
//! direction that stands still holds up the other (`docs/decisions/port-forward.md`).

mod protocol;
mod stream;

use super::api::Api;
use super::errors::Right;
use super::find::Found;
use super::{DialFailure, Io};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::core::Request;
use stream::Forward;

/// Opens a stream to remote-sshd's port. That something listens there is known only from the first bytes: a refusal is an
/// error of the first read.
///
/// # Errors
/// [`DialFailure`] where the API server does not forward, or not within the time that a request may take.
pub(super) async fn forward(api: &Api, found: &Found) -> Result<Box<dyn Io>, DialFailure> {
    let Found { pod, port, .. } = found;
    let right = Right {
        verb: "get and create",
        resource: "pods/portforward",
    };
    let pods = Request::new(Pod::url_path(&(), Some(&api.account.namespace)));
    let opening = async {
        let request = pods
            .portforward(pod, &[*port])
            .map_err(kube::Error::BuildRequest)?;
        api.client.connect(request).await
    };
    let connection = api.ask(right, opening).await?;
    let ends_channels = connection.supports_stream_close();
    // Not kube's websocket itself: it is set up without a limit of what it keeps unsent. Nothing was read from it yet.
    let socket = connection.into_stream().into_inner();
    let what = format!("port {port} of pod {pod}");
    let forward = Forward::new(socket, *port, ends_channels, what).await;
    Ok(Box::new(forward))
}

#[cfg(test)]
#[expect(
    clippy::result_large_err,
    reason = "so tungstenite takes a server's refusal"
)]
mod tests {
    use super::super::api::REQUEST_TIMEOUT;
    use super::super::errors::Account;
    use super::*;
    use crate::error::Error;
    use crate::original::Original;
    use futures::{SinkExt, StreamExt};
    use kube::client::Body;
    use kube::{Client, Config};
    use serde_json::json;
    use std::future::pending;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, timeout};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    use tokio_tungstenite::tungstenite::http;
    use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
    use tower::service_fn;

    fn account() -> Account {
        Account {
            server: "api".into(),
            context: "dev".into(),
            user: "me".into(),
            namespace: "team".into(),
        }
    }

    fn found() -> Found {
        Found {
            pod: "web-1".into(),
            container: "app".into(),
            port: 8022,
            declared_environment: vec![],
            warnings: vec![],
        }
    }

    /// Asks an API server that answers with `answer`; also what that server then has in its hands.
    async fn asked(
        answer: impl Fn(Response) -> Result<Response, ErrorResponse> + Unpin,
    ) -> (
        Result<Box<dyn Io>, DialFailure>,
        Option<WebSocketStream<TcpStream>>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = Config::new(url.parse().unwrap());
        let original = Original::read().unwrap();
        let api = Api::new(config, account(), &original).await.unwrap();
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let answer = |request: &Request, response| {
                let asked = request.uri().to_string();
                let expected = "/api/v1/namespaces/team/pods/web-1/portforward?&ports=8022";
                assert_eq!(asked, expected);
                answer(response)
            };
            accept_hdr_async(socket, answer).await.ok()
        };
        let found = found();
        tokio::join!(forward(&api, &found), serve)
    }

    fn speaks(protocol: &'static str) -> impl Fn(Response) -> Result<Response, ErrorResponse> {
        move |mut response| {
            let headers = response.headers_mut();
            headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
            Ok(response)
        }
    }

    #[tokio::test]
    async fn both_versions_are_spoken() {
        for (protocol, ends_channels) in [("v4.channel.k8s.io", false), ("v5.channel.k8s.io", true)]
        {
            let (forward, server) = asked(speaks(protocol)).await;
            let (mut forward, mut server) = (forward.ok().unwrap(), server.unwrap());
            for message in [&b"\x00\x56\x1f"[..], b"\0hello"] {
                server
                    .send(Message::binary(message.to_vec()))
                    .await
                    .unwrap();
            }
            let mut read = [0; 5];
            forward.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello");
            forward.write_all(b"bye").await.unwrap();
            forward.shutdown().await.unwrap();
            let mut sent = vec![];
            while let Some(Ok(Message::Binary(message))) = server.next().await {
                sent.push(message);
            }
            let told: [&[u8]; 2] = [b"\0bye", b"\xff\0"];
            assert_eq!(sent, told[..1 + usize::from(ends_channels)]);
        }
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let cases = [
            (
                403,
                true,
                "may not get and create pods/portforward in namespace \"team\" (its words)",
            ),
            (
                404,
                false,
                "cannot get and create pods/portforward: its words",
            ),
            (
                500,
                false,
                "cannot get and create pods/portforward now: its words",
            ),
        ];
        for (code, is_fatal, part) in cases {
            let status = json!({"status": "Failure", "code": code, "message": "its words"});
            let refuse = |_| {
                let mut refusal = ErrorResponse::new(Some(status.to_string()));
                *refusal.status_mut() = code.try_into().unwrap();
                Err(refusal)
            };
            let (found_fatal, error) = match asked(refuse).await.0.err().unwrap() {
                DialFailure::Fatal(error) => (true, error),
                DialFailure::Passing(error) => (false, error),
            };
            assert_eq!(found_fatal, is_fatal, "{code}");
            assert!(error.to_string().contains(part), "{part:?} in {error}");
        }
    }

    #[tokio::test]
    async fn what_speaks_something_else_may_pass() {
        for protocol in ["", "channel.k8s.io"] {
            let failure = asked(speaks(protocol)).await.0.err().unwrap();
            assert!(
                matches!(failure, DialFailure::Passing(Error::Api(_))),
                "{failure:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_not_waited_for() {
        let never = |_: http::Request<Body>| pending::<Result<http::Response<Body>, kube::Error>>();
        let api = Api {
            client: Client::new(service_fn(never), "team"),
            account: account(),
        };
        let found = found();
        let before = Instant::now();
        let asking = timeout(Duration::from_secs(60), forward(&api, &found));
        let failure = asking.await.expect("it gives up").err().unwrap();
        assert_eq!(before.elapsed(), REQUEST_TIMEOUT);
        let DialFailure::Passing(Error::Api(message)) = failure else {
            panic!("it may come back");
        };
        assert!(message.contains("no answer within 10 s"), "{message}");
    }
}
