//! Log lines: the originals' form (`2021/08/10 11:08:01 [gateway] Http Listen on port: 8080`) or JSON, on stderr.

use std::io::Write;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use super::console::Console;
use crate::config::{LogFormat, LogSettings};

/// Starts logging, on a console of several speakers or straight on stderr. `RUST_LOG` wins over the verbosity of the command
/// line. A second call changes nothing.
pub fn start(settings: &LogSettings, console: Option<&Console>) {
    let level = match settings.verbosity {
        ..=-2 => LevelFilter::Error,
        -1 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.target(Target::Stderr).filter_level(LevelFilter::Warn).filter_module("goms", level);
    // a drain closes the listening socket under actix's accept loop on purpose
    builder.filter_module("actix_server::accept", LevelFilter::Off);
    // what a client sends wrong is no trouble of ours: else anybody could fill the disk (`listener` tells it at debug)
    builder.filter_module("actix_http", LevelFilter::Off).filter_module("h2", LevelFilter::Off);
    // goms tells a lost connection once; lapin would tell each of its parts, and an absent queue as an error
    builder.filter_module("lapin", LevelFilter::Off);
    if settings.verbosity > 2 {
        builder.filter_level(LevelFilter::Debug);
    }
    if let Ok(filter) = std::env::var("RUST_LOG") {
        builder.parse_filters(&filter);
    }
    let line = match settings.format {
        LogFormat::Text => text_line,
        LogFormat::Json => json_line,
    };
    match console.cloned() {
        Some(console) => builder.format(move |_, record| {
            console.own(&line(record), &record.args().to_string(), record.target() == "goms::access");
            Ok(())
        }),
        None => builder.format(move |out, record| writeln!(out, "{}", line(record))),
    };
    if builder.try_init().is_err() {
        log::debug!("logging was started already");
    }
}

/// The same for a command that prints on stdout: errors only, since joins are not its business and its own end tells what
/// went wrong.
pub fn start_quiet(settings: &LogSettings) {
    start(&LogSettings { verbosity: settings.verbosity.saturating_sub(2), ..*settings }, None);
}

fn text_line(record: &Record<'_>) -> String {
    let time = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
    match record.level() {
        Level::Info => format!("{time} {}", record.args()),
        level => format!("{time} {level} {}", record.args()),
    }
}

fn json_line(record: &Record<'_>) -> String {
    serde_json::json!({
        "time": jiff::Timestamp::now().to_string(),
        "level": record.level().as_str().to_ascii_lowercase(),
        "target": record.target(),
        "message": record.args().to_string(),
    })
    .to_string()
}
