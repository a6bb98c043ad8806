//! `goms explain`.

use super::{AppError, output, table};
use crate::cli::ExplainArgs;
use crate::config::Config;
use crate::gateway::{self, Explanation, Question};

/// Says which route takes a request.
///
/// # Errors
/// [`AppError::Usage`] for what cannot be a request; [`AppError::Unavailable`] where no route takes it.
pub fn run(config: &Config, args: ExplainArgs) -> Result<(), AppError> {
    let question = Question::parse(&args.method, &args.url, &args.headers).map_err(AppError::Usage)?;
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

fn as_text(explanation: &Explanation) -> String {
    let row = |tried: &gateway::Tried| {
        let verdict = tried.refusal.as_ref().map_or_else(|| "yes".to_owned(), |refusal| format!("no, {refusal}"));
        vec![tried.name.clone(), tried.path.clone(), verdict]
    };
    let rows: Vec<_> = explanation.tried.iter().map(row).collect();
    let mut text = if rows.is_empty() { String::new() } else { table::render(&["ROUTE", "PATH", "TAKES IT"], &rows) };
    if let Ok(taken) = &explanation.outcome {
        text.push('\n');
        let lines = taken.shown();
        let width = lines.iter().map(|(what, _)| what.len() + 1).max().unwrap_or(0).max(10);
        for (what, how) in lines {
            text.push_str(&format!("{what:<width$}{how}\n"));
        }
    }
    text
}
