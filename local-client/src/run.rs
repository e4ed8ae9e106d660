//! The main job, in order: connect, take over names, ports and files, say `ready`, and undo it all at the end.

use crate::cluster;
use crate::config::{self, Exposed, Options, PodPort};
use crate::dns::in_place::InPlace;
use crate::dns::local::LocalNames;
use crate::dns::{hosts, resolv_conf, shim};
use crate::environment::files::EnvFiles;
use crate::environment::{filter, rewrite};
use crate::error::Error;
use crate::intercept::loopback::Loopback;
use crate::intercept::transparent::{Transparent, host};
use crate::intercept::{Intercept, PassThrough, socks, to_pod};
use crate::original::Original;
use crate::pod::{ListenError, Pod};
use crate::session::rotation::Wear;
use crate::session::{Session, identity};
use crate::{expose, health};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::claims::Port;

/// Where the environment files go.
const OUTPUT: &str = "/output";
/// Where the app's resolver asks.
const DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// Where the SOCKS5 proxy listens.
const SOCKS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1080);
/// For everything to end once it was told to; what has not by then is cut off.
const END_TIMEOUT: Duration = Duration::from_millis(700);

/// Runs until SIGTERM, SIGINT, or SIGHUP of a terminal that is closed; a second one ends it at once. `mode` is what the
/// options' way to catch connections came to (see [`crate::privileges::settle`]).
///
/// # Errors
/// What ends the client before; the message is for people.
pub async fn run(options: Options, mode: config::Intercept) -> Result<(), Error> {
    // As PID 1, signals are ignored unless they are handled: from the very start.
    let mut signals = Signals::new()?;
    let shutdown = CancellationToken::new();
    let job = job(options, mode, shutdown.clone());
    tokio::pin!(job);
    tokio::select! {
        outcome = &mut job => return outcome,
        () = signals.next() => shutdown.cancel(),
    }
    end(job, &mut signals).await
}

/// Waits for the end of a job that was told to end, but not for ever, and no longer than until the next signal.
async fn end(
    job: impl Future<Output = Result<(), Error>>,
    signals: &mut Signals,
) -> Result<(), Error> {
    tokio::select! {
        outcome = tokio::time::timeout(END_TIMEOUT, job) => outcome.unwrap_or(Ok(())),
        () = signals.next() => Ok(()),
    }
}

