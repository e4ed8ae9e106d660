//! Files that Docker mounts into the container: they are changed by writing into them, as a rename would leave the
//! joiners with the old ones, and put back at the end.

use crate::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that was changed. Dropped, it gets its original text back.
#[derive(Debug)]
pub struct InPlace {
    path: PathBuf,
    original: Vec<u8>,
}

impl InPlace {
    /// Replaces the text of the file at `path` by what `edit` makes of it.
    ///
    /// # Errors
    /// [`Error::Local`] if the file cannot be read or written.
    pub fn edit(path: &Path, edit: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<InPlace, Error> {
        let failed = |error: io::Error| {
            Error::Local(format!(
                "{} cannot be changed: {error}; run the container without --read-only and without a mount of your own there",
                path.display()
            ))
        };
        let original = fs::read(path).map_err(failed)?;
        fs::write(path, edit(&original)).map_err(failed)?;
        Ok(InPlace {
            path: path.to_owned(),
            original,
        })
    }

    /// Puts the original text back.
    pub fn restore(self) {
        drop(self);
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.original) {
            tracing::warn!("{} cannot be put back: {error}", self.path.display());
        }
    }
}
