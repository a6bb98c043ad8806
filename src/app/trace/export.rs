//! `goms trace export`: everything that matches, for other tools, page by page in order of time.
//!
//! Memory stays bounded by a page and by the requests whose end has not come yet, which are bounded too. A file is written beside its
//! place and moved there when it is whole.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{Shown, grouped, now_ms, unavailable};
use crate::app::AppError;
use crate::cli::{ExportArgs, ExportFormat};
use crate::reading::export::{Format, Open, Writer, whole};
use crate::reading::{Most, find};
use crate::store::{MAX_LIMIT, Order, Page, Query, StoreError, TraceStore};

/// Events of a page: of the usual kilobyte a megabyte, of 16 KiB bodies 16 MiB.
const PAGE: usize = 1_000;
/// Tries of a page, with a second between them: a consumer that starts again is back by then.
const TRIES: u32 = 5;
const QUIET: Duration = Duration::from_secs(1);
/// Between two lines of progress where no terminal can overwrite them.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub async fn run(store: &dyn TraceStore, args: &ExportArgs) -> Result<(), AppError> {
    let mut writer = Format::from(args.format).writer(args.base_url.clone());
    let mut target = Target::open(args.file.as_deref())?;
    let read = match &args.id {
        Some(id) => one(store, id, args, &mut *writer, &mut target.out).await,
        None => all(store, query(args), args.format, &mut *writer, &mut target.out).await,
    };
    match read.and_then(|()| target.close().map_err(Fault::Write)) {
        Ok(()) if args.file.is_some() => eprintln!("goms: wrote {} {}", grouped(writer.written()), noun(args.format)),
        Ok(()) => {}
        // a reader that has seen enough, as `head`
        Err(Fault::Write(error)) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
        Err(Fault::Write(error)) => return Err(target_error(args.file.as_deref(), &error)),
        Err(Fault::Store(error)) => return Err(unavailable(error)),
        Err(Fault::Nothing(id)) => {
            return Err(AppError::Unavailable(format!(
                "no events of request or trace `{id}`; `goms trace search` lists what there is"
            )));
        }
    }
    if writer.written() == 0 {
        eprintln!("goms: nothing matches; see `goms trace search` with the same filters");
    }
    Ok(())
}

enum Fault {
    Store(StoreError),
    Write(std::io::Error),
    Nothing(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

fn noun(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Otlp => "spans",
        ExportFormat::Har => "entries",
        ExportFormat::Curl => "commands",
    }
}

/// What is exported. HAR and curl show requests at the gateway, unless another event, service or node is named.
fn query(args: &ExportArgs) -> Query {
    let mut query = Query {
        since_ms: args.range.since,
        until_ms: Some(args.range.until.unwrap_or_else(now_ms)),
        order: Order::Oldest,
        limit: PAGE,
        ..args.filter.query()
    };
    let names_other = query.service.is_some() || query.node.is_some();
    if args.format != ExportFormat::Otlp && query.event.is_none() && !names_other {
        query.event = Some("request.end".to_owned());
    }
    query
}

/// One request or trace, whole.
async fn one(
    store: &dyn TraceStore,
    id: &str,
    args: &ExportArgs,
    writer: &mut dyn Writer,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let found = find(store, id, Most::events(MAX_LIMIT)).await.map_err(Fault::Store)?;
    if found.events.is_empty() {
        return Err(Fault::Nothing(id.to_owned()));
    }
    if found.is_cut {
        eprintln!("goms: only its first {MAX_LIMIT} events; for all of a trace take --trace-id");
    }
    let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
    Ok(whole(events, args.format.into(), writer, out)?)
}

async fn all(
    store: &dyn TraceStore,
    mut query: Query,
    format: ExportFormat,
    writer: &mut dyn Writer,
    out: &mut dyn Write,
) -> Result<(), Fault> {
    let mut open = Open::default();
    let mut progress = Progress::begin();
    let mut read = 0;
    writer.begin(out)?;
    loop {
        let page = page(store, &query).await?;
        read += page.events.len() as u64;
        let spans: Vec<Shown> = page.events.iter().flat_map(|event| open.take(shown(event, format))).collect();
        writer.spans(&spans, out)?;
        progress.tell(read, page.total);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let rest: Vec<Shown> = open.rest().collect();
    // what only began is a span; an entry or command of it would tell of an answer that nobody knows
    if format == ExportFormat::Otlp || query.event.as_deref().is_some_and(|event| event.ends_with(".start")) {
        writer.spans(&rest, out)?;
    }
    writer.end(out)?;
    progress.end();
    Ok(())
}

fn shown(event: &RawValue, format: ExportFormat) -> Shown {
    let mut shown = Shown::read(event);
    if format == ExportFormat::Otlp {
        (shown.request.body, shown.request.headers) = (None, Default::default()); // spans carry neither
    } else {
        shown.span = Default::default(); // requests carry none of it
    }
    shown
}

/// Asks again a few times, so that a consumer's restart does not spoil a long export.
async fn page(store: &dyn TraceStore, query: &Query) -> Result<Page, Fault> {
    let mut tries = 1;
    loop {
        match store.query(query).await {
            Err(StoreError::Unavailable { .. }) if tries < TRIES && query.after.is_some() => {
                tries += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            answer => return answer.map_err(Fault::Store),
        }
    }
}

/// Tells on stderr how far it is, of whatever takes longer than a second.
struct Progress {
    began: Instant,
    last: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { began: Instant::now(), last: None, is_terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, read: u64, total: u64) {
        let pause = if self.is_terminal { QUIET } else { LINE_EVERY };
        if self.began.elapsed() < QUIET || self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        let text = format!("goms: read {} of {} events", grouped(read), grouped(total.max(read)));
        if self.is_terminal { eprint!("\r{text}") } else { eprintln!("{text}") }
    }

    fn end(&self) {
        if self.is_terminal && self.last.is_some() {
            eprintln!();
        }
    }
}

/// Where it is written.
struct Target {
    out: BufWriter<Box<dyn Write>>,
    /// The unfinished file and its place.
    file: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(file: Option<&Path>) -> Result<Self, AppError> {
        let Some(path) = file else {
            return Ok(Self { out: BufWriter::new(Box::new(std::io::stdout())), file: None });
        };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| target_error(Some(&part), &error))?;
        Ok(Self { out: BufWriter::new(Box::new(file)), file: Some((part, path.to_owned())) })
    }

    fn close(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        match self.file.take() {
            Some((part, place)) => std::fs::rename(part, place),
            None => Ok(()),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((part, _)) = self.file.take() {
            // an export that failed leaves nothing that looks like one
            drop(std::fs::remove_file(part));
        }
    }
}

fn target_error(file: Option<&Path>, error: &std::io::Error) -> AppError {
    let place = file.map_or_else(|| "stdout".to_owned(), |file| format!("`{}`", file.display()));
    AppError::Unavailable(format!("cannot write to {place}: {error}"))
}

#[cfg(test)]
mod tests;
