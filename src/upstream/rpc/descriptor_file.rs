//! A file of descriptors, as protoc writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::rpc::schema::{Schema, SchemaError};

/// Bytes of a descriptor file.
const FILE_BYTES: u64 = 16 << 20;

/// A descriptor set, as protoc writes it.
#[derive(Clone, Debug)]
pub struct DescriptorFile {
    /// Where it is.
    pub path: PathBuf,
    stamp: Option<Stamp>,
    schema: Arc<Schema>,
}

/// What tells one state of a file from another: when it was changed last, and its bytes.
pub type Stamp = (SystemTime, u64);

/// Why a file of descriptors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorFileError {
    /// It cannot be read.
    #[error("cannot read `{0}`")]
    Read(PathBuf, #[source] std::io::Error),
    /// It has too many bytes.
    #[error("`{0}` has more than {FILE_BYTES} bytes, which is no descriptor set")]
    Size(PathBuf),
    /// It holds something else.
    #[error("cannot use `{0}`")]
    Content(PathBuf, #[source] SchemaError),
}

/// Equal as it was read; so a file that changed is another.
impl PartialEq for DescriptorFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.stamp) == (&other.path, other.stamp)
    }
}

impl Eq for DescriptorFile {}

impl DescriptorFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`DescriptorFileError`].
    pub fn load(path: PathBuf) -> Result<Self, DescriptorFileError> {
        let stamp = stamp(&path);
        if stamp.is_some_and(|(_, bytes)| bytes > FILE_BYTES) {
            return Err(DescriptorFileError::Size(path));
        }
        let bytes = std::fs::read(&path).map_err(|error| DescriptorFileError::Read(path.clone(), error))?;
        let schema = Schema::decode(&bytes).map_err(|error| DescriptorFileError::Content(path.clone(), error))?;
        Ok(Self { path, stamp, schema: Arc::new(schema) })
    }

    /// What it was when it was read.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// What it tells.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.clone()
    }
}

/// What a file is now; `None`: it is not there.
#[must_use]
pub fn stamp(file: &Path) -> Option<Stamp> {
    let known = std::fs::metadata(file).ok()?;
    Some((known.modified().ok()?, known.len()))
}
