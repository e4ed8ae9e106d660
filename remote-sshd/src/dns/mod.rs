//! The pod's nameservers: asked for the client (the subsystem `dns`, [`relay`]) and for dialling ([`lookup`]).

pub mod lookup;
pub mod message;
pub mod nameserver;
pub mod relay;
