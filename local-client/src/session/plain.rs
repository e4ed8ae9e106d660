//! An SSH server that is not ours, as `--connect` may lead to: it has no subsystems of ours, and its streams end with their connection. But it
//! opens connections and listens (RFC 4254 7), and runs a command (6.5), which is enough to find the nameservers.

use super::connection::Connection;
use super::handler::Handler;
use crate::pod::{DnsError, Target};
use bytes::Bytes;
use russh::client::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelMsg};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tunnel::credit::TOTAL;
use tunnel::dial::DialError;
use tunnel::facts::{Blob, Facts};
use tunnel::frames::{self, FrameReader};
use tunnel::link::Link;
use tunnel::stream::{Reset, Stream};
use tunnel::{channel, opener};

/// Shows which nameservers the other end has, and its search list.
const RESOLV_CONF: &str = "cat /etc/resolv.conf";
/// For the command to end.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest output of the command that is taken, in bytes.
const OUTPUT: usize = 64 << 10;
/// Where nameservers listen.
const DOMAIN: u16 = 53;
/// For one nameserver to answer: a resolver's own patience (resolv.conf(5)).
const NAMESERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// What can be learnt of the other end; `None` if the link is lost. Where it runs no commands, names are left to it: those that SOCKS5
/// is given.
pub(super) async fn facts(handle: &Handle<Handler>) -> Option<Facts> {
    let output = timeout(COMMAND_TIMEOUT, output(handle, RESOLV_CONF)).await;
    let resolv_conf = output.unwrap_or(Some(None))?.unwrap_or_else(|| {
        tracing::warn!(
            "`{RESOLV_CONF}` fails there: no name is resolved but those that SOCKS5 is given"
        );
        vec![]
    });
    Some(Facts {
        version: String::new(),
        hostname: String::new(),
        // It keeps nothing of what it has sent.
        budget: TOTAL,
        environment: vec![],
        resolv_conf: Blob(resolv_conf),
        hosts: Blob(vec![]),
    })
}

/// What `command` prints, if it ends well; `None` if the link is lost.
async fn output(handle: &Handle<Handler>, command: &str) -> Option<Option<Vec<u8>>> {
    let mut channel = match handle.channel_open_session().await {
        Ok(channel) => channel,
        Err(russh::Error::ChannelOpenFailure(_)) => return Some(None),
        Err(_) => return None,
    };
    channel.exec(true, command).await.ok()?;
    let (mut output, mut status) = (vec![], None);
    loop {
        match channel.wait().await? {
            ChannelMsg::Data { data } if output.len() + data.len() <= OUTPUT => {
                output.extend_from_slice(&data);
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Close => return Some((status == Some(0)).then_some(output)),
            ChannelMsg::Failure | ChannelMsg::Data { .. } => {
                channel.close().await.ok()?;
                return Some(None);
            }
            _ => {}
        }
    }
}

/// Opens a stream to `target`.
///
/// # Errors
/// See [`channel::open`].
pub(super) async fn open(
    connection: &Arc<Connection>,
    target: &Target,
    limit: Duration,
) -> Result<Stream, DialError> {
    let (opening, target) = (connection.clone(), target.clone());
    let opening = Box::pin(async move { opening.open(&target, None).await });
    channel::open(opener::Connected::link(connection.as_ref()), opening, limit).await
}

/// Takes in a caller.
///
/// # Errors
/// None here; the stream tells what happens to it.
pub(super) async fn accept(
    channel: Channel<Msg>,
    link: Link,
    reply: ChannelOpenHandle,
) -> Result<Stream, Reset> {
    reply.accept().await;
    channel::settle(&channel, &link).await;
    Ok(channel::stream(channel, &link))
}

/// Asks one nameserver after the other, over TCP (RFC 7766), until one answers.
///
/// # Errors
/// See [`DnsError`].
pub(super) async fn ask(
    connection: &Arc<Connection>,
    nameservers: &[IpAddr],
    query: &[u8],
) -> Result<Bytes, DnsError> {
    for nameserver in nameservers {
        match timeout(NAMESERVER_TIMEOUT, ask_one(connection, *nameserver, query)).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => tracing::debug!(%nameserver, "does not answer over TCP"),
            Err(_) => tracing::debug!(%nameserver, "does not answer in time"),
        }
    }
    Err(
        match opener::Connected::link(connection.as_ref())
            .gate
            .has_ended()
        {
            true => DnsError::LinkDown,
            false => DnsError::TimedOut,
        },
    )
}

async fn ask_one(connection: &Arc<Connection>, nameserver: IpAddr, query: &[u8]) -> Option<Bytes> {
    let target = Target {
        host: nameserver.to_string(),
        port: DOMAIN,
    };
    let mut stream = open(connection, &target, NAMESERVER_TIMEOUT).await.ok()?;
    frames::send(stream.writer.as_mut(), query).await.ok()?;
    FrameReader::new(stream.reader).next().await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fake::{Manners, client, way};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let (transport, _) = way(Manners {
            plain: true,
            ..Manners::default()
        });
        let before = Instant::now();
        let connection = Connection::establish(transport, &client()).await.unwrap();
        assert_eq!(before.elapsed(), COMMAND_TIMEOUT);
        assert!(!connection.is_ours() && connection.facts.resolv_conf.0.is_empty());

        let (connection, before) = (Arc::new(connection), Instant::now());
        let nameservers = ["198.18.0.10", "fd00::a"].map(|address| address.parse().unwrap());
        let answer = ask(&connection, &nameservers, &[0; 12]).await;
        assert_eq!(answer, Err(DnsError::TimedOut));
        assert_eq!(before.elapsed(), 2 * NAMESERVER_TIMEOUT);
    }
}
