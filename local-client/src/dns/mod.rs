//! Names as the pod knows them: [`shim`] answers the app's queries with the pod's nameservers, and [`local`]
//! where those know no better, or the user has [chosen] so; [`resolv_conf`] and [`hosts`] are the two files that lead the app there.

pub mod chosen;
pub mod hosts;
pub mod in_place;
pub mod local;
pub(crate) mod lookup;
mod query;
pub mod resolv_conf;
pub(crate) mod resolve;
pub mod shim;
mod tcp;
