//! What a command prints on stdout. A reader that went away (`goms trace search | head`) ends the command quietly.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::service::Stream;

/// Prints text as it is.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("goms: cannot write to stdout: {error}");
        }
        std::process::exit(i32::from(error.kind() != ErrorKind::BrokenPipe));
    }
}

/// Prints one line.
pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Prints a value as indented JSON.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(error) => eprintln!("goms: cannot print the answer as json: {error}"),
    }
}

/// Prints a program's line where the program would have.
pub fn program(stream: Stream, line: &str) {
    let line = format!("{line}\n");
    // a terminal that is gone does not end the program
    drop(match stream {
        Stream::Out => std::io::stdout().write_all(line.as_bytes()),
        Stream::Err => std::io::stderr().write_all(line.as_bytes()),
    });
}
