//! The environment: where the data and runtime folders are. (The `GOMS_…` variables of flags are read by clap, as
//! declared in `flags`.)

use std::ffi::OsString;
use std::path::PathBuf;

/// Folders that no flag named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folders {
    pub(super) data: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Folders {
    /// Reads this process's environment.
    pub(super) fn of_this_process() -> Self {
        Self::read(|name| std::env::var_os(name), std::env::temp_dir(), user())
    }

    /// By the XDG Base Directory Specification: a path that is not absolute is ignored. Without a runtime folder (or a
    /// home) it is one of the user's own in the temporary folder.
    fn read(variable: impl Fn(&str) -> Option<OsString>, temp: PathBuf, user: String) -> Self {
        let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let own = temp.join(format!("goms-{user}"));
        let data = folder("XDG_DATA_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
            .map_or_else(|| own.join("data"), |data| data.join("goms"));
        let runtime = folder("XDG_RUNTIME_DIR").map_or(own, |runtime| runtime.join("goms"));
        Self { data, runtime }
    }
}

/// What tells the users of a machine apart.
fn user() -> String {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        if let Ok(own) = std::fs::metadata("/proc/self") {
            return own.uid().to_string();
        }
    }
    let name = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if name.is_empty() { "user".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (String, String) {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let folders = Folders::read(variable, "/tmp".into(), "1000".to_owned());
        (folders.data.display().to_string(), folders.runtime.display().to_string())
    }

    #[test]
    fn folders_follow_xdg() {
        let both = [("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/h")];
        assert_eq!(read(&both), ("/d/goms".to_owned(), "/run/user/1/goms".to_owned()));
        let home = [("XDG_DATA_HOME", "relative"), ("XDG_RUNTIME_DIR", ""), ("HOME", "/h")];
        assert_eq!(read(&home), ("/h/.local/share/goms".to_owned(), "/tmp/goms-1000".to_owned()));
        assert_eq!(read(&[]), ("/tmp/goms-1000/data".to_owned(), "/tmp/goms-1000".to_owned()));
    }
}