async fn job(
    options: Options,
    mode: config::Intercept,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let target = options.target.clone().ok_or_else(|| {
        Error::Usage(
            "which workload? Give the name of the Deployment that runs telepresence-remote".into(),
        )
    })?;
    let taken = |port: &&PodPort| options.expose.iter().any(|own| own.own() == port.0);
    if let Some(PodPort(port)) = options.to_pod.iter().find(taken) {
        return Err(Error::Usage(format!(
            "port {port} cannot be both your program's (--expose) and the pod's (--to-pod)"
        )));
    }
    if mode == config::Intercept::Transparent {
        host::refuse()?;
    }
    let files = EnvFiles::prepare(Path::new(OUTPUT), target.name(), options.uid)?;
    let key = identity::load(&options)?;
    // Before these files are rewritten.
    let original = Original::read()?;
    let connecting = async {
        let dialer = cluster::dialer(&options, original.clone()).await?;
        Session::start(dialer, key, Wear::default()).await
    };
    let Some(session) = shutdown.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    let session = Arc::new(session?);

    let tracker = TaskTracker::new();
    let supervisor = {
        let (session, shutdown) = (session.clone(), shutdown.clone());
        tracker.spawn(async move { session.supervise(shutdown).await })
    };
    let mut transparent = None;
    let starting = start(
        &options,
        mode,
        &session,
        original,
        files,
        &mut transparent,
        (&tracker, &shutdown),
    );
    let outcome = match shutdown.run_until_cancelled(starting).await {
        Some(Ok(taken)) => {
            tracing::info!("ready");
            shutdown.cancelled().await;
            taken.give_back();
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    shutdown.cancel();
    // First, as the rest may be cut off.
    if let Some(transparent) = &transparent {
        transparent.end().await;
    }
    // The supervisor does not panic; its end is all that matters.
    let _ = supervisor.await;
    // The kernel translates a connection's last words only while its rules are there: as long as there is `transparent`.
    tracker.close();
    tracker.wait().await;
    outcome
}

/// What must be given back at the end, before the open connections end.
struct Taken {
    files: EnvFiles,
    resolv_conf: InPlace,
    hosts: InPlace,
}

impl Taken {
    fn give_back(self) {
        self.files.remove();
        self.resolv_conf.restore();
        self.hosts.restore();
    }
}

/// Everything between the first connection and `ready`. What is left in `transparent` has to be [ended](Transparent::end), also after an error.
async fn start(
    options: &Options,
    mode: config::Intercept,
    session: &Arc<Session>,
    original: Original,
    files: EnvFiles,
    transparent: &mut Option<Arc<Transparent>>,
    (tracker, shutdown): (&TaskTracker, &CancellationToken),
) -> Result<Taken, Error> {
    let pod: Arc<dyn Pod> = session.clone();
    let facts = pod.facts();
    let health = health::bind(Path::new(health::SOCKET))
        .map_err(|error| Error::Local(format!("{} cannot be bound: {error}", health::SOCKET)))?;
    let bound = |what: &'static str| {
        move |error| {
            Error::Local(format!(
                "the port of {what} is taken in this container's network, which is for the client alone: have the other container \
                 join it, not the client join the other's ({error})"
            ))
        }
    };
    let dns_udp = UdpSocket::bind(DNS)
        .await
        .map_err(bound("DNS, 127.0.0.1:53/udp"))?;
    let dns_tcp = TcpListener::bind(DNS)
        .await
        .map_err(bound("DNS, 127.0.0.1:53"))?;
    let socks = TcpListener::bind(SOCKS)
        .await
        .map_err(bound("SOCKS5, 127.0.0.1:1080"))?;

    for Exposed { local, remote } in options.expose.iter().copied() {
        let listening = async {
            match remote {
                Port::Tcp(remote) => {
                    let incoming = pod.listen(remote).await?;
                    let serving = expose::tcp::run(
                        local,
                        remote,
                        incoming,
                        tracker.clone(),
                        shutdown.clone(),
                    );
                    tracker.spawn(serving);
                    Ok(())
                }
                Port::Udp(remote) => {
                    expose::udp::start(local, remote, pod.as_ref(), tracker, shutdown).await
                }
            }
        };
        listening
            .await
            .map_err(|error: ListenError| Error::Target(error.to_string()))?;
        tracing::info!("port {remote} of the pod leads to port {local} here");
    }

    let mut variables = filter::outgoing(&facts, session.declared_environment());
    let intercept: Arc<dyn Intercept> = match mode {
        config::Intercept::Auto | config::Intercept::Transparent => {
            let started = Transparent::start(
                pod.clone(),
                options,
                original.clone(),
                tracker.clone(),
                shutdown.clone(),
            );
            let transparent = transparent.insert(started.await?);
            transparent.know(&facts).await;
            transparent.clone()
        }
        config::Intercept::Loopback => {
            variables = rewrite::rewrite(pod.as_ref(), variables).await;
            Loopback::new(
                pod.clone(),
                &options.proxy,
                options
                    .expose
                    .iter()
                    .map(Exposed::own)
                    .filter_map(Port::tcp),
                tracker.clone(),
                shutdown.clone(),
            )
        }
        config::Intercept::Socks => Arc::new(PassThrough),
    };
    match mode {
        config::Intercept::Transparent => tracing::info!(
            "intercept transparent: TCP and UDP to everywhere but this container's surroundings"
        ),
        config::Intercept::Loopback if options.intercept == config::Intercept::Auto => {
            tracing::info!(
                "intercept loopback: TCP to Services and --proxy hosts by name; no UDP and no bare addresses, for which there is SOCKS5 on \
             {SOCKS}, or all of it with --cap-add NET_ADMIN"
            )
        }
        _ => {}
    }
    let names = transparent.as_ref().map(|transparent| transparent.names());
    if names.is_none() && !(options.local.is_empty() && options.remote.is_empty()) {
        tracing::warn!(
            "--local and --remote are for transparent mode (--cap-add NET_ADMIN), and change nothing here"
        );
    }
    let unknown = !options.no_local_names;
    let local_names = LocalNames::of(original, unknown, names.unwrap_or_default());
    tracker.spawn(shim::run(
        dns_udp,
        dns_tcp,
        pod.clone(),
        intercept,
        local_names,
        shutdown.clone(),
    ));
    for port in &options.to_pod {
        to_pod::start(port.0, &pod, tracker, shutdown).await?;
        tracing::info!("port {} of 127.0.0.1 is the pod's", port.0);
    }
    tracker.spawn(socks::run(socks, pod, tracker.clone(), shutdown.clone()));
    {
        let (session, shutdown) = (session.clone(), shutdown.clone());
        tracker.spawn(async move { health::run(health, &session, shutdown).await });
    }
    let resolv_conf = InPlace::edit(Path::new("/etc/resolv.conf"), |_| {
        resolv_conf::with_nameserver(&facts.resolv_conf.0, DNS.ip())
    })?;
    let hosts = InPlace::edit(Path::new("/etc/hosts"), |own| {
        hosts::with_aliases(own, &facts.hosts.0)
    })?;
    files.write(&variables)?;
    Ok(Taken {
        files,
        resolv_conf,
        hosts,
    })
}

/// What asks for the end.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Signals, Error> {
        let on = |kind| {
            signal(kind).map_err(|error| Error::Local(format!("cannot handle signals: {error}")))
        };
        Ok(Signals([
            on(SignalKind::terminate())?,
            on(SignalKind::interrupt())?,
            on(SignalKind::hangup())?,
        ]))
    }

    /// The next of any. Cancel-safe.
    async fn next(&mut self) {
        poll_fn(|context| {
            let any = self
                .0
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if any {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn an_end_that_takes_too_long_is_cut_off() {
        let mut signals = Signals::new().unwrap();
        let before = Instant::now();
        let ending = timeout(END_TIMEOUT * 60, end(pending(), &mut signals));
        ending.await.expect("it ends").unwrap();
        assert_eq!(before.elapsed(), END_TIMEOUT);
    }
}
