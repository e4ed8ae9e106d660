//! Where the kernel hands datagrams over (linux/Documentation/networking/tproxy.rst).

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tunnel::datagrams::MAX_PAYLOAD;

/// What is asked of the kernel to hold, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams that are taken before other tasks have their turn.
const TURN: usize = 64;

/// A socket for one family.
pub(in crate::intercept::transparent) struct Listener {
    udp: UdpSocket,
    address: SocketAddr,
}

impl Listener {
    /// A socket on a free port of a loopback address.
    ///
    /// # Errors
    /// What the kernel says.
    pub(in crate::intercept::transparent) fn bind(address: IpAddr) -> io::Result<Listener> {
        let socket = transparent(address)?;
        match address {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4OrigDstAddr, &true)?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6OrigDstAddr, &true)?,
        }
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&SocketAddr::new(address, 0).into())?;
        let udp = UdpSocket::from_std(socket.into())?;
        let address = udp.local_addr()?;
        Ok(Listener { udp, address })
    }

    pub(in crate::intercept::transparent) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Calls `forward` with each datagram: whence, where to, and what. Cancel-safe.
    pub(super) async fn run(&self, forward: impl Fn(SocketAddr, SocketAddr, &[u8])) {
        let mut buffer = vec![0; MAX_PAYLOAD];
        loop {
            let take = || {
                for taken in 0..TURN {
                    match self.take(&mut buffer, &forward) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            };
            if let Err(error) = self.udp.async_io(Interest::READABLE, take).await {
                tracing::debug!(%error, "a datagram cannot be taken");
            }
            tokio::task::yield_now().await;
        }
    }

    fn take(
        &self,
        buffer: &mut [u8],
        forward: &impl Fn(SocketAddr, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        let mut control = nix::cmsg_space!(nix::libc::sockaddr_in6);
        let (length, from, to) = {
            let mut iov = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrStorage>(
                self.udp.as_raw_fd(),
                &mut iov,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let to = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4OrigDstAddr(v4) => Some(v4_address(&v4.into())),
                ControlMessageOwned::Ipv6OrigDstAddr(v6) => Some(v6_address(&v6.into())),
                _ => None,
            });
            let from = message.address.as_ref().and_then(|from| {
                let v4 = from.as_sockaddr_in().map(v4_address);
                v4.or_else(|| from.as_sockaddr_in6().map(v6_address))
            });
            (message.bytes, from, to)
        };
        match (from, to, buffer.get(..length)) {
            // To the listener itself: it would lead anywhere from the pod.
            (_, Some(to), _) if to == self.address => {}
            (Some(from), Some(to), Some(payload)) => forward(from, to, payload),
            _ => tracing::debug!("a datagram does not tell where it was meant to go"),
        }
        Ok(())
    }
}

/// A socket that takes datagrams for addresses that are not this machine's. The option of IPv4 is that of IPv6, too: the kernel has one
/// for both.
fn transparent(address: IpAddr) -> io::Result<Socket> {
    let domain = match address {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_ip_transparent_v4(true)?;
    Ok(socket)
}

fn v4_address(v4: &SockaddrIn) -> SocketAddr {
    (v4.ip(), v4.port()).into()
}

fn v6_address(v6: &SockaddrIn6) -> SocketAddr {
    (v6.ip(), v6.port()).into()
}
