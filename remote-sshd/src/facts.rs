//! The subsystem `facts`: what the client needs to know of the container ([`tunnel::facts`]).

use crate::pod::PodFiles;
use std::os::unix::ffi::OsStringExt;
use tunnel::credit::Budget;
use tunnel::facts::{Blob, Facts, Variable};

/// The process's environment, in its own order, byte for byte.
pub fn environment() -> Vec<Variable> {
    std::env::vars_os()
        .map(|(key, value)| Variable {
            key: Blob(key.into_vec()),
            value: Blob(value.into_vec()),
        })
        .collect()
}

/// All that is told; the files as they are now.
pub(crate) fn facts(environment: &[Variable], files: &PodFiles, budget: &Budget) -> Facts {
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: hostname.to_string_lossy().into_owned(),
        budget: budget.total(),
        environment: environment.to_vec(),
        resolv_conf: Blob(files.read_resolv_conf()),
        hosts: Blob(files.read_hosts()),
    }
}
