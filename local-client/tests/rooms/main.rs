//! The rooms that see the pod only as the trait `Pod`, over real sockets, against a pod that is made up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod environment;
mod expose;
mod fake;
mod loopback;
mod network;
mod shim;
mod socks;
mod to_pod;
