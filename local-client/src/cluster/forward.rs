//! A port-forward of Kubernetes as a byte stream.

use super::DialFailure;
use super::api::Api;
use super::errors::Right;
use super::find::Found;
use crate::error::Error;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Opens a stream to remote-sshd's port. That something listens there is known only from the first bytes: a refusal is an
/// error of the first read.
///
/// # Errors
/// [`DialFailure`] where the API server does not forward.
pub(super) async fn forward(api: &Api, found: &Found) -> Result<Forward, DialFailure> {
    let Found { pod, port, .. } = found;
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client.clone(), &api.account.namespace);
    let right = Right {
        verb: "get and create",
        resource: "pods/portforward",
    };
    let mut forwarder = api.ask(right, pods.portforward(pod, &[*port])).await?;
    match (forwarder.take_stream(*port), forwarder.take_error(*port)) {
        (Some(stream), Some(error)) => Ok(Forward {
            stream,
            error: Some(Box::pin(error)),
            what: format!("port {port} of pod {pod}"),
            _task: Box::new(Task(forwarder)),
        }),
        _ => Err(DialFailure::Passing(Error::Link(format!(
            "the port-forward to port {port} of pod {pod} has no stream"
        )))),
    }
}

/// A forwarded port.
pub(super) struct Forward {
    stream: DuplexStream,
    /// What the node says when it cannot connect, or loses the connection.
    error: Option<BoxFuture<'static, Option<String>>>,
    what: String,
    /// Forwards until it is dropped.
    _task: Box<dyn Send>,
}

struct Task(Portforwarder);

impl Drop for Task {
    fn drop(&mut self) {
        // By itself it would wait for the other side's goodbye, which a dead connection never brings.
        self.0.abort();
    }
}

impl AsyncRead for Forward {
    /// Instead of an end that has a reason, the reason.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let has_ended = matches!(polled, Poll::Ready(Ok(())))
            && buffer.filled().len() == before
            && buffer.remaining() > 0;
        if !has_ended {
            return polled;
        }
        // A reason comes before the end.
        match self.error.as_mut().map(|error| error.as_mut().poll(cx)) {
            Some(Poll::Ready(reason)) => {
                self.error = None;
                match reason {
                    Some(reason) => {
                        let what = &self.what;
                        let error = format!("the port-forward to {what} failed: {}", reason.trim());
                        Poll::Ready(Err(io::Error::other(error)))
                    }
                    None => polled,
                }
            }
            _ => polled,
        }
    }
}

impl AsyncWrite for Forward {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// What is read of a forward whose node sent `bytes`, told `reason`, and closed.
    async fn read(bytes: &[u8], reason: Option<&str>) -> (Vec<u8>, io::Result<usize>) {
        let (stream, mut node) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut node, bytes)
            .await
            .unwrap();
        drop(node);
        let reason = reason.map(ToOwned::to_owned);
        let mut forward = Forward {
            stream,
            error: Some(Box::pin(async { reason })),
            what: "port 8022 of pod web-1".into(),
            _task: Box::new(()),
        };
        let mut read = vec![];
        let outcome = forward.read_to_end(&mut read).await;
        (read, outcome)
    }

    #[tokio::test]
    async fn an_end_with_a_reason_is_an_error_that_tells_it() {
        let (bytes, outcome) = read(
            b"SSH-2.0",
            Some("dial tcp4 127.0.0.1:8022: connection refused\n"),
        )
        .await;
        assert_eq!(bytes, b"SSH-2.0");
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "the port-forward to port 8022 of pod web-1 failed: dial tcp4 127.0.0.1:8022: connection refused"
        );
    }

    #[tokio::test]
    async fn an_end_without_a_reason_is_an_end() {
        let (bytes, outcome) = read(b"SSH-2.0", None).await;
        assert_eq!((bytes.as_slice(), outcome.unwrap()), (&b"SSH-2.0"[..], 7));
    }
}
