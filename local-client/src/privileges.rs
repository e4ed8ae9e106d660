//! Root inside its container, without the capabilities that are not needed.

use crate::error::Error;
use caps::{CapSet, Capability, CapsHashSet};

/// What the client needs of root: DNS and Services on ports below 1024, and files of the user's in the user's directory.
const NEEDED: [Capability; 4] = [
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
];

/// Drops every capability but those needed, for good. Capabilities belong to threads: to be called before there are others.
///
/// # Errors
/// [`Error::Local`] where the kernel refuses.
pub fn drop_unneeded() -> Result<(), Error> {
    let failed = |error| Error::Local(format!("cannot drop capabilities: {error}"));
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = NEEDED
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
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}
