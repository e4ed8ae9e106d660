//! What both ends of the tunnel agree on.
//!
//! - How SSH is spoken between them: [`profile`], [`ident`], [`carrier`].
//! - Who may send when: [`gate`] for a connection and `sender` for one that uses it, [`credit`] for a stream; what is under way is bounded by the reports of [`arrivals`].
//! - What a stream is ([`stream`]) and how it is carried: by one channel ([`channel`]), or by one after the other ([`opener`],
//!   [`acceptor`]), with what [`label`] and [`record`] say beside its bytes. [`copy`] joins it with a TCP connection.
//! - What the subsystems say: [`frames`], [`message`], [`facts`], [`claims`], [`datagrams`]; and why something cannot be dialled: [`dial`].

pub mod acceptor;
pub mod arrivals;
mod attention;
pub mod carrier;
pub mod channel;
pub mod claims;
pub mod copy;
pub mod credit;
pub mod datagrams;
pub mod dial;
pub mod facts;
mod flight;
pub mod frames;
pub mod gate;
pub mod ident;
pub mod label;
mod leg;
pub mod link;
pub mod message;
pub mod opener;
pub mod profile;
pub mod record;
mod sender;
pub mod stream;

pub use leg::{Message, RESUME_TIMEOUT};
