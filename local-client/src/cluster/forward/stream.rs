//! The bytes of a port-forward, taken from and given to its websocket directly: no task and no pipe lie between, so that
//! one direction goes on while the other stands still.

use super::protocol::{self, Event, Incoming, PAYLOAD_LIMIT};
use bytes::{Bytes, BytesMut};
use futures::{Sink, Stream};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite as ws;
use ws::error::ProtocolError;
use ws::protocol::frame::coding::CloseCode;
use ws::protocol::{CloseFrame, Role, WebSocketConfig};

/// Unsent bytes of the websocket: a message with data, and the answers to pings for which that leaves room.
const UNSENT_LIMIT: usize = 2 * PAYLOAD_LIMIT;

/// A forwarded port. Its directions have no ends of their own: shutting it down ends both.
pub(super) struct Forward<S> {
    socket: WebSocketStream<S>,
    incoming: Incoming,
    /// Whether the pod is still to be told that our bytes end (v5).
    must_tell_end: bool,
    /// What arrived and was not read yet, of one message.
    unread: Bytes,
    /// Nothing more will be read.
    has_ended: bool,
    /// For the messages to the pod.
    memory: BytesMut,
    /// Which port of which pod.
    what: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Forward<S> {
    /// Forwards `port` over `socket`, on which the server has just agreed to speak websocket; `ends_channels` since v5.
    /// `what` is for the messages.
    pub(super) async fn new(socket: S, port: u16, ends_channels: bool, what: String) -> Self {
        let config = WebSocketConfig::default()
            // Messages leave at once: they are large already.
            .write_buffer_size(0)
            .max_write_buffer_size(UNSENT_LIMIT);
        Forward {
            socket: WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await,
            incoming: Incoming::new(port, ends_channels),
            must_tell_end: ends_channels,
            unread: Bytes::new(),
            has_ended: false,
            memory: BytesMut::new(),
            what,
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let Some(message) = ready!(Pin::new(&mut self.socket).poll_next(cx)) else {
            return Poll::Ready(Ok(Event::End));
        };
        Poll::Ready(match message {
            Ok(ws::Message::Binary(message)) => self
                .incoming
                .read(message)
                .map_err(|garbage| self.garbage(garbage)),
            // The websocket itself answers them, when it is read or written again.
            Ok(ws::Message::Ping(_) | ws::Message::Pong(_)) => Ok(Event::Nothing),
            Ok(ws::Message::Close(frame)) => self.closed(frame),
            Ok(ws::Message::Text(_) | ws::Message::Frame(_)) => Err(self.garbage("text")),
            Err(error) => self.broken(error),
        })
    }

    /// What it means that the API server closes the websocket.
    fn closed(&self, frame: Option<CloseFrame>) -> io::Result<Event> {
        match frame {
            Some(CloseFrame { code, reason })
                if code != CloseCode::Normal || !reason.is_empty() =>
            {
                let why = format!("the API server closed it with code {code} \"{reason}\"");
                Err(self.failed(ErrorKind::Other, why))
            }
            _ => Ok(Event::End),
        }
    }

    /// What it means that the websocket cannot be read.
    fn broken(&self, error: ws::Error) -> io::Result<Event> {
        match error {
            // What is left when the API server, or something on the way, goes without a word.
            ws::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(Event::End),
            ws::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Event::End),
            ws::Error::Io(error) => Err(self.failed(error.kind(), &error)),
            error => Err(self.garbage(error)),
        }
    }

    /// What it means that the node reports an error.
    fn failure(&self, text: &str) -> io::Error {
        // The runtime's own words are long, and begin with its network namespaces.
        match text.contains("connection refused") {
            true => self.failed(
                ErrorKind::ConnectionRefused,
                format!("nothing listens on it in the pod: {text}"),
            ),
            false => self.failed(ErrorKind::Other, text),
        }
    }

    fn garbage(&self, what: impl std::fmt::Display) -> io::Error {
        self.failed(
            ErrorKind::InvalidData,
            format!("what the API server sends makes no sense: {what}"),
        )
    }

    fn failed(&self, kind: ErrorKind, why: impl std::fmt::Display) -> io::Error {
        let what = &self.what;
        io::Error::new(kind, format!("the port-forward to {what} failed: {why}"))
    }

    /// Waits until the socket has taken what was written.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_flush(cx)
            .map_err(cannot_write)
    }

    fn send(&mut self, message: Bytes) -> io::Result<()> {
        Pin::new(&mut self.socket)
            .start_send(ws::Message::Binary(message))
            .map_err(cannot_write)
    }
}

fn cannot_write(error: ws::Error) -> io::Error {
    match error {
        ws::Error::Io(error) => error,
        ws::Error::ConnectionClosed
        | ws::Error::AlreadyClosed
        | ws::Error::Protocol(ProtocolError::SendAfterClosing) => ErrorKind::BrokenPipe.into(),
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Forward<S> {
    /// Answers pings as well, so that a reader that waits keeps the connection. An end with a reason is an error, once.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() && !this.has_ended {
            let event = ready!(this.poll_event(cx)).inspect_err(|_| this.has_ended = true)?;
            match event {
                Event::Nothing => {}
                Event::Data(bytes) => this.unread = bytes,
                Event::End => this.has_ended = true,
                Event::Failure(text) => {
                    this.has_ended = true;
                    return Poll::Ready(Err(this.failure(&text)));
                }
            }
        }
        let n = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Forward<S> {
    /// One message at a time: the next is taken when the socket has this one.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_sent(cx))?;
        let (message, n) = protocol::data(&mut this.memory, bytes);
        this.send(message)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    /// Says goodbye after what was written. The API server's goodbye is the end of reading.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if std::mem::take(&mut this.must_tell_end) && !this.has_ended {
            this.send(protocol::end_of_data())?;
        }
        Pin::new(&mut this.socket)
            .poll_close(cx)
            .map_err(cannot_write)
    }
}

#[cfg(test)]
mod tests;
