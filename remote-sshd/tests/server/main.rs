//! The server against real clients: russh as `local-telepresence` uses it, and OpenSSH.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod authorize;
mod claims;
mod dial;
mod dns;
mod harness;
mod lifecycle;
mod login;
mod nameserver;
mod openssh;
mod openssh_load;
mod program;
