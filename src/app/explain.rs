//! `goms explain`.

use super::{AppError, output, table};
use crate::cli::ExplainArgs;
use crate::config::{Config, format_duration};
use crate::gateway::{self, Explanation, Fallback, Outcome, Question, Taken};

/// Says which route takes a request.
///
/// # Errors
/// [`AppError::Usage`] for what cannot be a request; [`AppError::Unavailable`] where no route takes it.
pub fn run(config: &Config, args: ExplainArgs) -> Result<(), AppError> {
    let question = question(&args)?;
    let mut explanation = gateway::explain(&config.gateway, &question).map_err(AppError::Usage)?;
    if !args.all {
        explanation.tried.retain(|tried| tried.is_near);
    }
    if args.form.json() {
        output::json(&explanation.json());
    } else {
        output::text(&as_text(&explanation));
    }
    match explanation.outcome {
        Ok(_) => Ok(()),
        Err(told) => Err(AppError::Unavailable(told)),
    }
}

fn question(args: &ExplainArgs) -> Result<Question, AppError> {
    let mut headers = Vec::new();
    for field in &args.headers {
        let Some((name, value)) = field.split_once(':') else {
            return Err(AppError::Usage(format!("`{field}` is no header field; write `name: value`")));
        };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host.clone());
    let (host, target) = match args.url.split_once("://") {
        _ if args.url.starts_with('/') => (named.unwrap_or_else(|| "localhost".to_owned()), args.url.as_str()),
        Some((_, rest)) => match rest.find('/') {
            Some(slash) => (rest[..slash].to_owned(), &rest[slash..]),
            None => (rest.to_owned(), "/"),
        },
        None => {
            let url = &args.url;
            return Err(AppError::Usage(format!(
                "`{url}` is neither a path nor an address; write for example `/{url}`"
            )));
        }
    };
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Question { method: args.method.to_uppercase(), host, path: path.to_owned(), query: query.to_owned(), headers })
}

fn as_text(explanation: &Explanation) -> String {
    let row = |tried: &gateway::Tried| {
        let verdict = tried.refusal.as_ref().map_or_else(|| "yes".to_owned(), |refusal| format!("no, {refusal}"));
        vec![tried.name.clone(), tried.path.clone(), verdict]
    };
    let rows: Vec<_> = explanation.tried.iter().map(row).collect();
    let mut text = if rows.is_empty() { String::new() } else { table::render(&["ROUTE", "PATH", "TAKES IT"], &rows) };
    if let Ok(taken) = &explanation.outcome {
        text.push('\n');
        let lines = outcome(taken);
        let width = lines.iter().map(|(what, _)| what.len() + 1).max().unwrap_or(0).max(10);
        for (what, how) in lines {
            text.push_str(&format!("{what:<width$}{how}\n"));
        }
    }
    text
}

/// What becomes of the request, line by line.
fn outcome(taken: &Taken) -> Vec<(&'static str, String)> {
    let target = taken.target.clone().unwrap_or_else(|| "/".to_owned());
    let mut lines = match &taken.outcome {
        Outcome::Call(call) => {
            let shares = call.services.iter().map(|share| match call.services.len() {
                1 => share.group().to_owned(),
                _ => format!("{} {}", share.group(), share.weight),
            });
            let policy = &call.policy;
            let on: Vec<String> = policy.retry_status.iter().map(u16::to_string).collect();
            let on = if on.is_empty() { String::new() } else { format!(", also after {}", on.join(", ")) };
            let deadline = policy.deadline.map(|deadline| format!(", {} in all", format_duration(deadline)));
            let who = match call.origins.as_slice() {
                [] => ("service", shares.collect::<Vec<_>>().join(", ")),
                origins => ("servers", origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            };
            let mut lines = vec![
                who,
                ("path", target),
                ("timeout", format_duration(policy.timeout) + " a try" + &deadline.unwrap_or_default()),
                ("tries", format!("{}{on}", policy.attempts)),
            ];
            match &call.fallback {
                Some(Fallback::Service(service)) => lines.push(("else", format!("service {service}"))),
                Some(Fallback::Respond(respond)) => lines.push(("else", format!("answers {}", respond.status))),
                None => {}
            }
            if let Some(mirror) = &call.mirror {
                let share = f64::from(mirror.permille) / 10.0;
                lines.push(("copies", format!("{share}% to {}", mirror.to.group())));
            }
            lines
        }
        Outcome::Redirect(redirect) => vec![("redirect", format!("{} to {target}", redirect.status))],
        Outcome::Micro(micro) => vec![("services", format!("{}.*, as the path says", micro.namespace))],
        Outcome::Respond(respond) => vec![("answer", format!("{} {}", respond.status, respond.content_type))],
    };
    lines.extend(taken.terms.shown());
    lines
}
