//! A UDP socket of the pod.

use crate::claims::no_ipv6;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, SockRef, Socket as Raw, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tunnel::datagrams::MAX_PAYLOAD;

/// What is asked of the kernel to hold for the socket, in bytes; it gives no more than net.core.rmem_max.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams that are taken before other tasks have their turn.
const TURN: usize = 64;

/// Where datagrams are received into; one for many sockets, as each is used for a moment.
pub(super) struct Buffer(Mutex<Box<[u8]>>);

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer(Mutex::new(vec![0; MAX_PAYLOAD].into()))
    }
}

/// What comes to a socket.
pub(super) enum Event<'a> {
    Datagram {
        from: SocketAddr,
        payload: &'a [u8],
    },
    /// See [`tunnel::datagrams::Kind::Unreachable`].
    Unreachable {
        to: SocketAddr,
        code: u8,
    },
}

/// A socket on all addresses, for both families where there are both.
pub(super) struct Socket {
    udp: UdpSocket,
    v6: bool,
}

impl Socket {
    /// A socket on `port` (0: any that is free).
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn bind(port: u16) -> io::Result<Socket> {
        match Socket::of(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(error) if no_ipv6(&error) => {
                Socket::of(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
            }
            bound => bound,
        }
    }

    fn of(domain: Domain, address: SocketAddr) -> io::Result<Socket> {
        let socket = Raw::new(domain, Type::DGRAM, None)?;
        let v6 = domain == Domain::IPV6;
        if v6 {
            socket.set_only_v6(false)?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // A socket for both families has the option of IPv4, too (ip(7)).
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let udp = UdpSocket::from_std(socket.into())?;
        Ok(Socket { udp, v6 })
    }

    /// Sends a datagram without waiting.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn send(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let to = match (to, self.v6) {
            (SocketAddr::V4(v4), true) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => to,
        };
        // Not the runtime's own call, which would wait until it knows that the new socket is writable.
        let send = || SockRef::from(&self.udp).send_to(payload, &to.into());
        match send() {
            // It may be what an earlier one has met with, which stands in the queue of errors, too.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => send(),
            sent => sent,
        }
        .map(drop)
    }

    /// Waits for something to come, and hands on what is there. Cancel-safe.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn receive(
        &self,
        buffer: &Buffer,
        mut handle: impl FnMut(Event<'_>),
    ) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::ERROR;
        let take = || {
            let mut buffer = buffer.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut taken = 0;
            while taken < TURN {
                match self.take(&mut buffer, &mut handle) {
                    Ok(()) => taken += 1,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        self.udp.async_io(interest, take).await
    }

    fn take(&self, buffer: &mut [u8], handle: &mut impl FnMut(Event<'_>)) -> io::Result<()> {
        match self.take_error()? {
            Some(Some((to, code))) => {
                handle(Event::Unreachable { to, code });
                return Ok(());
            }
            Some(None) => return Ok(()),
            None => {}
        }
        let mut iov = [IoSliceMut::new(buffer)];
        let fd = self.udp.as_raw_fd();
        match recvmsg::<SockaddrStorage>(fd, &mut iov, None, MsgFlags::MSG_DONTWAIT) {
            Ok(message) => {
                let (length, from) = (message.bytes, message.address.as_ref().and_then(address));
                if let (Some(from), Some(payload)) = (from, buffer.get(..length)) {
                    handle(Event::Datagram { from, payload });
                }
                Ok(())
            }
            // It stands in the queue of errors, too.
            Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next one in the queue of errors (ip(7), IP_RECVERR); of one that says nothing of a peer, `None` is within.
    fn take_error(&self) -> io::Result<Option<Option<(SocketAddr, u8)>>> {
        let mut control = nix::cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = self.udp.as_raw_fd();
        let message = match recvmsg::<SockaddrStorage>(fd, &mut [], Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(to) = message.address.as_ref().and_then(address) else {
            return Ok(Some(None));
        };
        let code = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => unreachable_code(&error),
            _ => None,
        });
        Ok(Some(code.map(|code| (to, code))))
    }
}

/// The code of "destination unreachable", if that is what came (linux/errqueue.h; RFC 792, RFC 4443 3.1). That a datagram is too large
/// for the path is none: the kernel here learns from it, and cuts the next one.
fn unreachable_code(error: &nix::libc::sock_extended_err) -> Option<u8> {
    const V4: (u8, u8) = (2, 3);
    const V6: (u8, u8) = (3, 1);
    const TOO_LARGE: u8 = 4;
    if (error.ee_origin, error.ee_code) == (V4.0, TOO_LARGE) {
        return None;
    }
    [V4, V6]
        .contains(&(error.ee_origin, error.ee_type))
        .then_some(error.ee_code)
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| {
        let v6 = address.as_sockaddr_in6()?;
        Some(SocketAddr::new(
            IpAddr::V6(v6.ip()).to_canonical(),
            v6.port(),
        ))
    })
}
