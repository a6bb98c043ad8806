//! `goms cluster keys`: so that a call key that takes the place of another can be followed through the cluster.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use serde::Serialize;

use super::super::output;
use super::super::table::{age, render};
use super::{ADMIN_TIMEOUT, admin_client, granted, warn_of_refusals};
use crate::admin::{KeyReport, KeysReported};
use crate::cli::Output;
use crate::config::Config;
use crate::registry::Catalog;

/// One node's keys.
#[derive(Serialize)]
struct Row {
    service: String,
    node: String,
    #[serde(skip)]
    address: String,
    admin: Option<SocketAddr>,
    keys: Option<Vec<KeyReport>>,
}

/// Prints them.
pub(super) async fn run(config: &Config, catalog: &Catalog, format: Output) {
    let told = ask(config, catalog.all().filter_map(|node| node.meta.admin).collect()).await;
    let row = |node: &std::sync::Arc<crate::registry::Node>| Row {
        service: node.id.service.clone(),
        node: node.id.to_string(),
        address: node.id.http.socket().map_or_else(|| node.id.to_string(), |http| http.to_string()),
        admin: node.meta.admin,
        keys: node.meta.admin.and_then(|admin| told.get(&admin).cloned()),
    };
    let rows: Vec<Row> = catalog.all().map(row).collect();
    match format {
        Output::Json => output::json(&rows),
        Output::Table => {
            let now_ms = jiff::Timestamp::now().as_millisecond();
            let lines: Vec<_> = rows.iter().flat_map(|row| lines(row, now_ms)).collect();
            output::text(&render(&["SERVICE", "ADDRESS", "KEY", "SIGNS", "LAST USED"], &lines));
        }
    }
}

fn lines(row: &Row, now_ms: i64) -> Vec<Vec<String>> {
    let line = |key: &str, signs: &str, used: &str| {
        let cells = [row.service.as_str(), row.address.as_str(), key, signs, used];
        cells.map(str::to_owned).to_vec()
    };
    let Some(keys) = &row.keys else { return vec![line("?", "", "its admin port does not tell")] };
    if keys.is_empty() {
        return vec![line("-", "", "no guard")];
    }
    let told = |key: &KeyReport| {
        let used = match (key.accepted, key.last_used_ms) {
            (false, _) => "-".to_owned(),
            (true, None) => "never".to_owned(),
            (true, Some(ms)) => format!("{} ago", age(ms, now_ms)),
        };
        line(&key.fingerprint, if key.signs { "yes" } else { "no" }, &used)
    };
    keys.iter().map(told).collect()
}

/// Asks each admin port; those that do not answer are left out.
async fn ask(config: &Config, admins: BTreeSet<SocketAddr>) -> HashMap<SocketAddr, Vec<KeyReport>> {
    let client = admin_client(config, ADMIN_TIMEOUT);
    let refused = RefCell::default();
    let ask = |admin: SocketAddr| {
        let (request, refused) = (client.get(format!("http://{admin}/api/keys")).send(), &refused);
        async move {
            let told = match request.await {
                Ok(answer) => {
                    granted(admin, answer, refused)?.json::<KeysReported>().await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match told {
                Ok(told) => Some((admin, told.keys)),
                Err(error) => {
                    log::debug!("admin port does not tell its keys address={admin} error={error}");
                    None
                }
            }
        }
    };
    let told = futures_util::future::join_all(admins.into_iter().map(ask)).await.into_iter().flatten().collect();
    warn_of_refusals(&refused.take());
    told
}
