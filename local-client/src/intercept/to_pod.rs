//! Ports of the loopback interface here that are the pod's own: what listens there is a container beside the target, such as a proxy or an
//! agent.

use super::accept;
use super::no_ipv6;
use super::outbound::Outbound;
use crate::error::Error;
use crate::pod::{Datagrams, Inbox, Pod, Target};
use socket2::SockRef;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::claims::Port;
use tunnel::datagrams::{IDLE_TIMEOUT, MAX_PAYLOAD, Recent, SOCKETS};

/// Leads what is sent to a port of the loopback interface here to the same one of the pod's until `shutdown`, by tasks on `tracker`.
///
/// # Errors
/// [`Error::Local`] if the port is taken.
pub async fn start(
    port: Port,
    pod: &Arc<dyn Pod>,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for address in addresses {
        let at = SocketAddr::new(address, port.number());
        let bound = match port {
            Port::Tcp(_) => TcpListener::bind(at).await.map(|listener| {
                let (pod, until) = (pod.clone(), shutdown.clone());
                tracker.spawn(connections(listener, at, pod, tracker.clone(), until));
            }),
            Port::Udp(_) => UdpSocket::bind(at).await.map(|socket| {
                let serving = datagrams(Arc::new(socket), at, pod.clone());
                tracker.spawn(shutdown.clone().run_until_cancelled_owned(serving));
            }),
        };
        match bound {
            Err(error) if address.is_ipv6() && no_ipv6(&error) => {}
            bound => bound.map_err(|error| {
                Error::Local(format!(
                    "port {port} of --to-pod cannot be listened on here: {error}"
                ))
            })?,
        }
    }
    Ok(())
}

async fn connections(
    listener: TcpListener,
    at: SocketAddr,
    pod: Arc<dyn Pod>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let outbound = Arc::new(Outbound::new(pod));
    accept::run(listener, &tracker, &shutdown, |tcp| {
        let outbound = outbound.clone();
        async move {
            let target = Target {
                host: at.ip().to_string(),
                port: at.port(),
            };
            outbound.forward(tcp, &target).await;
        }
    })
    .await;
}

type Flows = Arc<Mutex<Recent<SocketAddr, Arc<dyn Datagrams>>>>;

fn lock(flows: &Flows) -> MutexGuard<'_, Recent<SocketAddr, Arc<dyn Datagrams>>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each socket of the app's has one in the pod.
async fn datagrams(socket: Arc<UdpSocket>, at: SocketAddr, pod: Arc<dyn Pod>) {
    let flows: Flows = Arc::new(Mutex::new(Recent::new(SOCKETS, IDLE_TIMEOUT)));
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        // What has become of an answer to an app that has gone.
        let Ok((length, app)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let flow = lock(&flows).get(&app).cloned();
        let flow = flow.unwrap_or_else(|| {
            let to_app = ToApp {
                app,
                at,
                socket: socket.clone(),
                flows: Arc::downgrade(&flows),
            };
            let flow: Arc<dyn Datagrams> = pod.udp(Arc::new(to_app)).into();
            lock(&flows).insert(app, flow.clone());
            flow
        });
        flow.send(at, buffer.get(..length).unwrap_or_default());
    }
}

struct ToApp {
    app: SocketAddr,
    at: SocketAddr,
    socket: Arc<UdpSocket>,
    flows: Weak<Mutex<Recent<SocketAddr, Arc<dyn Datagrams>>>>,
}

impl Inbox for ToApp {
    fn datagram(&self, from: SocketAddr, payload: &[u8]) {
        // The pod's socket takes datagrams from anywhere, of which the app would believe that they are from here.
        let (true, Some(flows)) = (from == self.at, self.flows.upgrade()) else {
            return;
        };
        lock(&flows).touch(&self.app);
        // It is as if nothing had come, as with every datagram that finds no room.
        let _ = SockRef::from(self.socket.as_ref()).send_to(payload, &self.app.into());
    }

    /// The app's socket would not believe it of a port that is open.
    fn unreachable(&self, _: SocketAddr, _: u8) {}
}
