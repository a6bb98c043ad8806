//! Where events go that can never be stored and that no broker keeps: a file, one JSON object a line.
//!
//! ```text
//! {"time":"2026-11-21T07:53:51Z","reason":"…","event":<the event's JSON>}
//! ```
//! At [`MAX_BYTES`] the file becomes `<name>.1`, replacing the one before: two files at most. Processes may share it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::value::RawValue;

/// Of one file.
const MAX_BYTES: u64 = 32 << 20;

/// Appends refused events to a file; without one they are only logged and counted.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: Option<PathBuf>,
    open: Mutex<Option<File>>,
}

impl DeadLetters {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, open: Mutex::new(None) }
    }

    /// Keeps an event. What cannot be written is logged: the store has refused it, so nothing else can be done.
    pub fn keep(&self, event: &RawValue, reason: &str) {
        let Some(path) = &self.path else { return };
        if let Err(error) = self.append(path, event, reason) {
            log::error!("cannot keep a refused trace event file={} error={error}", path.display());
        }
    }

    fn append(&self, path: &PathBuf, event: &RawValue, reason: &str) -> io::Result<()> {
        let reason = serde_json::to_string(reason).map_err(io::Error::other)?;
        let line = format!("{{\"time\":\"{}\",\"reason\":{reason},\"event\":{event}}}", jiff::Timestamp::now());
        let line = line.replace('\n', " ") + "\n"; // line breaks stand only between JSON tokens
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.as_ref()
            && file.metadata()?.len() > MAX_BYTES
        {
            *open = None;
        }
        let file = match open.as_mut() {
            Some(file) => file,
            None => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                // asked of the name: another process may have renamed the full one
                if fs::metadata(path).is_ok_and(|file| file.len() > MAX_BYTES) {
                    fs::rename(path, path.with_extension("jsonl.1"))?;
                }
                open.insert(File::options().create(true).append(true).open(path)?)
            }
        };
        file.write_all(line.as_bytes())
    }
}

impl fmt::Display for DeadLetters {
    /// Where they are.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.as_ref().map_or(Ok(()), |path| path.display().fmt(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_events_are_kept_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("dead-letters.jsonl");
        let letters = DeadLetters::new(Some(path.clone()));
        let event = RawValue::from_string("{\"a\":\n1}".to_owned()).unwrap();
        letters.keep(&event, "too \"odd\"");
        letters.keep(&event, "again");
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["reason"], &lines[0]["event"]["a"]), (&"too \"odd\"".into(), &1.into()));
    }
}
