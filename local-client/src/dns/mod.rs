//! Names as the pod knows them: [`shim`] answers the app's queries with the pod's nameservers, and [`local`]
//! where those know no better; [`resolv_conf`] and
//! [`hosts`] are the two files that lead the app there.

pub mod hosts;
pub mod in_place;
pub mod local;
pub(crate) mod lookup;
mod query;
pub mod resolv_conf;
pub(crate) mod resolve;
pub mod shim;
mod tcp;
