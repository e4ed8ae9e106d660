//! The pod's environment for the app: [`filter`] says which variables go out, [`rewrite`] what becomes of Service addresses
//! in loopback mode, [`files`] writes them where `docker run --env-file` finds them.

mod env_file;
pub mod files;
pub mod filter;
pub mod rewrite;
