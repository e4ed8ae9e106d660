//! What the end-to-end tests and the demo are made of: real programs (docker, kubectl, ssh) run as a user would run them, on the
//! cluster that `tests/cluster/up` made. Everything started carries a label and is removed when its value is dropped.

pub mod app;
pub mod caller;
pub mod client;
pub mod cluster;
pub mod command;
pub mod docker;
pub mod manifests;
pub mod namespace;
pub mod outcome;
pub mod programs;
pub mod readme;
pub mod rootless;
pub mod scenarios;
pub mod seed;
pub mod shell;
pub mod ssh;
pub mod sshd;
pub mod usage;
