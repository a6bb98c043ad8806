//! What is wrong with a config.

use std::fmt;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file; `None`: a flag or variable.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<usize>,
    /// Where in the YAML (`services.user.login.timeout`), or the flag; empty: the whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            match self.line {
                Some(line) => write!(out, "{file}:{line}: ")?,
                None => write!(out, "{file}: ")?,
            }
        }
        match self.path.as_str() {
            "" => out.write_str(&self.message),
            path => write!(out, "{path}: {}", self.message),
        }
    }
}

/// All that is wrong with a config; displayed as one line each, in the order of the file. The exit code for it is 78.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl ConfigErrors {
    /// One fault of a file.
    pub(crate) fn one(file: &str, line: Option<usize>, message: String) -> Self {
        Self { faults: vec![Fault { file: Some(file.to_owned()), line, path: String::new(), message }] }
    }

    pub(super) fn flag(flag: &str, message: &str) -> Self {
        Self { faults: vec![Fault { file: None, line: None, path: flag.to_owned(), message: message.to_owned() }] }
    }

    /// Whether the file is good and only flags or variables are wrong.
    #[must_use]
    pub fn only_flags(&self) -> bool {
        self.faults.iter().all(|fault| fault.file.is_none())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
