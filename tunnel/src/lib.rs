//! What both ends of the tunnel agree on: how SSH is spoken between them ([`profile`], [`ident`], [`carrier`]),
//! what a stream is and how it is copied ([`stream`], [`channel`], [`copy`]), and what the subsystems say
//! ([`frames`], [`facts`], [`claims`], [`dial`]).

pub mod carrier;
pub mod channel;
pub mod claims;
pub mod copy;
pub mod dial;
pub mod facts;
pub mod frames;
pub mod ident;
pub mod message;
pub mod profile;
pub mod stream;
