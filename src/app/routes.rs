//! `goms cluster routes`: the routes that gateways have in force, as their admin ports tell them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use awc::http::StatusCode;
use serde_json::{Value, json};

use super::cluster::{BRING_A_TOKEN, admin_client};
use super::table::render;
use super::{AppError, gateway, output};
use crate::cli::Output;
use crate::config::Config;
use crate::registry::Catalog;

/// How long a gateway's admin port may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Prints the routes of each gateway; once where all have the same.
///
/// # Errors
/// [`AppError::Unavailable`] when there is no gateway, or none of them answers.
pub async fn run(config: &Config, catalog: &Catalog, format: Output) -> Result<(), AppError> {
    let nodes = catalog.nodes(gateway::SERVICE);
    if nodes.is_empty() {
        return Err(AppError::Unavailable("no gateway is registered; start one with `goms gateway`".to_owned()));
    }
    let client = admin_client(config, ADMIN_TIMEOUT);
    let mut found: Vec<(String, Value)> = Vec::new();
    for node in nodes {
        let name = node.id.http.socket().map_or_else(|| node.id.to_string(), |http| http.to_string());
        match routes(&client, node.meta.admin).await {
            Ok(routes) => found.push((name, routes)),
            Err(why) => eprintln!("goms: the gateway {name} does not tell its routes: {why}"),
        }
    }
    if found.is_empty() {
        return Err(AppError::Unavailable("no gateway's admin port tells its routes".to_owned()));
    }
    match format {
        Output::Json => {
            let found: Vec<Value> =
                found.into_iter().map(|(gateway, routes)| json!({"gateway": gateway, "routes": routes})).collect();
            output::json(&found);
        }
        Output::Table => output::text(&shown(found)),
    }
    Ok(())
}

async fn routes(client: &awc::Client, admin: Option<SocketAddr>) -> Result<Value, String> {
    let admin = admin.ok_or("it names no admin port")?;
    let mut answer =
        client.get(format!("http://{admin}/api/routes")).send().await.map_err(|error| format!("{admin}: {error}"))?;
    match answer.status() {
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(format!("{admin} answers {status}; {BRING_A_TOKEN}"));
        }
        status if !status.is_success() => return Err(format!("{admin} answers {status}")),
        _ => {}
    }
    answer.json().await.map_err(|error| format!("{admin}: {error}"))
}

/// A table for each set of routes, with the gateways that have it.
fn shown(found: Vec<(String, Value)>) -> String {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (gateway, routes) in found {
        let rows: Vec<Vec<String>> = routes.as_array().into_iter().flatten().map(row).collect();
        tables.entry(render(&["ROUTE", "TAKES", "DOES"], &rows)).or_default().push(gateway);
    }
    let differ = tables.len() > 1;
    let table = |(table, gateways): (String, Vec<String>)| match differ {
        true => {
            format!("{} ({})\n{table}", if gateways.len() == 1 { "gateway" } else { "gateways" }, gateways.join(", "))
        }
        false => table,
    };
    tables.into_iter().map(table).collect::<Vec<_>>().join("\n")
}

/// Of a route as the config writes it.
fn row(route: &Value) -> Vec<String> {
    let when = &route["match"];
    let mut takes = texts(&when["methods"]);
    takes.push(format!("{}{}", when["host"].as_str().unwrap_or_default(), when["path"].as_str().unwrap_or_default()));
    for (kind, key) in [("", "headers"), ("?", "query")] {
        for (name, value) in when[key].as_object().into_iter().flatten() {
            takes.push(format!("{kind}{name}={}", value.as_str().unwrap_or_default()));
        }
    }
    let name = route["name"].as_str().or_else(|| when["path"].as_str()).unwrap_or_default();
    vec![name.to_owned(), takes.join(" "), does(route)]
}

fn does(route: &Value) -> String {
    let weights = |of: &Value| {
        let of = of.as_object().into_iter().flatten();
        of.map(|(name, weight)| (name.clone(), weight.as_u64().unwrap_or(0))).collect::<Vec<_>>()
    };
    let listed = |shares: Vec<(String, u64)>, before: &str| match shares.as_slice() {
        [(only, _)] => format!("{before}{only}"),
        many => many.iter().map(|(name, weight)| format!("{before}{name} {weight}")).collect::<Vec<_>>().join(", "),
    };
    if let Some(to) = route["redirect"]["to"].as_str() {
        return format!("{} to {to}", route["redirect"]["status"]);
    }
    if route["respond"].is_object() {
        return format!("answers {}", route["respond"]["status"]);
    }
    let service = match route["service"].as_str() {
        Some(service) => listed(weights(&route["versions"]), &format!("{service}@")),
        None if route["urls"].is_array() => texts(&route["urls"]).join(", "),
        None => listed(weights(&route["services"]), ""),
    };
    let path = route["rewrite"].as_str().map(|path| format!(" {path}")).unwrap_or_default();
    let mirror = route["mirror"]["service"].as_str().map(|to| format!(", copies to {to}")).unwrap_or_default();
    format!("{service}{path}{mirror}")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_to_servers_names_them() {
        let route = json!({"match": {"path": "/b/*"}, "urls": ["http://a:80", "https://b:443"], "rewrite": "/*"});
        assert_eq!(does(&route), "http://a:80, https://b:443 /*");
    }
}
