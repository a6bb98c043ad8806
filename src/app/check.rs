//! `goms config` and `goms healthcheck`.

use std::time::Duration;

use super::{AppError, output};
use crate::config::Config;

/// How long an admin port may take to say that it is ready.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells that a config is good; its faults were told when it was read.
///
/// # Errors
/// When a certificate that it names cannot be used.
pub fn config(config: &Config) -> Result<(), AppError> {
    config.check_certificates()?;
    let from = config.file.as_ref().map_or_else(|| "the built-in config".to_owned(), |file| file.display().to_string());
    let actions: usize = config.gateway.services.values().map(|service| service.actions.len()).sum();
    let routes = match config.gateway.routes.len() {
        0 => String::new(),
        routes => format!(", {routes} routes"),
    };
    output::line(&format!("{from} is good: {} services, {actions} actions{routes}", config.gateway.services.len()));
    Ok(())
}

/// Prints what is in force.
pub fn print(config: &Config) -> Result<(), AppError> {
    output::text(&config.to_yaml().map_err(|error| AppError::Part(Box::new(error)))?);
    Ok(())
}

/// Prints what another config says otherwise.
pub fn diff(old: &Config, new: &Config, as_json: bool) {
    let changes = old.changes(new);
    if as_json {
        return output::json(&changes);
    }
    for change in &changes {
        let restart = if change.needs_restart { "   (needs a restart)" } else { "" };
        output::line(&match (&change.old, &change.new) {
            (Some(old), Some(new)) => format!("~ {}: {old} -> {new}{restart}", change.path),
            (Some(old), None) => format!("- {}: {old}{restart}", change.path),
            (None, new) => format!("+ {}: {}{restart}", change.path, new.as_deref().unwrap_or_default()),
        });
    }
    let fixed = changes.iter().filter(|change| change.needs_restart).count();
    output::line(&match (changes.len(), fixed) {
        (0, _) => "nothing changes".to_owned(),
        (all, 0) => format!("{all} changes, which a running gateway takes over"),
        (all, fixed) => format!("{all} changes, of which {fixed} need a restart"),
    });
}

/// Asks a node's admin port whether it is ready.
///
/// # Errors
/// [`AppError::Unavailable`] when it is not, or does not answer.
pub async fn health(admin: &str) -> Result<(), AppError> {
    let client = awc::Client::builder().timeout(HEALTH_TIMEOUT).disable_redirects().finish();
    let url = format!("http://{admin}/readyz");
    match client.get(&url).send().await {
        Ok(answer) if answer.status().is_success() => {
            output::line("ready");
            Ok(())
        }
        Ok(answer) => Err(AppError::Unavailable(format!("{admin} is not ready: status {}", answer.status().as_u16()))),
        Err(error) => Err(AppError::Unavailable(format!("{admin} does not answer: {error}"))),
    }
}
