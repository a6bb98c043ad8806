//! `goms trace tail`: events as they are stored, each once.

use std::sync::Arc;
use std::time::Duration;

use super::{Shown, now_ms, printable, source, unavailable};
use crate::app::{AppError, output};
use crate::cli::{Output, TailArgs};
use crate::config::Config;
use crate::reading::{Follow, INTERVAL};
use crate::store::{StoreError, TraceStore};

/// How long a store that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(config: &Config, mut store: Arc<dyn TraceStore>, args: &TailArgs) -> Result<(), AppError> {
    let mut follow = Follow::new(args.filter.query(), now_ms());
    let mut away_since: Option<tokio::time::Instant> = None;
    loop {
        match follow.poll(&*store, now_ms()).await {
            Ok(news) => {
                away_since = None;
                let mut text = String::new();
                for (shown, json) in &news {
                    text.push_str(&match args.output.output {
                        Output::Json => json.clone(),
                        Output::Table => line(shown),
                    });
                    text.push('\n');
                }
                if !text.is_empty() {
                    output::text(&text);
                }
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                let since = *away_since.get_or_insert_with(|| {
                    eprintln!("goms: the trace store is away, waiting for it: {}", crate::causes::chain(&error));
                    tokio::time::Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    return Err(unavailable(error));
                }
                // a consumer that started again listens elsewhere
                if let Ok(again) = source::open(config).await {
                    store = again;
                }
            }
            Err(error) => return Err(unavailable(error)),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            ended = tokio::signal::ctrl_c() => return ended.map_err(AppError::Start),
        }
    }
}

/// An event on a line of its own.
fn line(shown: &Shown) -> String {
    let time = shown.time.split_once(' ').map_or(shown.time.as_str(), |(_, clock)| clock);
    format!(
        "{}  {}  {:<13}  {:<10}  {:<3}  {:<8}  {}",
        printable(time),
        printable(&shown.request_id),
        printable(&shown.event),
        printable(&shown.service_name),
        shown.status_text(),
        shown.took_text(),
        shown.line()
    )
}
