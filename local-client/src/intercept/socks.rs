//! SOCKS5 (RFC 1928), CONNECT only: names and addresses are those of the pod.

use super::accept;
use super::outbound::Outbound;
use crate::pod::{Pod, Target};
use fast_socks5::server::{Socks5ServerProtocol, SocksServerError, states::CommandRead};
use fast_socks5::{ReplyError, Socks5Command};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::copy;
use tunnel::dial::DialError;

/// How long an app may take to say where it wants to go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The address a reply must bear (RFC 1928 6, BND.ADDR). The connection's real one is the pod's and of no use here.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Serves SOCKS5 on `listener` until `shutdown`. Connections run on `tracker` and end with their streams.
pub async fn run(
    listener: TcpListener,
    pod: Arc<dyn Pod>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let outbound = Arc::new(Outbound::new(pod));
    accept::run(listener, &tracker, &shutdown, |tcp| {
        let outbound = outbound.clone();
        async move {
            if let Err(error) = serve(tcp, &outbound).await {
                tracing::debug!("SOCKS: {error}");
            }
        }
    })
    .await;
}

async fn serve(tcp: TcpStream, outbound: &Outbound) -> Result<(), SocksServerError> {
    let Ok(request) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(tcp)).await else {
        tracing::debug!("SOCKS: no request within {HANDSHAKE_TIMEOUT:?}");
        return Ok(());
    };
    let Some((protocol, target)) = request? else {
        return Ok(());
    };
    match outbound.open(&target).await {
        Ok(stream) => {
            let tcp = protocol.reply_success(NO_ADDRESS).await?;
            // A reset reaches both sides by itself.
            let _ = copy::splice(tcp, stream).await;
            Ok(())
        }
        Err(error) => protocol.reply_error(&reply(error)).await,
    }
}

type Request = (Socks5ServerProtocol<TcpStream, CommandRead>, Target);

/// Where the app wants to go; `None` if it was refused.
async fn handshake(tcp: TcpStream) -> Result<Option<Request>, SocksServerError> {
    let authenticated = Socks5ServerProtocol::accept_no_auth(tcp).await?;
    let (protocol, command, address) = authenticated.read_command().await?;
    match command {
        Socks5Command::TCPConnect => {
            let (host, port) = address.into_string_and_port();
            Ok(Some((protocol, Target { host, port })))
        }
        Socks5Command::TCPBind | Socks5Command::UDPAssociate => {
            let refusal = ReplyError::CommandNotSupported;
            protocol.reply_error(&refusal).await.map(|()| None)
        }
    }
}

/// The reply code (RFC 1928 6) that tells the reason best.
fn reply(error: DialError) -> ReplyError {
    match error {
        DialError::Refused => ReplyError::ConnectionRefused,
        DialError::Unreachable => ReplyError::NetworkUnreachable,
        DialError::UnknownName => ReplyError::HostUnreachable,
        DialError::TimedOut => ReplyError::TtlExpired,
        DialError::Loop => ReplyError::ConnectionNotAllowed,
        DialError::Nameserver
        | DialError::Resources
        | DialError::Forgotten
        | DialError::Other
        | DialError::LinkDown => ReplyError::GeneralFailure,
    }
}
