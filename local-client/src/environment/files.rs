//! The files of the pod's environment: NAME.env for `docker run --env-file`, and NAME.env.json, which can carry more.

use super::env_file;
use crate::config::Owner;
use crate::error::Error;
use nix::unistd::getresgid;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use tunnel::facts::Variable;

/// The two files. They hold secrets: only their owner may read them.
#[derive(Debug)]
pub struct EnvFiles {
    directory: PathBuf,
    name: String,
    owner: Option<Owner>,
}

impl EnvFiles {
    /// Removes what an earlier run left, so that the file's appearance means ready, and makes sure that new ones can be
    /// written.
    ///
    /// # Errors
    /// [`Error::Local`] if `directory` does not exist or cannot be written.
    pub fn prepare(directory: &Path, name: &str, owner: Option<Owner>) -> Result<EnvFiles, Error> {
        let files = EnvFiles {
            directory: directory.to_owned(),
            name: name.to_owned(),
            owner,
        };
        files.temporary()?;
        for path in [files.env(), files.json()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Local(format!(
                        "{} of an earlier run cannot be removed: {error}",
                        path.display()
                    )));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    /// Writes both files, NAME.env last. What they cannot carry is left out and named in the log.
    ///
    /// # Errors
    /// [`Error::Local`] if they cannot be written, or not be given to their owner.
    pub fn write(&self, variables: &[Variable]) -> Result<(), Error> {
        let mut document = Map::new();
        for Variable { key, value } in variables {
            let name = key.0.escape_ascii();
            if let Some(reason) = env_file::unfit(&key.0, &value.0) {
                tracing::warn!("{}.env lacks the variable {name}: {reason}", self.name);
            }
            match (std::str::from_utf8(&key.0), std::str::from_utf8(&value.0)) {
                (Ok(key), Ok(value)) => {
                    document.insert(key.to_owned(), Value::from(value));
                }
                _ => tracing::warn!(
                    "{}.env.json lacks the variable {name}: it is not UTF-8",
                    self.name
                ),
            }
        }
        let json = format!("{:#}\n", Value::Object(document));
        self.put(&self.json(), json.as_bytes())?;
        self.put(&self.env(), &env_file::render(variables))
    }

    /// Removes both files.
    pub fn remove(&self) {
        for path in [self.env(), self.json()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("{} cannot be removed: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    fn env(&self) -> PathBuf {
        self.directory.join(format!("{}.env", self.name))
    }

    fn json(&self) -> PathBuf {
        self.directory.join(format!("{}.env.json", self.name))
    }

    /// A file that nobody else can read, and that is removed unless it is renamed.
    fn temporary(&self) -> Result<NamedTempFile, Error> {
        let prefix = format!(".{}.env.", self.name);
        // Its mode is 0600.
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .tempfile_in(&self.directory)
            .inspect(|file| restore_group(file.as_file()));
        file.map_err(|error| {
            let directory = self.directory.display();
            Error::Local(format!(
                "no file can be made in {directory}: {error}; the environment is written there: mount a directory of yours, \
                 such as by -v \"$PWD\":{directory}"
            ))
        })
    }

    /// Makes `text` appear at `path`, all at once.
    fn put(&self, path: &Path, text: &[u8]) -> Result<(), Error> {
        let failed = |what: &str, error: io::Error| {
            Error::Local(format!("{} cannot be {what}: {error}", path.display()))
        };
        let mut file = self.temporary()?;
        file.write_all(text)
            .map_err(|error| failed("written", error))?;
        if let Some(Owner { uid, gid }) = self.owner {
            fchown(file.as_file(), Some(uid), gid)
                .map_err(|error| failed(&format!("given to user {uid} (--uid)"), error))?;
        }
        file.persist(path)
            .map_err(|error| failed("written", error.error))?;
        Ok(())
    }
}

/// Gives a new file the group that it would have if the client did not run under one of its own (transparent mode).
fn restore_group(file: &File) {
    let (Ok(metadata), Ok(groups)) = (file.metadata(), getresgid()) else {
        return;
    };
    if groups.effective != groups.saved && metadata.gid() == groups.effective.as_raw() {
        // Where this is not allowed, nothing is lost: the group may not read the file.
        let _ = fchown(file, None, Some(groups.saved.as_raw()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tunnel::facts::Blob;

    fn variable(key: &[u8], value: &[u8]) -> Variable {
        Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_files_hold_what_they_can_and_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let uid = fs::metadata(directory.path()).unwrap().uid();
        let owner = Some(Owner { uid, gid: None });
        let files = EnvFiles::prepare(directory.path(), "app", owner).unwrap();
        assert!(names(directory.path()).is_empty());
        files
            .write(&[
                variable(b"B", b"two\nlines"),
                variable(b"A", b"=\"$#"),
                variable(b"C", b"\xff"),
            ])
            .unwrap();
        assert_eq!(names(directory.path()), ["app.env", "app.env.json"]);
        assert_eq!(fs::read(files.env()).unwrap(), b"A==\"$#\n");
        let json: Value = serde_json::from_slice(&fs::read(files.json()).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"A": "=\"$#", "B": "two\nlines"}));
        for path in [files.env(), files.json()] {
            let metadata = fs::metadata(path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
            assert_eq!(metadata.uid(), uid);
        }
        files.remove();
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn stale_files_are_removed_first() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["app.env", "app.env.json", "other.env"] {
            fs::write(directory.path().join(name), "STALE=1").unwrap();
        }
        EnvFiles::prepare(directory.path(), "app", None).unwrap();
        assert_eq!(names(directory.path()), ["other.env"]);
    }

    #[test]
    fn a_missing_directory_is_told_with_its_remedy() {
        let missing = Path::new("/nonexistent/output");
        let error = EnvFiles::prepare(missing, "app", None).unwrap_err();
        assert!(
            matches!(&error, Error::Local(text) if text.contains("-v \"$PWD\":/nonexistent/output")),
            "{error}"
        );
    }
}
