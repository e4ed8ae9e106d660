//! Connections that the kernel hands over.

use crate::intercept::accept;
use crate::intercept::outbound::Outbound;
use crate::pod::Target;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::copy;

/// Leads connections on `listener` to where they were meant to go, until `shutdown`.
pub(super) async fn run(
    listener: TcpListener,
    outbound: Arc<Outbound>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    accept::run(listener, &tracker, &shutdown, |tcp| {
        let outbound = outbound.clone();
        async move {
            match target(&tcp) {
                Ok(Some(target)) => outbound.forward(tcp, &target).await,
                // It was meant for the listener itself: it would lead back here from the pod, or anywhere.
                Ok(None) => copy::reset(&tcp),
                Err(error) => {
                    tracing::debug!(%error, "a connection does not tell where it was meant to go");
                    copy::reset(&tcp);
                }
            }
        }
    })
    .await;
}

/// Where the app wanted to go; `None` if it was here.
fn target(tcp: &TcpStream) -> io::Result<Option<Target>> {
    let own = tcp.local_addr()?;
    let address = original(tcp, own.ip())?;
    Ok((address != own).then(|| Target {
        host: address.ip().to_canonical().to_string(),
        port: address.port(),
    }))
}

/// The destination before it was changed (SO_ORIGINAL_DST of linux/netfilter_ipv4.h, IP6T_SO_ORIGINAL_DST of
/// linux/netfilter_ipv6/ip6_tables.h).
fn original(tcp: &TcpStream, family: IpAddr) -> io::Result<SocketAddr> {
    Ok(match family {
        IpAddr::V4(_) => {
            let address = getsockopt(tcp, sockopt::OriginalDst)?;
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            (ip, u16::from_be(address.sin_port)).into()
        }
        IpAddr::V6(_) => {
            let address = getsockopt(tcp, sockopt::Ip6tOriginalDst)?;
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            (ip, u16::from_be(address.sin6_port)).into()
        }
    })
}
