//! The client's port-forward with no SSH in it: takes the client's options, prints a port of 127.0.0.1, and forwards each connection
//! to it on a port-forward of its own. `make bench` shows with it what the client could carry at most.

use clap::Parser;
use local_client::cluster::{self, DialFailure, Dialer};
use local_client::config::{Cli, Options};
use local_client::error::Error;
use local_client::original::Original;
use local_client::session::identity;
use russh::keys::PublicKey;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(Cli::parse().options).await
}

async fn serve(options: Options) -> Result<(), Error> {
    let dialer = cluster::dialer(&options, Original::read()?).await?;
    let key = PublicKey::from(&identity::load(&options)?);
    let failed = |error| Error::Local(format!("127.0.0.1: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    println!("{}", listener.local_addr().map_err(failed)?.port());
    loop {
        let (tcp, _) = listener.accept().await.map_err(failed)?;
        let (dialer, key) = (dialer.clone(), key.clone());
        tokio::spawn(async move {
            if let Err(DialFailure::Fatal(error) | DialFailure::Passing(error)) =
                forward(dialer, &key, tcp).await
            {
                eprintln!("{error}");
            }
        });
    }
}

async fn forward(
    dialer: Arc<dyn Dialer>,
    key: &PublicKey,
    mut tcp: TcpStream,
) -> Result<(), DialFailure> {
    let mut way = dialer.dial(key).await?.stream;
    // How it ends is the load's affair.
    let _ =
        tokio::io::copy_bidirectional_with_sizes(&mut tcp, &mut way, 128 << 10, 128 << 10).await;
    Ok(())
}
