//! Log lines: the originals' form (`2021/08/10 11:08:01 [gateway] Http Listen on port: 8080`) or JSON, on stderr.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use super::console::Console;
use crate::config::{LogFormat, LogSettings};

/// What of goms itself is shown, as a number of [`LevelFilter`]; it may change while the process runs.
static SHOWN: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);

fn level(verbosity: i8) -> LevelFilter {
    match verbosity {
        ..=-2 => LevelFilter::Error,
        -1 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    }
}

/// Shows as much of goms as these settings say, from now on; where `RUST_LOG` says it, that stays.
pub fn follow(settings: &LogSettings) {
    if std::env::var_os("RUST_LOG").is_none() {
        show(settings);
    }
}

fn show(settings: &LogSettings) {
    let level = level(settings.verbosity);
    SHOWN.store(level as usize, Ordering::Relaxed);
    // other modules' warnings are shown whatever goms's own level is; and with `-vvv` more of them
    let others = if settings.verbosity > 2 { LevelFilter::Debug } else { LevelFilter::Warn };
    log::set_max_level(level.max(others));
}

fn is_shown(record: &Record<'_>) -> bool {
    let of_goms = record.target() == "goms" || record.target().starts_with("goms::");
    !of_goms || record.level() as usize <= SHOWN.load(Ordering::Relaxed)
}

/// Starts logging, on a console of several speakers or straight on stderr. `RUST_LOG` wins over the verbosity of the command
/// line. A second call changes nothing.
pub fn start(settings: &LogSettings, console: Option<&Console>) {
    let mut builder = Builder::new();
    builder.target(Target::Stderr).filter_level(LevelFilter::Warn).filter_module("goms", LevelFilter::Trace);
    // a drain closes the listening socket under actix's accept loop on purpose
    builder.filter_module("actix_server::accept", LevelFilter::Off);
    // what a client sends wrong is no trouble of ours: else anybody could fill the disk (`listener` tells it at debug)
    builder.filter_module("actix_http", LevelFilter::Off).filter_module("h2", LevelFilter::Off);
    // goms tells a lost connection once; lapin would tell each of its parts, and an absent queue as an error
    builder.filter_module("lapin", LevelFilter::Off);
    if settings.verbosity > 2 {
        builder.filter_level(LevelFilter::Debug);
    }
    let filter = std::env::var("RUST_LOG").ok();
    if let Some(filter) = &filter {
        builder.parse_filters(filter);
        SHOWN.store(LevelFilter::Trace as usize, Ordering::Relaxed);
    }
    let line = match settings.format {
        LogFormat::Text => text_line,
        LogFormat::Json => json_line,
    };
    match console.cloned() {
        Some(console) => builder.format(move |_, record| {
            if is_shown(record) {
                console.own(&line(record), &record.args().to_string(), record.target() == "goms::access");
            }
            Ok(())
        }),
        None => builder.format(move |out, record| match is_shown(record) {
            true => writeln!(out, "{}", line(record)),
            false => Ok(()),
        }),
    };
    match builder.try_init() {
        Ok(()) if filter.is_none() => show(settings),
        Ok(()) => {}
        Err(_) => log::debug!("logging was started already"),
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
