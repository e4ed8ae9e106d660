//! Files that Docker mounts into the container: they are changed by writing into them, as a rename would leave the
//! joiners with the old ones, and put back at the end. What was there stands behind it in comments: a client that was killed in a network that
//! outlives it cannot put it back, and the next one does.

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
    /// Replaces the text of the file at `path`, as it was before any client changed it, by what `edit` makes of it.
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
        let original = read(path).map_err(failed)?;
        let text = with_original(edit(&original), &original);
        let changed = InPlace {
            path: path.to_owned(),
            original,
        };
        // An error may come when the file is half written: it is put back all the same.
        fs::write(path, text).map_err(failed)?;
        Ok(changed)
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

/// What the file at `path` says without any client.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let text = fs::read(path)?;
    Ok(original(&text).unwrap_or(text))
}

/// Parts a text from what was there before, which follows with a `#` before each line.
const MARKER: &[u8] = b"# What was here before telepresence:\n";

fn with_original(mut text: Vec<u8>, original: &[u8]) -> Vec<u8> {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend(MARKER);
    for line in original.split(|byte| *byte == b'\n') {
        text.push(b'#');
        text.extend(line);
        text.push(b'\n');
    }
    text
}

/// What was there before; `None` if the text is not a client's.
fn original(text: &[u8]) -> Option<Vec<u8>> {
    let begin = text
        .windows(MARKER.len())
        .rposition(|window| window == MARKER)?;
    let rest = text.get(begin + MARKER.len()..)?;
    let lines = rest.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.map_while(|line| line.strip_prefix(b"#"));
    let mut original = kept.collect::<Vec<_>>().concat();
    // Of the last line, there is no other end than that of the text.
    original.pop();
    Some(original)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_can_be_told() {
        for before in [
            &b""[..],
            b"\n",
            b"nameserver 127.0.0.11\n",
            b"# comment\n\nno end",
            b"\xff\n# What was here before telepresence?\n",
        ] {
            for made in [&b""[..], b"nameserver 127.0.0.1\n", b"no end"] {
                let text = with_original(made.to_vec(), before);
                assert!(text.starts_with(made));
                assert_eq!(original(&text).as_deref(), Some(before));
            }
        }
        assert_eq!(original(b"nameserver 127.0.0.1\n# What was here\n"), None);
        assert_eq!(original(b""), None);
    }

    #[test]
    fn a_client_that_was_killed_leaves_what_the_next_one_puts_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        fs::write(&path, "before").unwrap();
        let edit = |own: &[u8]| [own, b"\nalias\n"].concat();
        std::mem::forget(InPlace::edit(&path, edit).unwrap());
        assert_eq!(read(&path).unwrap(), b"before");
        let next = InPlace::edit(&path, edit).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\nalias\n#"), "{text}");
        assert_eq!(text.matches("alias").count(), 1, "{text}");
        next.restore();
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }
}
