//! The SSH server in the pod. Whoever holds an authorized key opens connections as the pod would (`outbound`), takes
//! connections to the pod's ports (`claims`), exchanges datagrams (`udp`), asks the pod's nameservers (`dns`) and reads its environment
//! ([`facts`]). It has no shell and runs no programs.
//!
//! The way of a connection: [`server`] accepts it, `serve` runs russh on it, `handler` turns russh's callbacks into
//! calls of `connection`. [`keyring`] says who may enter, [`authorize`] adds to it.

pub mod authorize;
pub mod authorized_keys;
mod claims;
pub mod cli;
mod clients;
mod connection;
mod dial;
mod dns;
pub mod facts;
mod handler;
pub mod keyring;
pub mod limits;
mod outbound;
mod own;
#[cfg(test)]
mod peer;
pub mod pod;
pub mod process;
mod refusal;
mod serve;
pub mod server;
mod udp;
