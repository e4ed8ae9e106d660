//! The program: parses, logs, serves, ends.

use anyhow::Context;
use clap::Parser;
use remote_sshd::authorize::ask;
use remote_sshd::authorize::listen::Registrar;
use remote_sshd::authorized_keys::AuthorizedKeys;
use remote_sshd::cli::{Cli, Command};
use remote_sshd::keyring::Keyring;
use remote_sshd::limits::Limits;
use remote_sshd::pod::PodFiles;
use remote_sshd::server::{self, Parts};
use remote_sshd::{facts, process};
use russh::keys::{Algorithm, PrivateKey};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// musl's own allocator makes SSH two times slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread: to wake another one for each packet takes more time than a second core gives.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Version) => {
            println!("remote-sshd {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Authorize { key }) => authorize(&key.join(" "), cli.port).await,
        Some(Command::Serve) | None => {
            process::log();
            let outcome = serve(&cli).await;
            if let Err(error) = outcome {
                error!("{error:#}");
                return ExitCode::FAILURE;
            }
            outcome
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("remote-sshd: {error:#}");
        ExitCode::FAILURE
    })
}

async fn authorize(key: &str, port: u16) -> anyhow::Result<ExitCode> {
    process::hide().context("prctl")?;
    println!("{}", ask::authorize(key, port).await?);
    Ok(ExitCode::SUCCESS)
}

async fn serve(cli: &Cli) -> anyhow::Result<ExitCode> {
    process::hide().context("prctl")?;
    if let Err(error) = process::raise_descriptor_limit() {
        warn!(%error, "few descriptors");
    }
    let mut ends = process::Ends::new().context("cannot wait for signals")?;
    let keyring = Arc::new(Keyring::new(&authorized_keys(&cli.authorized_keys)?));
    let host_key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
        .context("cannot make a host key")?;
    let public = host_key
        .public_key()
        .to_openssh()
        .context("cannot make a host key")?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, cli.port))
        .await
        .with_context(|| {
            format!(
                "cannot listen on 127.0.0.1:{} (another TELEPRESENCE_SSH_PORT may be free)",
                cli.port
            )
        })?;
    let registrar = Registrar::bind(cli.port, keyring.clone(), public.clone()).context(
        "cannot listen for `authorize`: another process of the pod has the name of our socket",
    )?;
    // Read by clients that may not exec.
    info!("host key {public}");
    info!("listening on 127.0.0.1:{}", cli.port);

    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(registrar.run(shutdown.clone()));
    let parts = Parts {
        host_key,
        keyring,
        files: PodFiles::default(),
        environment: facts::environment(),
        limits: Limits::default(),
    };
    let mut running = std::pin::pin!(server::run(listener, parts, shutdown.clone()));
    tokio::select! {
        ended = &mut running => ended?,
        _ = ends.next() => {
            shutdown.cancel();
            tokio::select! {
                ended = &mut running => ended?,
                code = ends.next() => {
                    warn!("a second signal: ending at once");
                    return Ok(ExitCode::from(code));
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(ExitCode::SUCCESS)
}

/// The keys that may always enter. A line that cannot be taken is told, and lets nobody in.
fn authorized_keys(value: &str) -> anyhow::Result<Vec<russh::keys::PublicKey>> {
    let keys = AuthorizedKeys::load(value).with_context(|| {
        format!(
            "TELEPRESENCE_AUTHORIZED_KEYS: cannot read {}",
            value.trim_end()
        )
    })?;
    for (line, error) in keys.bad {
        warn!("TELEPRESENCE_AUTHORIZED_KEYS, line {line}: {error}; ignored");
    }
    Ok(keys.keys)
}
