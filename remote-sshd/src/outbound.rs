//! Connections that the client opens from within the pod: direct-tcpip channels (RFC 4254 7.2).

use crate::connection::Connection;
use crate::dial;
use crate::dns::lookup;
use crate::pod::PodFiles;
use russh::Channel;
use russh::server::{ChannelOpenHandle, Msg};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use tunnel::acceptor::Ticket;
use tunnel::channel;
use tunnel::dial::DialError;
use tunnel::opener::Connected;

/// How long a name may take to be resolved and one of its addresses to answer. The kernel gives an address up before, when the pod's programs would
/// (tcp_syn_retries of tcp(7), 127 seconds by default).
const DIAL_TIMEOUT: Duration = Duration::from_secs(150);

/// Dials `host:port` for a plain client, answers the request for `channel` and carries the bytes.
pub(crate) async fn open_plain(
    connection: Arc<Connection>,
    host: String,
    port: u32,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
) {
    let dialled = tokio::select! {
        dialled = dial(&connection, &host, port) => dialled,
        () = connection.ended() => return,
    };
    match dialled {
        Ok(tcp) => {
            connection.confirm(reply, channel.id()).await;
            connection
                .carry(tcp, channel::stream(channel, connection.link()))
                .await;
        }
        Err(reason) => {
            debug!(%reason, "refused");
            reply.reject(reason.to_failure(connection.peer())).await;
        }
    }
}

/// Dials `host:port` for a client of ours. The stream that was asked for is not `connection`'s, which may be lost meanwhile.
pub(crate) async fn open(
    connection: Arc<Connection>,
    host: String,
    port: u32,
    ticket: Ticket<Msg>,
) {
    match dial(&connection, &host, port).await {
        // Without memory for another stream, the client is told so.
        Ok(tcp) => {
            if let Ok(stream) = ticket.accept().await {
                connection.carry(tcp, stream).await;
            }
        }
        Err(reason) => {
            debug!(%reason, "refused");
            ticket.refuse(reason).await;
        }
    }
}

async fn dial(connection: &Connection, host: &str, port: u32) -> Result<TcpStream, DialError> {
    let port = u16::try_from(port).map_err(|_| DialError::Other)?;
    let is_own = |address| connection.is_own(SocketAddr::new(address, port));
    reach(connection.files(), host, port, is_own).await
}

/// Connects to `host:port`, unless it is one of our own addresses.
async fn reach(
    files: &PodFiles,
    host: &str,
    port: u16,
    is_own: impl Fn(IpAddr) -> bool,
) -> Result<TcpStream, DialError> {
    let dialling = async {
        let addresses = lookup::addresses(files, host).await?;
        let (own, foreign): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| is_own(*address));
        match dial::connect(foreign, port).await {
            // Whatever the name's other addresses met with: ours is the one that would have answered.
            Err(_) if !own.is_empty() => Err(DialError::Loop),
            outcome => outcome,
        }
    };
    timeout(DIAL_TIMEOUT, dialling)
        .await
        .unwrap_or(Err(DialError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::tests::Silent;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_target_that_does_not_answer_is_given_up() {
        let silent = Silent::on([127, 0, 0, 1]).await;
        let files = PodFiles::default();
        let before = Instant::now();
        let reached = reach(&files, "127.0.0.1", silent.port, |_| false).await;
        assert_eq!(reached.unwrap_err(), DialError::TimedOut);
        assert_eq!(before.elapsed(), DIAL_TIMEOUT);
    }
}
