//! Asking the pod's nameservers as its resolver would: in their order, over UDP, over TCP for what was cut off.

use super::message::Message;
use crate::pod::ResolvConf;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
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

/// How long a nameserver has the word alone, at most. Longer, and programs whose resolver asks all nameservers at once, as musl's does, and
/// takes one for all here, would have given up.
const HEAD_START: Duration = Duration::from_secs(1);

/// Asks the nameservers of `conf` until one answers: in their order, and the next one as soon as one fails or has had its share of the
/// time-out. The failure of one is passed on if none knows better.
///
/// # Errors
/// [`NoAnswer`] when all attempts have timed out or were refused.
pub async fn ask(conf: &ResolvConf, query: &Message) -> Result<Message, NoAnswer> {
    ask_by(conf, |nameserver| ask_one(nameserver, query)).await
}

async fn ask_by<Asking>(
    conf: &ResolvConf,
    ask: impl Fn(SocketAddr) -> Asking,
) -> Result<Message, NoAnswer>
where
    Asking: Future<Output = io::Result<Message>>,
{
    let mut nameservers = conf.nameservers.clone();
    let mut failure = None;
    for _ in 0..conf.attempts {
        let share = conf.timeout / u32::try_from(nameservers.len().max(1)).unwrap_or(1);
        let head_start = share.min(HEAD_START);
        let mut silent = vec![];
        let mut asked = FuturesUnordered::new();
        let mut next = nameservers.into_iter();
        loop {
            asked.extend(next.next().map(|nameserver| {
                let asking = timeout(conf.timeout, ask(nameserver));
                async move { (nameserver, asking.await) }
            }));
            let heard = match next.len() {
                0 => Ok(asked.next().await),
                _ => timeout(head_start, asked.next()).await,
            };
            match heard {
                Ok(Some((_, Ok(Ok(answer))))) if answer.failed() => failure = Some(answer),
                Ok(Some((_, Ok(Ok(answer))))) => return Ok(answer),
                Ok(Some((nameserver, Ok(Err(error))))) => {
                    debug!(%nameserver, %error, "the nameserver cannot be asked");
                    silent.push(nameserver);
                }
                Ok(Some((nameserver, Err(_)))) => {
                    debug!(%nameserver, "the nameserver does not answer");
                    silent.push(nameserver);
                }
                Ok(None) => break,
                Err(_) => debug!("the next nameserver is asked, too"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::Mutex;
    use tokio::time::Instant;

    const GOOD: [u8; 12] = [0, 7, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
    const FAILURE: [u8; 12] = [0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];

    /// What comes of asking nameservers, of which each answers after so many milliseconds, if at all: the code of the answer, the time that it took,
    /// and when each was asked.
    async fn asked(
        timeout: u64,
        nameservers: &[Option<(u64, [u8; 12])>],
    ) -> (Option<bool>, u128, Vec<(u16, u128)>) {
        let conf = ResolvConf {
            nameservers: (0..nameservers.len())
                .map(|port| ([127, 0, 0, 1], u16::try_from(port).unwrap()).into())
                .collect(),
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(timeout),
            attempts: 2,
        };
        let (started, log) = (Instant::now(), Mutex::new(vec![]));
        let answer = ask_by(&conf, |nameserver| {
            let port = nameserver.port();
            log.lock()
                .unwrap()
                .push((port, started.elapsed().as_millis()));
            let answers = nameservers[usize::from(port)];
            async move {
                let Some((after, answer)) = answers else {
                    return pending().await;
                };
                tokio::time::sleep(Duration::from_millis(after)).await;
                Ok(Message::new(answer.to_vec().into()).unwrap())
            }
        })
        .await;
        let failed = answer.ok().map(|answer| answer.failed());
        (
            failed,
            started.elapsed().as_millis(),
            log.into_inner().unwrap(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_nameserver_is_asked_beside_a_silent_one() {
        let good = |after| Some((after, GOOD));
        for (timeout, nameservers, expected) in [
            // The first one is good enough.
            (
                5,
                &[good(999), good(0)][..],
                (Some(false), 999, vec![(0, 0)]),
            ),
            (
                5,
                &[None, good(20)],
                (Some(false), 1020, vec![(0, 0), (1, 1000)]),
            ),
            // Who is slow is heard all the same.
            (
                5,
                &[good(1500), None],
                (Some(false), 1500, vec![(0, 0), (1, 1000)]),
            ),
            // Within the time-out in all.
            (
                1,
                &[None, None, good(20)],
                (Some(false), 688, vec![(0, 0), (1, 334), (2, 668)]),
            ),
            // Who fails lets the next one go at once, and is asked no more.
            (
                2,
                &[Some((10, FAILURE)), None],
                (Some(true), 4010, vec![(0, 0), (1, 10), (1, 2010)]),
            ),
            (
                2,
                &[None, None],
                (None, 6000, vec![(0, 0), (1, 1000), (0, 3000), (1, 4000)]),
            ),
        ] {
            let (answer, took, log) = asked(timeout, nameservers).await;
            assert_eq!((answer, took, log), expected, "{nameservers:?}");
        }
    }
}
