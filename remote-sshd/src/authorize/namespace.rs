//! The mount namespace, which no two containers share.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// This process's mount namespace, held open so that its number cannot be given to another one.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    id: (u64, u64),
}

impl Namespace {
    /// Opens the process's own.
    pub(super) fn own() -> io::Result<Namespace> {
        let file = File::open("/proc/self/ns/mnt")?;
        let id = id(&file)?;
        Ok(Namespace { file, id })
    }

    /// Whether `passed` is a descriptor of this namespace.
    pub(super) fn is(&self, passed: OwnedFd) -> io::Result<bool> {
        Ok(id(&File::from(passed))? == self.id)
    }

    /// Name of the abstract socket on which the server for `port` in this container listens.
    pub(super) fn socket_name(&self, port: u16) -> String {
        format!("telepresence-remote/{}/{port}", self.id.1)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_namespace_is_recognised() {
        let own = Namespace::own().unwrap();
        assert!(own.is(Namespace::own().unwrap().file.into()).unwrap());
        for other in ["/proc/self/ns/net", "/proc/self/status", "/"] {
            assert!(
                !own.is(File::open(other).unwrap().into()).unwrap(),
                "{other}"
            );
        }
    }
}
