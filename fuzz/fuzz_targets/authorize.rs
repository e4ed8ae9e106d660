//! Whatever a process says at the socket where keys are registered, however it is cut: it is one line of text or refused, and a line that is
//! taken for a key stays that key.
#![no_main]

// The room that has them is not the crate's to show.
#[allow(dead_code)]
#[path = "../../remote-sshd/src/authorized_keys.rs"]
mod authorized_keys;
#[allow(dead_code)]
#[path = "../../remote-sshd/src/authorize/wire.rs"]
mod wire;

use authorized_keys::{LONGEST_LINE, parse_line};
use libfuzzer_sys::fuzz_target;
use std::future::pending;
use std::sync::LazyLock;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_io().build().unwrap());

/// What is received of these pieces.
async fn received(pieces: &[Vec<u8>]) -> Option<String> {
    let (mut near, far) = UnixStream::pair().unwrap();
    let sending = async {
        for piece in pieces {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(near);
        pending().await
    };
    let received = tokio::select! {
        received = wire::receive(&far) => received,
        () = sending => unreachable!(),
    };
    let (line, passed) = received.ok()?;
    assert!(passed.is_none());
    Some(line)
}

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let Some(line) = RUNTIME.block_on(received(&pieces)) else {
        return;
    };
    assert!(line.len() < LONGEST_LINE && !line.contains('\n'));
    assert!(pieces.concat().starts_with(line.as_bytes()));
    if let Ok(key) = parse_line(&line) {
        assert_eq!(parse_line(&key.to_openssh().unwrap()), Ok(key));
    }
});
