//! The client: makes the network of the container it runs in the pod's. `docs/architecture.md` shows how the rooms meet.

pub mod cluster;
pub mod config;
pub mod dns;
pub mod environment;
pub mod error;
pub mod expose;
pub mod health;
pub mod intercept;
mod interfaces;
pub mod logging;
pub mod original;
pub mod pod;
pub mod privileges;
pub mod run;
pub mod session;
#[cfg(test)]
mod silent;
