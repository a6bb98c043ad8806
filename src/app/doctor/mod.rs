//! `goms doctor`: whether what the config names can be reached, and whether this machine is fit for a node.

mod machine;
mod servers;

use serde::Serialize;

use super::{AppError, output};
use crate::cli::Output;
use crate::config::Config;
use crate::registry::Catalog;

/// What was found of one part.
#[derive(Debug, Serialize)]
struct Finding {
    /// Which part.
    part: &'static str,
    /// How it is.
    state: State,
    /// What was seen.
    text: String,
    /// What to do about it.
    advice: Option<String>,
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Good,
    /// Works; somebody should look at it.
    Doubtful,
    /// Does not work.
    Broken,
}

impl Finding {
    fn good(part: &'static str, text: impl Into<String>) -> Self {
        Self { part, state: State::Good, text: text.into(), advice: None }
    }

    fn doubtful(part: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part, state: State::Doubtful, text: text.into(), advice: Some(advice.into()) }
    }

    fn broken(part: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part, state: State::Broken, text: text.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything at once and tells what it found.
///
/// # Errors
/// [`AppError::Unavailable`] where a part does not work.
pub async fn run(config: &Config, format: Output) -> Result<(), AppError> {
    let (registry, catalog) = servers::registry(config).await;
    let nobody = Catalog::default();
    let known = catalog.as_deref().unwrap_or(&nobody);
    let (queue, store, clocks) =
        tokio::join!(servers::queue(config), servers::store(config, catalog.as_deref()), servers::clocks(known));
    let mut found = vec![config_of(config), call_keys(config), registry];
    found.extend(queue);
    found.extend(store);
    found.extend(clocks);
    found.extend(machine::look(config, known));
    match format {
        Output::Json => output::json(&found),
        Output::Table => output::text(&drawn(&found)),
    }
    let count = |state| found.iter().filter(|finding| finding.state == state).count();
    match (count(State::Broken), count(State::Doubtful)) {
        (0, doubtful) => {
            if format == Output::Table {
                output::line(&match doubtful {
                    0 => "all is well".to_owned(),
                    1 => "1 thing to look at".to_owned(),
                    doubtful => format!("{doubtful} things to look at"),
                });
            }
            Ok(())
        }
        (1, _) => Err(AppError::Unavailable("1 part does not work".to_owned())),
        (broken, _) => Err(AppError::Unavailable(format!("{broken} parts do not work"))),
    }
}

fn config_of(config: &Config) -> Finding {
    let from = config.file.as_ref().map_or_else(|| "the built-in config".to_owned(), |file| file.display().to_string());
    match config.check_certificates() {
        Ok(()) => Finding::good("config", format!("{from} is good")),
        Err(error) => Finding::broken("config", error.to_string(), "`goms config check` tells every fault"),
    }
}

fn call_keys(config: &Config) -> Finding {
    let is_shared =
        !matches!(config.registry.backend, crate::registry::Backend::Memory | crate::registry::Backend::Local { .. });
    match config.call_keys.first().map(|key| key.as_str()) {
        Some("change me") => Finding::doubtful(
            "call key",
            "`callServiceKey` is the one of the example",
            "choose one that nobody knows; `goms cluster keys` follows the change through the cluster",
        ),
        Some(_) => Finding::good("call key", "services answer only who brings it"),
        None if is_shared => Finding::doubtful(
            "call key",
            "none: whoever reaches a service's port is answered",
            "set `callServiceKey` in the config of all nodes",
        ),
        None => Finding::good("call key", "none, and none is needed on one machine"),
    }
}

/// One line a part, and what to do about it under it.
fn drawn(found: &[Finding]) -> String {
    let mut text = String::new();
    for finding in found {
        let word = match finding.state {
            State::Good => "ok    ",
            State::Doubtful => "look  ",
            State::Broken => "BROKEN",
        };
        text.push_str(&format!("{word}  {:<12}  {}\n", finding.part, finding.text));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("{:22}→ {advice}\n", ""));
        }
    }
    text
}
