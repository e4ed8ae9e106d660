//! UDP ASSOCIATE (RFC 1928 7): the app sends its datagrams to a socket here, each with the address that it is meant for.

use crate::dns::lookup::LookupError;
use crate::dns::resolve;
use crate::pod::{Datagrams, Inbox, Pod};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{new_udp_header, parse_udp_request};
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tunnel::datagrams::MAX_PAYLOAD;

/// Names that an association remembers, for how long, and how many datagrams of each wait for its address.
const NAMES: usize = 256;
const REMEMBERED: Duration = Duration::from_secs(5);
const WAITING: usize = 16;

/// One association.
pub(super) struct Association {
    app: Arc<App>,
    datagrams: Arc<dyn Datagrams>,
    pod: Arc<dyn Pod>,
    names: Mutex<HashMap<String, Arc<Mutex<Name>>>>,
    /// Ends what is looked up.
    end: CancellationToken,
}

/// What is known of a name.
enum Name {
    /// It is looked up; datagrams, each with its port, wait for that.
    Asked(Vec<(u16, Vec<u8>)>),
    Known(IpAddr, Instant),
    /// It has no address, or none was told.
    Unknown,
}

impl Name {
    fn is_due(&self) -> bool {
        match self {
            Name::Asked(_) => false,
            Name::Known(_, since) => since.elapsed() >= REMEMBERED,
            Name::Unknown => true,
        }
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// The app's side of it.
struct App {
    relay: UdpSocket,
    ip: IpAddr,
    /// Not known before its first datagram, unless it has said so.
    port: Mutex<Option<u16>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox for App {
    fn datagram(&self, from: SocketAddr, payload: &[u8]) {
        let Some(port) = *lock(&self.port) else {
            return;
        };
        let sent = new_udp_header(from).map(|mut datagram| {
            datagram.extend_from_slice(payload);
            let to = SocketAddr::new(self.ip, port).into();
            SockRef::from(&self.relay).send_to(&datagram, &to)
        });
        if !matches!(sent, Ok(Ok(_))) {
            tracing::debug!(%from, ?sent, "SOCKS: a datagram is lost");
        }
    }

    /// There is no word for it.
    fn unreachable(&self, _: SocketAddr, _: u8) {}
}

impl Association {
    /// One for an app at `ip`, which sends from `port` (0: not known yet), at a socket of the address `local`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) async fn new(
        pod: Arc<dyn Pod>,
        local: IpAddr,
        ip: IpAddr,
        port: u16,
    ) -> io::Result<Association> {
        let app = Arc::new(App {
            relay: UdpSocket::bind((local, 0)).await?,
            ip,
            port: Mutex::new((port != 0).then_some(port)),
        });
        let datagrams = pod.udp(app.clone()).into();
        Ok(Association {
            app,
            datagrams,
            pod,
            names: Mutex::default(),
            end: CancellationToken::new(),
        })
    }

    /// Where the app is to send to.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.app.relay.local_addr()
    }

    /// Leads the app's datagrams to the pod, for as long as it is run.
    pub(super) async fn run(&self) {
        let mut buffer = vec![0; MAX_PAYLOAD];
        loop {
            let received = self.app.relay.recv_from(&mut buffer).await;
            let Ok((length, from)) = received else {
                // What has become of a datagram to an app that has gone.
                continue;
            };
            if from.ip() != self.app.ip
                || *lock(&self.app.port).get_or_insert(from.port()) != from.port()
            {
                tracing::debug!(%from, "SOCKS: a datagram of somebody else");
                continue;
            }
            let datagram = buffer.get(..length).unwrap_or_default();
            match parse_udp_request(datagram).await {
                Ok((0, TargetAddr::Ip(to), payload)) => self.datagrams.send(to, payload),
                Ok((0, TargetAddr::Domain(host, port), payload)) => {
                    self.send_to_name(host, port, payload);
                }
                Ok(_) => tracing::debug!("SOCKS: fragments are not taken"),
                Err(error) => tracing::debug!("SOCKS: {error}"),
            }
        }
    }

    fn send_to_name(&self, host: String, port: u16, payload: &[u8]) {
        let mut names = lock(&self.names);
        if names.len() >= NAMES {
            names.retain(|_, name| !lock(name).is_due());
        }
        match names.get(&host) {
            Some(name) if !lock(name).is_due() => match &mut *lock(name) {
                Name::Known(ip, _) => self.datagrams.send((*ip, port).into(), payload),
                Name::Asked(waiting) if waiting.len() < WAITING => {
                    waiting.push((port, payload.to_vec()));
                }
                _ => tracing::debug!(host, "SOCKS: a datagram is lost"),
            },
            None if names.len() >= NAMES => tracing::debug!(host, "SOCKS: too many names"),
            _ => {
                let name = Arc::new(Mutex::new(Name::Asked(vec![(port, payload.to_vec())])));
                names.insert(host.clone(), name.clone());
                let (pod, datagrams) = (self.pod.clone(), self.datagrams.clone());
                let asking = async move {
                    let address = resolve::address(pod.as_ref(), &host).await;
                    answered(&name, &host, address, datagrams.as_ref());
                };
                tokio::spawn(self.end.clone().run_until_cancelled_owned(asking));
            }
        }
    }
}

/// Sends what has waited for the address of a name.
fn answered(
    name: &Mutex<Name>,
    host: &str,
    address: Result<Option<IpAddr>, LookupError>,
    datagrams: &dyn Datagrams,
) {
    let ip = match address {
        Ok(Some(ip)) => ip,
        Ok(None) => {
            tracing::debug!(host, "SOCKS: unknown name");
            *lock(name) = Name::Unknown;
            return;
        }
        Err(error) => {
            tracing::debug!(host, "SOCKS: {error}");
            *lock(name) = Name::Unknown;
            return;
        }
    };
    let before = std::mem::replace(&mut *lock(name), Name::Known(ip, Instant::now()));
    if let Name::Asked(waiting) = before {
        for (port, payload) in waiting {
            datagrams.send((ip, port).into(), &payload);
        }
    }
}
