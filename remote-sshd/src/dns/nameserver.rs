//! Asking the pod's nameservers as its resolver would: one after the other, over UDP, over TCP for what was cut off.

use super::message::Message;
use crate::pod::ResolvConf;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;
use tunnel::frames;

/// No nameserver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no nameserver answered")]
pub struct NoAnswer;

/// Asks the nameservers of `conf` until one answers. The failure of one is passed on if none knows better.
///
/// # Errors
/// [`NoAnswer`] when all attempts have timed out or were refused.
pub async fn ask(conf: &ResolvConf, query: &Message) -> Result<Message, NoAnswer> {
    let mut nameservers = conf.nameservers.clone();
    let mut failure = None;
    for _ in 0..conf.attempts {
        let mut silent = vec![];
        for nameserver in nameservers {
            match timeout(conf.timeout, ask_one(nameserver, query)).await {
                Ok(Ok(answer)) if answer.failed() => failure = Some(answer),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    debug!(%nameserver, %error, "the nameserver cannot be asked");
                    silent.push(nameserver);
                }
                Err(_) => {
                    debug!(%nameserver, "the nameserver does not answer");
                    silent.push(nameserver);
                }
            }
        }
        // Who answered with a failure would do so again.
        nameservers = silent;
    }
    failure.ok_or(NoAnswer)
}

/// Asks one nameserver. A fresh port and a fresh id for each query leave nothing to guess for a forger.
async fn ask_one(nameserver: SocketAddr, query: &Message) -> io::Result<Message> {
    let sent = query.with_id(rand::random());
    let mut answer = over_udp(nameserver, &sent).await?;
    if answer.truncated() {
        answer = over_tcp(nameserver, &sent).await?;
    }
    Ok(answer.with_id(query.id()))
}

async fn over_udp(nameserver: SocketAddr, query: &Message) -> io::Result<Message> {
    let local: SocketAddr = match nameserver {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    // A connected socket learns that nobody listens, and hears nobody else.
    socket.connect(nameserver).await?;
    socket.send(query.as_bytes()).await?;
    loop {
        let mut buffer = BytesMut::with_capacity(frames::MAX);
        socket.recv_buf(&mut buffer).await?;
        // A copy, as the buffer is much larger than the answers that are waiting to be sent.
        match Message::new(Bytes::copy_from_slice(&buffer)) {
            Some(answer) if answer.answers(query) => return Ok(answer),
            _ => debug!(%nameserver, "a datagram that is no answer"),
        }
    }
}

async fn over_tcp(nameserver: SocketAddr, query: &Message) -> io::Result<Message> {
    let framed = frames::frame(query.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(nameserver).await?;
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Message::new(bytes.into())
        .filter(|answer| answer.answers(query))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
