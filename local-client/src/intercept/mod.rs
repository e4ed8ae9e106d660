//! How the app's connections come to the client: [`transparent`] by the kernel, [`loopback`] without any
//! privilege, and [`socks`] and [`to_pod`] beside either.

pub(crate) mod accept;
pub mod loopback;
mod outbound;
pub mod socks;
pub mod to_pod;
pub mod transparent;

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use std::io;

/// Whether something cannot be bound for want of IPv6.
fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// What a mode of interception does with the pod's DNS answers.
#[async_trait]
pub trait Intercept: Send + Sync + 'static {
    /// Called with every answer before it leaves for the app; what it returns is sent. Both are DNS messages in wire format.
    async fn on_answer(&self, query: &Bytes, answer: Bytes) -> Bytes;

    /// Called with every answer that the container's own resolver gave instead, before it leaves for the app.
    async fn on_local_answer(&self, _answer: &Bytes) {}
}

/// Leaves every answer as the pod's nameservers gave it: names are caught by nothing but the SOCKS5 proxy.
#[derive(Debug, Clone, Copy)]
pub struct PassThrough;

#[async_trait]
impl Intercept for PassThrough {
    async fn on_answer(&self, _: &Bytes, answer: Bytes) -> Bytes {
        answer
    }
}
