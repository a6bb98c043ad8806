//! A Unix socket that is a file: made at the start, gone at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there can be no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// Somebody serves it.
    #[error("another process listens on `{0}`; end it, or name another file")]
    InUse(PathBuf),
    /// Nothing that may be replaced.
    #[error("`{0}` is there and is no socket; name another file")]
    NoSocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot listen on `{path}`; its folder must exist and be writable")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A listening socket. Its file is removed when it is dropped, unless another has taken its place meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that was made.
    made: (u64, u64),
}

impl SocketFile {
    /// Listens there. A socket that a killed process left is replaced. Who may connect is who may write to the file: its
    /// mode is 0777 without the process's umask (usually 0755: the same user), and its folder may narrow that.
    ///
    /// # Errors
    /// [`SocketFileError`] when somebody listens there, or no socket can be made.
    pub fn bind(path: &Path) -> Result<Self, SocketFileError> {
        let refused = |source| SocketFileError::Refused { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(SocketFileError::NoSocket(path.to_owned())),
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(refused)?;
                }
                Ok(_) => return Err(SocketFileError::InUse(path.to_owned())),
                Err(error) => return Err(refused(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(error)),
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        let made = std::fs::symlink_metadata(path).map_err(refused)?;
        Ok(Self { listener, path: path.to_owned(), made: (made.dev(), made.ino()) })
    }

    /// What listens.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.made);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove the socket file={} error=\"{error}\"", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("goms.sock");
        drop(UnixListener::bind(&path).unwrap()); // the standard library leaves the file
        assert!(path.exists());
        let first = SocketFile::bind(&path).unwrap();
        assert!(matches!(SocketFile::bind(&path), Err(SocketFileError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(SocketFile::bind(&path), Err(SocketFileError::NoSocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let error = SocketFile::bind(&folder.path().join("absent/goms.sock")).unwrap_err();
        assert!(error.to_string().contains("its folder must exist"), "{error}");
    }

    #[test]
    fn the_file_of_another_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("goms.sock");
        let first = SocketFile::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("filler"), "takes the inode that became free").unwrap();
        let _second = SocketFile::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
