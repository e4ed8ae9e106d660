//! Root inside its container, without the capabilities that are not needed.

use crate::config::Intercept;
use crate::error::Error;
use crate::intercept::transparent::OWN_GROUP;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, getgid, setresgid};

/// What the client needs of root: DNS and Services on ports below 1024, and files of the user's in the user's directory.
const NEEDED: [Capability; 4] = [
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
];

/// Settles how connections are caught, and drops every capability that this does not need, for good. Both belong to threads: to
/// be called before there are others.
///
/// # Errors
/// [`Error::Local`] where the kernel refuses, or a capability is missing.
pub fn settle(wanted: Intercept) -> Result<Intercept, Error> {
    let failed = |error| Error::Local(format!("cannot drop capabilities: {error}"));
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let intercept = choose(wanted, &permitted)?;
    let mut needed = NEEDED.to_vec();
    if intercept == Intercept::Transparent {
        let group = Gid::from_raw(OWN_GROUP);
        // The saved one is the original, for files.
        setresgid(group, group, getgid()).map_err(|error| {
            Error::Local(format!("cannot run under the group {OWN_GROUP}: {error}"))
        })?;
        needed.extend([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    }
    let kept: CapsHashSet = needed
        .into_iter()
        .filter(|capability| permitted.contains(capability))
        .collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    Ok(intercept)
}

/// Takes as many descriptors as may be had: each connection is one, and Docker may leave the soft limit low for programs that use
/// select(2).
///
/// # Errors
/// [`Error::Local`] where the kernel refuses.
pub fn raise_descriptor_limit() -> Result<(), Error> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    raised.map_err(|error| Error::Local(format!("cannot raise the limit of descriptors: {error}")))
}

/// What `wanted` comes to with these capabilities.
fn choose(wanted: Intercept, permitted: &CapsHashSet) -> Result<Intercept, Error> {
    // The last two are among those that Docker gives.
    let needed = [
        (Capability::CAP_NET_ADMIN, "NET_ADMIN"),
        (Capability::CAP_SETGID, "SETGID"),
        (Capability::CAP_NET_RAW, "NET_RAW"),
    ];
    let missing = needed
        .iter()
        .find(|(capability, _)| !permitted.contains(capability));
    match (wanted, missing) {
        (Intercept::Loopback | Intercept::Socks, _) => Ok(wanted),
        (Intercept::Auto, Some((Capability::CAP_NET_ADMIN, _))) => Ok(Intercept::Loopback),
        (Intercept::Auto | Intercept::Transparent, None) => Ok(Intercept::Transparent),
        (Intercept::Auto | Intercept::Transparent, Some((_, missing))) => {
            Err(Error::Local(format!(
                "--intercept transparent needs the capability {missing}: start the container with --cap-add {missing}, or use \
             --intercept loopback, which needs none"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_is_allowed_is_chosen() {
        use Capability::{CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETGID};
        use Intercept::{Auto, Loopback, Socks, Transparent};
        let all = [CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETGID];
        for (wanted, capabilities, chosen) in [
            (Auto, &all[..], Ok(Transparent)),
            (Auto, &[CAP_SETGID], Ok(Loopback)),
            (Auto, &[], Ok(Loopback)),
            (Auto, &[CAP_NET_ADMIN, CAP_NET_RAW], Err("SETGID")),
            (Auto, &[CAP_NET_ADMIN, CAP_SETGID], Err("NET_RAW")),
            (Transparent, &all, Ok(Transparent)),
            (Transparent, &[CAP_SETGID], Err("NET_ADMIN")),
            (Transparent, &[CAP_NET_ADMIN], Err("SETGID")),
            (Loopback, &all, Ok(Loopback)),
            (Socks, &all, Ok(Socks)),
        ] {
            let permitted = capabilities.iter().copied().collect();
            match (choose(wanted, &permitted), chosen) {
                (Ok(is), Ok(should)) => assert_eq!(is, should),
                (Err(error), Err(missing)) => {
                    let remedy = format!("--cap-add {missing},");
                    assert!(error.to_string().contains(&remedy), "{error}");
                }
                (is, should) => panic!("{wanted:?}: {is:?} instead of {should:?}"),
            }
        }
    }
}
