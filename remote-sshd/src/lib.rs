//! The SSH server in the pod. Whoever holds an authorized key opens connections as the pod would ([`outbound`]), takes
//! connections to the pod's ports ([`claims`]), asks the pod's nameservers ([`dns`]) and reads its environment
//! ([`facts`]). It has no shell and runs no programs.
//!
//! The way of a connection: [`server`] accepts it, [`connection`] runs russh on it, [`handler`] turns russh's callbacks
//! into calls of the above. [`keyring`] says who may enter, [`authorize`] adds to it.

pub mod authorize;
pub mod authorized_keys;
mod claims;
pub mod cli;
mod connection;
pub mod dial;
pub mod dns;
pub mod facts;
mod handler;
pub mod keyring;
pub mod limits;
mod outbound;
pub mod own;
pub mod pod;
pub mod process;
mod refusal;
pub mod server;
