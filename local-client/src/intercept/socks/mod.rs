//! SOCKS5 (RFC 1928), CONNECT and UDP ASSOCIATE: names and addresses are those of the pod.

mod udp;

use crate::intercept::accept;
use crate::intercept::outbound::Outbound;
use crate::pod::{Pod, Target};
use fast_socks5::server::{Socks5ServerProtocol, SocksServerError, states::CommandRead};
use fast_socks5::{ReplyError, Socks5Command};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::copy;
use tunnel::dial::DialError;
use udp::Association;

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
    let outbound = Arc::new(Outbound::new(pod.clone()));
    accept::run(listener, &tracker, &shutdown, |tcp| {
        let (pod, outbound, shutdown) = (pod.clone(), outbound.clone(), shutdown.clone());
        async move {
            if let Err(error) = serve(tcp, pod, &outbound, &shutdown).await {
                tracing::debug!("SOCKS: {error}");
            }
        }
    })
    .await;
}

async fn serve(
    tcp: TcpStream,
    pod: Arc<dyn Pod>,
    outbound: &Outbound,
    shutdown: &CancellationToken,
) -> Result<(), SocksServerError> {
    // Both are known of a connection that has not gone yet.
    let ends = (tcp.local_addr(), tcp.peer_addr());
    let Ok(request) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(tcp)).await else {
        tracing::debug!("SOCKS: no request within {HANDSHAKE_TIMEOUT:?}");
        return Ok(());
    };
    match request? {
        None => Ok(()),
        Some(Request::Connect(protocol, target)) => connect(protocol, &target, outbound).await,
        Some(Request::Associate(protocol, port)) => {
            let associated = async {
                let (local, app) = (ends.0?.ip(), ends.1?.ip());
                let association = Association::new(pod, local, app, port).await?;
                io::Result::Ok((association.address()?, association))
            };
            match associated.await {
                Ok((address, association)) => {
                    let tcp = protocol.reply_success(address).await?;
                    shutdown
                        .run_until_cancelled(associate(tcp, &association))
                        .await;
                    Ok(())
                }
                Err(error) => {
                    tracing::debug!("SOCKS: {error}");
                    protocol.reply_error(&ReplyError::GeneralFailure).await
                }
            }
        }
    }
}

/// An association lives for as long as the connection on which it was asked for (RFC 1928 6).
async fn associate(mut tcp: TcpStream, association: &Association) {
    let until_closed = async {
        // Nothing is to be said on it.
        let mut ignored = [0; 64];
        while !matches!(tcp.read(&mut ignored).await, Ok(0) | Err(_)) {}
    };
    tokio::select! {
        () = until_closed => {}
        () = association.run() => {}
    }
}

async fn connect(
    protocol: Protocol,
    target: &Target,
    outbound: &Outbound,
) -> Result<(), SocksServerError> {
    match outbound.open(target).await {
        Ok(stream) => {
            let tcp = protocol.reply_success(NO_ADDRESS).await?;
            // A reset reaches both sides by itself.
            let _ = copy::splice(tcp, stream).await;
            Ok(())
        }
        Err(error) => protocol.reply_error(&reply(error)).await,
    }
}

type Protocol = Socks5ServerProtocol<TcpStream, CommandRead>;

enum Request {
    Connect(Protocol, Target),
    /// With the port that the app will send from; 0 if it has not said so.
    Associate(Protocol, u16),
}

/// What the app wants; `None` if it was refused.
async fn handshake(tcp: TcpStream) -> Result<Option<Request>, SocksServerError> {
    let authenticated = Socks5ServerProtocol::accept_no_auth(tcp).await?;
    let (protocol, command, address) = authenticated.read_command().await?;
    match command {
        Socks5Command::TCPConnect => {
            let (host, port) = address.into_string_and_port();
            Ok(Some(Request::Connect(protocol, Target { host, port })))
        }
        Socks5Command::UDPAssociate => {
            let (_, port) = address.into_string_and_port();
            Ok(Some(Request::Associate(protocol, port)))
        }
        Socks5Command::TCPBind => {
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
