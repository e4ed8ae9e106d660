//! Two russh ends in one process.

#![allow(clippy::unwrap_used, clippy::panic)]

mod arrivals;
mod harness;
mod legs;
mod plain;
